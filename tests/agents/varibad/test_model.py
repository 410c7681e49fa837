"""The model of VariBAD: the evidence lower bound, its derivatives, and the belief it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from metarl.agents.moments import Moments
from metarl.agents.recurrent.inputs import InputEncoder
from metarl.agents.recurrent.learner import encode_trials
from metarl.agents.recurrent.trials import join_episodes
from metarl.agents.varibad.belief import BeliefEncoder, EncoderConfig
from metarl.agents.varibad.decoders import DecoderConfig, Decoders, Steps
from metarl.agents.varibad.model import Model, ModelConfig, belief_kl
from metarl.agents.varibad.replay import TrialBuffer
from metarl.agents.vector_adam import VectorAdam
from metarl.core.params import flatten, unflatten
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import GridWorld
from metarl.rollout.collect import collect, episode_rngs

F64 = torch.float64


def test_the_divergence_of_beliefs_is_torchs():
    rng = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(2, 3, 4, 2, generator=rng, dtype=F64)
    found = belief_kl(mean, log_var)
    beliefs = [Normal(mean[:, t], (0.5 * log_var[:, t]).exp()) for t in range(4)]
    before = [Normal(torch.zeros(3, 2, dtype=F64), torch.ones(3, 2, dtype=F64)), *beliefs[:-1]]
    for t in range(4):
        expected = kl_divergence(beliefs[t], before[t]).sum(-1)
        torch.testing.assert_close(found[:, t], expected)


def test_the_bound_is_that_of_a_linear_gaussian_problem():
    """Rewards are the latent variable plus noise of variance 1/2, whose log density is minus the
    squared error. So n rewards have a Gaussian posterior of precision 1 + 2 n and mean
    2 sum(r) / (1 + 2 n): the loss is smallest there, and its value there is minus the log evidence,
    up to the constant of the densities."""
    config = DecoderConfig(hidden=(), reward_inputs="next")
    decoders = Decoders(config, obs_dim=1, action_dim=1, task_dim=1, latent=1)
    params = {"reward.weight0": torch.tensor([[1.0], [0.0]], dtype=F64)}
    params["reward.bias0"] = torch.zeros(1, dtype=F64)
    reward = torch.tensor([[0.3, -1.0, 0.8]], dtype=F64)
    empty = torch.zeros(1, 3, 1, dtype=F64)
    mask = torch.ones(1, 3, dtype=F64)
    steps = Steps(empty, empty, empty, reward, reward > 0, mask, empty[:, 0])

    def loss(mean: torch.Tensor, log_var: torch.Tensor) -> torch.Tensor:
        # The expectation of a square is exact with these two samples.
        samples = mean + (0.5 * log_var).exp() * torch.tensor([[[-1.0], [1.0]]], dtype=F64)
        errors = decoders.errors(params, samples, steps)["reward"]  # (1, 2)
        return errors.mean() + belief_kl(mean.view(1, 1, 1), log_var.view(1, 1, 1)).sum()

    precision = 1 + 2 * 3
    mean = torch.tensor(2 * 0.1 / precision, dtype=F64, requires_grad=True)
    log_var = torch.tensor(-np.log(precision), dtype=F64, requires_grad=True)
    least = loss(mean, log_var)
    for gradient in torch.autograd.grad(least, [mean, log_var]):
        assert abs(float(gradient)) < 1e-12
    covariance = 0.5 * np.eye(3) + 1
    r = reward[0].numpy()
    evidence = -0.5 * (
        r @ np.linalg.solve(covariance, r) + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    constant = 3 * 0.5 * np.log(np.pi)  # of three densities exp(-error) / sqrt(pi)
    assert float(least.detach()) + constant == pytest.approx(-evidence)


def test_errors_of_the_decoders_by_hand():
    config = DecoderConfig(
        hidden=(), reward="positive", reward_inputs="transition", state_weight=0.5, task_weight=2.0
    )
    decoders = Decoders(config, obs_dim=1, action_dim=1, task_dim=2, latent=1)
    params = {
        "reward.weight0": torch.tensor([[1.0], [0.0], [2.0], [0.0]]),  # latent, next, obs, action
        "reward.bias0": torch.tensor([0.5]),
        "state.weight0": torch.tensor([[1.0], [0.0], [3.0]]),  # latent, obs, action
        "state.bias0": torch.zeros(1),
        "task.weight0": torch.tensor([[1.0, -1.0]]),
        "task.bias0": torch.zeros(2),
    }
    steps = Steps(
        obs=torch.tensor([[[1.0], [7.0]]]),
        next_obs=torch.tensor([[[5.0], [7.0]]]),
        action=torch.tensor([[[1.0], [7.0]]]),
        reward=torch.tensor([[-0.1, 7.0]]),
        positive=torch.tensor([[0.0, 1.0]]),
        mask=torch.tensor([[1.0, 0.0]]),  # the second step did not take place
        task=torch.tensor([[1.0, 1.0]]),
    )
    found = decoders.errors(params, torch.tensor([[[2.0]]]), steps)
    # Logit 2 + 2 + 0.5 of a reward that is not positive; state 2 + 3 of 5; task (2, -2) of (1, 1)
    assert float(found["reward"]) == pytest.approx(np.log(1 + np.exp(4.5)), rel=1e-6)
    assert float(found["state"]) == 0.0
    assert float(found["task"]) == 1 + 9


def trials_of(family, num_trials=6, num_episodes=2, seed=0):
    """Episodes of random actions, phase by phase, as an agent records them."""

    class Random:
        def noise(self, rng, horizon):
            return rng.random((horizon, 1))

        def act(self, obs, noise, last_reward, active):
            return np.float32(np.floor(noise * 5))

    tasks = family.sample_tasks(np.random.default_rng(seed), num_trials)
    env = family.make_batch(num_trials)
    rngs = [
        episode_rngs(seed, Purpose.TRAIN_EPISODES, num_trials, 1, adaptation_step=phase)
        for phase in range(num_episodes)
    ]
    return [collect(env, Random(), tasks, each, Timer()) for each in rngs]


def model_of(family, device="cpu", threads=1, decoder=None, **config):
    size, actions = family.size**2, 5
    latent = config.pop("latent", 2)
    settings = EncoderConfig(size=config.pop("size", 4), latent=latent)
    encoder = BeliefEncoder(settings, size + actions + 2)
    decoders = Decoders(decoder or DecoderConfig(hidden=(4,)), size, actions, 2, latent)
    rng = np.random.default_rng(0)
    arrays = {**encoder.init(rng), **decoders.init(rng)}
    model = Model(encoder, decoders, ModelConfig(**config), torch.device(device), threads)
    return encoder, decoders, model, arrays


@pytest.mark.parametrize(("bounds", "decoded"), [(0, 0), (3, 0), (3, 2)])
def test_the_derivatives_are_those_of_differences(bounds, decoded):
    """Of the whole loss, through the recurrence and all decoders, in float64."""
    family = GridWorld(size=3, horizon=4)
    config = DecoderConfig(hidden=(4,), state_weight=1.0, task_weight=1.0)
    _, _, model, arrays = model_of(
        family, decoder=config, bounds=bounds, decoded=decoded, kl_weight=0.7
    )
    rng = np.random.default_rng(1)
    params = {
        name: torch.from_numpy(value + 0.1 * rng.standard_normal(value.shape))
        for name, value in arrays.items()
    }
    buffer = TrialBuffer(3)
    buffer.add(1, trials_of(family))
    minibatch = model.draw(buffer, np.random.default_rng(2))[0]
    inputs = InputEncoder(5, None, None)

    def found(vector):
        return model._gradient(unflatten(vector, params), minibatch, inputs)

    vector = flatten(params)
    _, gradient = found(vector)
    for _ in range(5):
        direction = torch.from_numpy(rng.standard_normal(len(vector)))
        ahead, behind = (found(vector + step * direction)[0][0] for step in (1e-6, -1e-6))
        difference = (ahead - behind) / 2e-6
        assert float(difference) == pytest.approx(float(gradient @ direction), rel=1e-6)


@pytest.mark.parametrize("num_episodes", [1, 3])
def test_diagnostics_do_not_depend_on_weights_or_the_length_of_trials(num_episodes):
    """The divergence is that of a step, in nats, the errors have no weights, and the loss is the
    weighted sum of both, per step."""
    family, found = GridWorld(size=3, horizon=4), {}
    buffer, inputs = TrialBuffer(6), InputEncoder(5, None, None)
    buffer.add(1, trials_of(family, num_episodes=num_episodes))
    for weight in (1.0, 100.0):
        config = DecoderConfig(hidden=(4,), reward_weight=weight, state_weight=0.5)
        encoder, _, model, arrays = model_of(family, decoder=config, kl_weight=0.7, decoded=0)
        params = {name: torch.from_numpy(np.float64(value)) for name, value in arrays.items()}
        minibatch = model.draw(buffer, np.random.default_rng(2))[0]
        found[weight] = model._gradient(params, minibatch, inputs)[0]
    trials = minibatch.trials
    encoded, _ = encode_trials(inputs, trials)
    kl = belief_kl(*encoder(params, torch.from_numpy(np.float64(encoded))))
    per_step = float(kl[torch.from_numpy(trials.mask)].mean())
    for weight, (loss, belief, reward, state) in found.items():
        assert float(belief) == pytest.approx(per_step)
        assert torch.equal(torch.stack([reward, state]), found[1.0][2:])
        kl_per_step = 0.7 * per_step / trials.mask.shape[1]
        assert float(loss) == pytest.approx(float(kl_per_step + weight * reward + 0.5 * state))


def test_a_reward_is_positive_whatever_its_scale():
    """Inputs are bounded around the mean, which has the sign of the other reward if one is rare."""
    episodes = trials_of(GridWorld(size=3, horizon=4), 2, 1)
    trials = join_episodes(episodes)
    reward = np.where(np.arange(trials.reward.shape[1]) == 1, 1.0, -0.1)
    trials = replace(trials, reward=np.broadcast_to(reward, trials.reward.shape))
    moments = Moments.empty(1).with_rows(np.append(np.full(20_000, -0.1), 1.0)[:, None])
    steps = Model.steps(trials, InputEncoder(5, None, moments), torch.from_numpy)
    assert (steps.reward < 0).all()
    assert steps.positive.tolist() == (trials.reward > 0).tolist()


def test_steps_drawn_at_random_weigh_as_much_as_all():
    """Every step once is all steps; of two trials, the second has one step less."""
    steps = Steps(
        obs=torch.randn(2, 3, 1),
        next_obs=torch.randn(2, 3, 1),
        action=torch.randn(2, 3, 1),
        reward=torch.randn(2, 3),
        positive=torch.ones(2, 3),
        mask=torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]),
        task=torch.randn(2, 2),
    )
    decoders = Decoders(
        DecoderConfig(hidden=(4,), state_weight=1.0, task_weight=1.0), 1, 1, task_dim=2, latent=1
    )
    arrays = decoders.init(np.random.default_rng(0)).items()
    params = {name: torch.from_numpy(np.float32(value)) for name, value in arrays}
    latent = torch.randn(2, 5, 1)
    whole = decoders.errors(params, latent, steps)
    drawn = decoders.errors(params, latent, steps.at(torch.tensor([[2, 0, 1], [1, 0, 1]])))
    doubled = decoders.errors(
        params, latent, steps.at(torch.tensor([[2, 0, 1, 0, 1, 2], 3 * [0, 1]]))
    )
    for name, errors in whole.items():
        torch.testing.assert_close(drawn[name][0], errors[0])
        torch.testing.assert_close(doubled[name], errors)


def test_a_belief_knows_its_own_past_only():
    """Neither later steps nor other trials change it."""
    family = GridWorld(size=3, horizon=4)
    encoder, _, _, arrays = model_of(family)
    params = {name: torch.from_numpy(value) for name, value in arrays.items()}
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 6, 16)))
    mean, log_var = encoder(params, x)
    other = x.clone()
    other[1:], other[0, 4:] = 9.0, 9.0
    for one, two in zip((mean, log_var), encoder(params, other), strict=True):
        torch.testing.assert_close(one[0, :4], two[0, :4])
        assert not torch.allclose(one[0, 4:], two[0, 4:])


def test_any_number_of_threads_gives_the_same_bits():
    family, found = GridWorld(size=3, horizon=4), []
    for threads in (1, 3):
        _, _, model, arrays = model_of(family, threads=threads, trials=12)
        params = {name: torch.from_numpy(np.float32(value)) for name, value in arrays.items()}
        buffer = TrialBuffer(20)
        buffer.add(1, trials_of(family, 16))
        adam = VectorAdam(flatten(params), 1e-3)
        inputs = InputEncoder(5, None, None)
        found.append(
            model.learn(params, adam, model.draw(buffer, np.random.default_rng(0)), inputs, 0)
        )
    (one, metrics), (two, others) = found
    assert metrics == others
    assert all(torch.equal(one[name], two[name]) for name in one)


def exact_posteriors(family, trials) -> np.ndarray:
    """Posteriors over the goals before each step of trials, (n, L, number of goals)."""
    cell = trials.next_obs.argmax(-1)
    goals = np.array([x * family.size + y for x, y in family.all_tasks])
    found = np.zeros((*cell.shape, len(goals)))
    for trial in range(len(cell)):
        possible = np.ones(len(goals))
        for step in range(cell.shape[1]):
            found[trial, step] = possible / possible.sum()
            here = goals == cell[trial, step]
            possible = 1.0 * here if trials.reward[trial, step] > 0 else possible * ~here
    return found


def test_the_belief_on_a_gridworld_is_close_to_bayes():
    """Of random walks: where a decoder of rewards sees the goal by the belief, against the exact
    posterior, which is even over the cells without a reward so far."""
    family, steps_of_trial = GridWorld(size=3, horizon=20), 20
    decoder = DecoderConfig(hidden=(32,), reward="positive", reward_inputs="next")
    settings = {"size": 32, "latent": 5, "updates": 600, "trials": 40, "kl_weight": 0.1, "lr": 5e-3}
    encoder, decoders, model, arrays = model_of(family, decoder=decoder, **settings)
    params = {name: torch.from_numpy(np.float32(value)) for name, value in arrays.items()}
    buffer, inputs = TrialBuffer(2000), InputEncoder(5, None, None)
    buffer.add(1, trials_of(family, 2000, 1))
    adam = VectorAdam(flatten(params), 5e-3)
    params, _ = model.learn(params, adam, model.draw(buffer, np.random.default_rng(0)), inputs, 0)

    trials = join_episodes(trials_of(family, 200, 1, seed=1))
    mean, log_var = encoder(params, torch.from_numpy(encode_trials(inputs, trials)[0]))
    noise = torch.randn(200 * steps_of_trial, 64, 5, generator=torch.Generator().manual_seed(0))
    latent = mean.reshape(-1, 1, 5) + (0.5 * log_var).exp().reshape(-1, 1, 5) * noise
    goals = [int(x * family.size + y) for x, y in family.all_tasks]
    cells = torch.eye(9)[goals].expand(200 * steps_of_trial, len(goals), 9)
    empty = torch.zeros(200 * steps_of_trial, len(goals), 1)
    steps = Steps(empty, cells, empty, *3 * [empty[..., 0]], empty[:, 0])
    chance = torch.sigmoid(decoders.reward(params, latent, steps)).mean(1).detach().numpy()
    decoded = (chance / chance.sum(-1, keepdims=True)).reshape(200, steps_of_trial, len(goals))
    exact = exact_posteriors(family, trials)

    def divergence(other: np.ndarray) -> float:
        terms = np.where(exact > 0, exact * np.log(np.maximum(exact, 1e-12) / other), 0)
        return float(terms.sum(-1).mean())

    found, ignorant = divergence(decoded), divergence(np.full_like(exact, 1 / len(goals)))
    assert found < 0.35
    assert found < 0.65 * ignorant


def test_the_buffer_is_a_function_of_its_last_trials():
    """After it has gone round, what it returns does not depend on what fell out of it."""
    family = GridWorld(size=3, horizon=4)
    phases = {iteration: trials_of(family, 4, seed=iteration) for iteration in range(1, 8)}
    whole, late = TrialBuffer(10), TrialBuffer(10)
    oldest = [whole.add(iteration, each) for iteration, each in phases.items()]
    assert oldest == [1, 1, 1, 2, 3, 4, 5]
    for iteration in range(oldest[-1], 8):
        late.add(iteration, phases[iteration])
    assert len(whole) == len(late) == 10
    one, other = (each.sample(np.random.default_rng(0), 10) for each in (whole, late))
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, vars(other)[name])
    last = join_episodes(phases[7])
    rows = [int(np.flatnonzero((one.obs == obs).all((1, 2)))[0]) for obs in last.obs]
    for name in ("action", "reward", "ends", "next_obs", "task"):
        np.testing.assert_array_equal(getattr(one, name)[rows], getattr(last, name))
