"""metarl.agents.pearl: acting, adapting and learning of the whole agent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents import Rollout
from metarl.agents.pearl.sac import sample_action
from metarl.config import Config
from metarl.core.timer import Timer
from metarl.envs import PointNav
from metarl.evaluation.config import EvaluationConfig
from metarl.evaluation.protocols import PROTOCOLS
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import NotFinite
from tests.agents import playing

FAMILY = PointNav(horizon=6, action_scale=2.0)
SMALL = {
    "network": {"hidden": [7, 6], "encoder_hidden": [5], "latent_dim": 3},
    "update": {"gradient_steps": 2, "meta_batch": 3, "batch": 8, "context": 6},
    "replay_size": 300,
}
LOSSES = ["critic", "metric"]


def make(num_episodes=2, adaptation_steps=1, threads=1, family=FAMILY, **agent) -> Config:
    return Config(
        env=family,
        agent={"kind": "pearl", **playing.merged(SMALL, agent)},
        sampling={
            "num_tasks": 4,
            "num_episodes": num_episodes,
            "adaptation_steps": adaptation_steps,
            "train_tasks": 6,
        },
        threads=threads,
    )


def play(config: Config, agent, iteration=0, tasks=None, ids=None, **settings) -> list[Rollout]:
    if ids is None:
        ids = np.random.default_rng(iteration).choice(6, 4, replace=False)
    tasks = config.env.tasks("train", 6)[ids] if tasks is None else tasks
    return playing.play(config, agent, tasks, iteration, task_ids=ids, **settings)


def learn(config: Config, agent, iteration: int):
    """An iteration as the training loop makes it; returns the phases and the metrics."""
    rollouts = play(config, agent, iteration)
    phases = [episodes for _, episodes in rollouts]
    agent.record(iteration, phases)
    return phases, agent.update(rollouts, np.random.default_rng(iteration), Timer())


def updated(config: Config, iterations=2):
    agent = config.make_agent()
    for iteration in range(1, iterations + 1):
        _, metrics = learn(config, agent, iteration)
    return agent, metrics


def scattered(agent):
    """The agent with larger weights, so that everything depends on everything."""
    rng = np.random.default_rng(5)
    params = {
        name: value + torch.from_numpy(rng.normal(size=value.shape, scale=0.3)).float()
        for name, value in agent.learned.params.items()
    }
    agent.learned = replace(agent.learned, params=params)
    return agent


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


def assert_same_state(one, other) -> None:
    for name in ("precision", "weighted_mean", "num_episodes", "mean", "variance"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name


def changed(episodes: Episodes, **arrays) -> Episodes:
    return Episodes(**{**episodes.arrays, **arrays})


@pytest.mark.parametrize("encoder_loss", LOSSES)
def test_acting_is_the_learners_network(encoder_loss):
    """NumPy in rollouts and torch in the learner, from the latents that were drawn."""
    config = make(update={"encoder_loss": encoder_loss})
    agent = scattered(config.make_agent())
    state = agent.adapt(*play(config, agent)[0])
    actor = agent.actor(state)
    rng = np.random.default_rng(0)
    noise = np.stack([actor.noise(rng, 6) for _ in range(8)]).reshape(4, 2, 6, -1)
    assert noise.shape == (4, 2, 6, 2 + 3)
    obs = np.float32(rng.normal(size=(6, 4, 2, 2)))
    active, reward = np.ones((4, 2), bool), np.zeros((4, 2), np.float32)
    found = np.stack([actor.act(obs[t], noise[:, :, t], reward, active) for t in range(6)])
    expected_z = state.mean + np.sqrt(state.variance) * noise[:, :, 0, 2:]
    np.testing.assert_allclose(actor.z, expected_z, atol=1e-6)
    z = np.broadcast_to(expected_z, (6, 4, 2, 3))
    rows = [torch.from_numpy(np.float32(each)).reshape(48, -1) for each in (obs, z)]
    mean, log_std = agent.networks.policy(agent.learned.params, *rows)
    drawn = torch.from_numpy(np.moveaxis(noise[..., :2], 2, 0)).reshape(48, 2)
    expected, _ = sample_action(mean, log_std, drawn)
    np.testing.assert_allclose(found.reshape(48, 2), 2 * expected, atol=2e-6)
    assert np.abs(found).max() <= 2
    actor = agent.actor(state, deterministic=True)
    found = actor.act(obs[0], noise[:, :, 0], reward, active)
    np.testing.assert_allclose(actor.z, state.mean, atol=1e-6)
    rows = [torch.from_numpy(np.float32(each)).reshape(8, -1) for each in (obs[0], state.mean)]
    mean, _ = agent.networks.policy(agent.learned.params, *rows)
    np.testing.assert_allclose(found.reshape(8, 2), 2 * torch.tanh(mean), atol=2e-6)


def test_each_episode_has_a_latent_of_its_own_until_its_end():
    config = make()
    agent = config.make_agent()
    actor = agent.actor(agent.initial_state(4))
    rng = np.random.default_rng(0)
    args = np.zeros((4, 2), np.float32), np.ones((4, 2), bool)
    drawn = []
    for _ in range(2):
        noise = np.float32(rng.normal(size=(4, 2, 5)))
        actor.act(np.zeros((4, 2, 2), np.float32), noise, *args)
        drawn.append(actor.z.copy())
        assert len(np.unique(actor.z)) == 4 * 2 * 3
    assert np.array_equal(*drawn)


def test_the_state_begins_with_the_prior_and_narrows():
    config = make(adaptation_steps=2)
    agent = config.make_agent()
    states = [state for state, _ in play(config, agent)]
    assert (states[0].mean == 0).all()
    assert (states[0].variance == 1).all()
    assert (states[2].variance < states[1].variance).all()
    assert states[2].num_episodes.tolist() == [[2, 2]] * 4
    assert agent.next_task(states[1]) is states[1]


def test_the_prior_is_used_for_as_many_episodes_as_the_config_says():
    config = make(adaptation_steps=2, prior_episodes=2)
    agent = config.make_agent()
    states = [state for state, _ in play(config, agent)]
    for state in states[:2]:
        assert (state.mean == 0).all()
        assert (state.variance == 1).all()
    assert (states[2].mean != 0).all()
    once = make(adaptation_steps=2).make_agent()
    episodes = [episodes for _, episodes in play(config, agent)]
    state = once.initial_state(4)
    for each in episodes[:2]:
        state = once.adapt(state, each)
    assert np.array_equal(states[2].mean, state.mean)  # of both episodes


@pytest.mark.parametrize("encoder_loss", LOSSES)
def test_the_order_of_the_context_changes_nothing(encoder_loss):
    """Steps within an episode (with their next observations), and episodes of a trial."""
    network = {"next_obs_in_context": True}
    config = make(adaptation_steps=2, update={"encoder_loss": encoder_loss}, network=network)
    agent = scattered(config.make_agent())
    phases = [episodes for _, episodes in play(config, agent)]
    one = agent.adapt(agent.adapt(agent.initial_state(4), phases[0]), phases[1])
    other = agent.adapt(agent.adapt(agent.initial_state(4), phases[1]), phases[0])
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-12)
    rows = torch.from_numpy(agent.replay.row_format.rows(phases[0]))
    context = rows[..., : agent.networks.context_dim]
    params = agent.learned.params
    order = torch.randperm(6)
    found = [agent.networks.factors(params, each) for each in (context, context[:, :, order])]
    torch.testing.assert_close(found[0].mean[:, :, order], found[1].mean)
    torch.testing.assert_close(found[0].variance.sum(2), found[1].variance.sum(2))


@pytest.mark.parametrize("encoder_loss", LOSSES)
def test_a_posterior_is_of_the_trials_own_exploration(encoder_loss):
    """Neither the replay buffer nor other tasks nor other trials of the task have a part in it."""
    config = make(update={"encoder_loss": encoder_loss})
    agent = scattered(updated(config)[0])
    state, episodes = play(config, agent)[0]
    before = agent.adapt(state, episodes)
    garbage = changed(episodes, reward=np.float32(1e6) * episodes.mask)
    agent.record(9, [garbage, garbage])
    assert_same_state(agent.adapt(state, episodes), before)
    reward = episodes.reward.copy()
    reward[2, 1] += 1
    after = agent.adapt(state, changed(episodes, reward=reward))
    differs = (after.mean != before.mean).any(axis=-1)
    assert np.argwhere(differs).tolist() == [[2, 1]]
    alone = agent.adapt(agent.initial_state(1), episodes.rows(2, 3))
    assert np.array_equal(alone.mean[0], before.mean[2])


def test_adaptation_is_pure_and_takes_the_steps_that_took_place():
    config = make()
    agent = scattered(config.make_agent())
    state, episodes = play(config, agent)[0]
    mask = episodes.mask.copy()
    mask[1, 0, 3:] = mask[3, 1] = False
    short = changed(episodes, mask=mask)
    after = agent.adapt(state, short)
    assert_same_state(state, agent.initial_state(4))
    obs = np.where(mask[..., None], episodes.obs, 99)
    assert_same_state(agent.adapt(state, changed(short, obs=obs)), after)
    # A trial whose episode was left out stays under the prior.
    assert after.num_episodes.tolist() == [[1, 1], [1, 1], [1, 1], [1, 0]]
    assert (after.mean[3, 1] == 0).all()
    assert (after.variance[3, 1] == 1).all()


@pytest.mark.parametrize("encoder_loss", LOSSES)
def test_an_update_is_a_function_of_the_state_and_of_what_is_kept(encoder_loss):
    """After the buffer has wrapped around: a new agent with the state in a checkpoint, which is
    given the episodes since the oldest kept iteration only, learns the same, bit for bit."""
    config = make(update={"encoder_loss": encoder_loss, "learn_temperature": True})
    agent, recorded = config.make_agent(), {}
    for iteration in range(1, 8):
        recorded[iteration], metrics = learn(config, agent, iteration)
    assert metrics["replay_size"] > 200
    phases = recorded[7]
    oldest = agent.record(8, phases)
    assert oldest > 3
    again = config.make_agent()
    again.load_state_dict(agent.state_dict())
    for iteration in range(oldest, 8):
        again.record(iteration, recorded[iteration])
    assert again.record(8, phases) == oldest
    assert_same(again.state_dict(), agent.state_dict())
    for each in (agent, again):
        each.update([], np.random.default_rng(3), Timer())
    assert_same(again.state_dict(), agent.state_dict())
    assert learn(config, agent, 9)[1] == learn(config, again, 9)[1]
    assert_same(again.state_dict(), agent.state_dict())


def test_a_loaded_state_is_a_copy():
    config = make()
    agent, _ = updated(config)
    state = agent.state_dict()
    before = {name: torch.as_tensor(value).clone() for name, value in state.items()}
    other = config.make_agent()
    other.load_state_dict(state)
    assert_same(other.state_dict(), before)
    learn(config, agent, 5)
    learn(config, other, 6)
    assert_same(state, before)


def test_every_part_learns():
    """Critics, encoder and policy with each step; targets follow the critics; the temperature only
    if it is learned."""
    for learns in (False, True):
        config = make(update={"learn_temperature": learns, "gradient_steps": 1})
        agent = config.make_agent()
        before = agent.learned
        metrics = learn(config, agent, 1)[1]
        after = agent.learned
        for name, value in after.params.items():
            assert not torch.equal(value, before.params[name]), name
        for name, value in after.target.items():
            expected = before.target[name] + 0.005 * (after.params[name] - before.target[name])
            torch.testing.assert_close(value, expected)
        assert torch.equal(before.log_temperature, after.log_temperature) != learns
        # The policy is more random than the target -2, so the weight of its entropy falls.
        assert metrics["entropy"] > -2
        assert bool(after.log_temperature < before.log_temperature) == learns


def test_the_temperature_follows_the_entropy():
    """Steps of Adam on alpha (entropy - target) in the logarithm of alpha (Haarnoja et al. 2018b,
    equation 18); the target is -2, for two numbers of an action within +-1."""
    config = make(update={"learn_temperature": True, "temperature": 0.3, "gradient_steps": 1})
    agent = config.make_agent()
    log_temperature = agent.learned.log_temperature.clone().requires_grad_()
    adam = torch.optim.Adam([log_temperature], lr=config.agent.update.lr)
    for iteration in range(1, 4):
        metrics = learn(config, agent, iteration)[1]
        assert metrics["temperature"] == pytest.approx(log_temperature.exp().item())
        adam.zero_grad()
        (log_temperature.exp() * (metrics["entropy"] + 2)).sum().backward()
        adam.step()
        torch.testing.assert_close(agent.learned.log_temperature, log_temperature.detach())


def test_the_metric_loss_alone_trains_the_encoder():
    """The critics' loss does not: another scale of rewards changes nothing in the encoder."""
    found = []
    for scale in (1.0, 100.0):
        config = make(update={"encoder_loss": "metric", "reward_scale": scale})
        agent = config.make_agent()
        learn(config, agent, 1)
        found.append(agent.learned.params)
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]) == name.startswith("encoder"), name


@pytest.mark.parametrize("encoder_loss", LOSSES)
def test_threads_change_nothing(encoder_loss):
    """With a batch that is large enough to be split."""
    update = {"encoder_loss": encoder_loss, "batch": 500}
    found = [updated(make(threads=n, update=update, replay_size=600))[0] for n in (1, 2)]
    assert len(found[0]._learner._split(data_of(found[0]))) == 2
    assert_same(*(agent.state_dict() for agent in found))


def data_of(agent):
    return agent._learner.draw(agent.replay, np.random.default_rng(0), torch.float32)


def test_two_microbatches_have_the_gradient_of_one():
    config = make(update={"batch": 500}, replay_size=600)
    agent, _ = updated(config, 1)
    data = data_of(agent)
    found = []
    for split in (True, False):
        learner, start = agent._learner, agent.learned
        if not split:
            learner._split = lambda data: [data]
        own = config.make_agent()
        own.load_state_dict(agent.state_dict())
        after, z, terms = learner.critic_step(start, own._optimisers, data)
        after, more = learner.policy_step(after, own._optimisers, data, z)
        found.append({**terms, **more, **after.params})
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_warm_up_fills_the_buffer_only():
    config = make(update={"warmup_iterations": 2})
    agent = config.make_agent()
    before, steps = agent.state_dict(), 0
    for iteration in (1, 2):
        phases, metrics = learn(config, agent, iteration)
        assert metrics.keys() == {"replay_size", "replay_tasks", "gradient_steps"}
        assert metrics["gradient_steps"] == 0
        steps += sum(each.num_steps for each in phases)
        assert metrics["replay_size"] == steps
        assert_same({**agent.state_dict(), "num_updates": 0}, before)
    _, metrics = learn(config, agent, 3)
    assert {"critic_loss", "policy_loss", "posterior_kl", "mean_q", "entropy"} <= metrics.keys()
    assert metrics["gradient_steps"] == agent.update_config.gradient_steps
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("encoder_loss", LOSSES)
def test_numbers_that_are_not_finite_leave_the_agent_as_it_was(encoder_loss):
    config = make(update={"encoder_loss": encoder_loss})
    agent, _ = updated(config)
    before = agent.state_dict()
    phases = [episodes for _, episodes in play(config, agent, 3)]
    for each in phases:
        each.reward[:] = 3e38
    agent.record(3, phases)
    with pytest.raises(NotFinite, match="not finite; nothing was updated"):
        agent.update([], np.random.default_rng(0), Timer())
    assert_same(agent.state_dict(), before)


def test_nothing_is_learned_from_an_empty_buffer():
    config = make()
    agent = config.make_agent()
    before = agent.state_dict()
    with pytest.raises(NotFinite, match="empty replay buffer"):
        agent.update([], np.random.default_rng(0), Timer())
    assert_same(agent.state_dict(), before)


def test_few_episodes_of_experience_are_those_of_one_trial():
    """The return after an episode of experience does not depend on how many trials there are."""
    config = make()
    agent = scattered(config.make_agent())
    found = [
        PROTOCOLS["few_episode"](agent, FAMILY, EvaluationConfig(tasks=2, trials=trials))[""]
        for trials in (1, 3)
    ]
    np.testing.assert_allclose(found[0].returns[..., 0], found[1].returns[..., 0], rtol=1e-5)
