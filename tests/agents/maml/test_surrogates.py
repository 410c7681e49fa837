"""metarl.agents.maml.surrogates: the surrogates and their derivatives, exactly.

First on a problem with a known expected return: one step, one action a ~ N(mean, std^2), reward
-(a - goal)^2, so the expected loss is (mean - goal)^2 + std^2. Gauss-Hermite quadrature replaces
the sampling and is exact here. Then on episodes of several steps, against sums over scores.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.maml.batch import ReturnConfig, TrainingBatch, process_episodes
from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.surrogates import (
    EPISODIC,
    clipped_ratio,
    dice,
    emaml_term,
    inner_surrogate,
    likelihood_ratio,
    loaded_dice,
    log_likelihood,
    magic_box,
    mean_kl,
    policy_loss,
)
from metarl.agents.maml.update_rules import SGD
from metarl.core.params import Params, flatten, leaves, stack, unflatten
from metarl.core.policies import GaussianMLP, PolicyConfig
from metarl.envs import PointNav, TabularMDP

GOAL, MEAN, STD = 0.7, -0.4, 0.6
SURROGATES = ("likelihood_ratio", "log_likelihood", "dice", "loaded_dice")
EXACT = ("likelihood_ratio", "dice", "loaded_dice")


@pytest.fixture
def policy() -> GaussianMLP:
    """The mean is a bias: the only observation is 0."""
    return GaussianMLP(PolicyConfig(hidden=()), 1, 1)


@pytest.fixture
def params() -> Params:
    values = {"weight0": 0.0, "bias0": MEAN, "log_std": np.log(STD)}
    return {
        name: torch.full((1, 1), value, dtype=torch.float64, requires_grad=True)
        for name, value in values.items()
    }


@torch.no_grad()
def expectation(policy: GaussianMLP, params: Params) -> TrainingBatch:
    """The quadrature's actions and weights: a sum over it is the expectation over the policy.

    Episodes of one step, with a baseline of -2.5.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    mean, std = params["bias0"].item(), params["log_std"].exp().item()
    action = torch.from_numpy(mean + std * nodes).reshape(1, -1, 1)
    obs = torch.zeros_like(action)
    log_prob = policy(params, obs).log_prob(action)
    reward = -((action[..., 0] - GOAL) ** 2)
    return TrainingBatch(
        obs=obs,
        action=action,
        advantage=reward + 2.5,
        weight=torch.from_numpy(weights / weights.sum())[None],
        log_prob=log_prob,
        reward=reward,
        value=torch.full_like(reward, -2.5),
        loss=torch.zeros(1, dtype=torch.float64),
        horizon=1,
    )


def derivatives(surrogate: str, policy: GaussianMLP, params: Params) -> tuple[list, list]:
    """First derivatives by mean and log std, and the diagonal of the second."""
    stacked = stack(params, 1)
    batch = expectation(policy, stacked)
    loss = inner_surrogate(surrogate)(policy(stacked, batch.obs), batch)
    coordinates = [params["bias0"], params["log_std"]]
    first = torch.autograd.grad(loss.sum(), coordinates, create_graph=True)
    second = [
        torch.autograd.grad(slope.sum(), coordinate, retain_graph=True)[0]
        for slope, coordinate in zip(first, coordinates, strict=True)
    ]
    return [slope.item() for slope in first], [curvature.item() for curvature in second]


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_gradient_is_the_policy_gradient(surrogate, policy, params):
    """d/d(mean, log std) of (mean - goal)^2 + std^2."""
    first, _ = derivatives(surrogate, policy, params)
    assert first == pytest.approx([2 * (MEAN - GOAL), 2 * STD**2], rel=1e-10)


@pytest.mark.parametrize("surrogate", EXACT)
def test_the_curvature_is_that_of_the_expected_return(surrogate, policy, params):
    _, second = derivatives(surrogate, policy, params)
    assert second == pytest.approx([2.0, 4 * STD**2], rel=1e-10)


def test_the_log_likelihoods_curvature_is_not(policy, params):
    """It is E[A] / std^2 in the mean: without the credit for the policy that gathered the data."""
    _, second = derivatives("log_likelihood", policy, params)
    expected_advantage = 2.5 - (MEAN - GOAL) ** 2 - STD**2
    assert second[0] == pytest.approx(expected_advantage / STD**2, rel=1e-10)
    assert abs(second[0] - 2.0) > 0.5


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_meta_gradient_of_an_exactly_known_problem(surrogate, policy, params):
    """One step of size lr takes mean - goal to (1 - 2 lr) times it, so the loss after it has the
    slope 2 (1 - 2 lr)^2 (mean - goal) in the mean. The log-likelihood does not find it."""
    lr, inner = 0.1, inner_surrogate(surrogate)
    before = expectation(policy, stack(params, 1))
    loop = InnerLoop(SGD(lr))
    losses = [lambda stacked: inner(policy(stacked, before.obs), before)]
    adapted = loop.adapt(params, losses, 1, differentiable=True).fast_params
    assert adapted["bias0"].item() - GOAL == pytest.approx((1 - 2 * lr) * (MEAN - GOAL))
    after = expectation(policy, adapted)
    loss = likelihood_ratio(policy(adapted, after.obs), after).sum()
    slope = torch.autograd.grad(loss, params["bias0"])[0].item()
    true_slope = 2 * (1 - 2 * lr) ** 2 * (MEAN - GOAL)
    if surrogate in EXACT:
        assert slope == pytest.approx(true_slope, rel=1e-10)
    else:
        assert abs(slope / true_slope - 1) > 0.1


# --- episodes of several steps ---


def scores(policy: GaussianMLP, params: Params, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """First and second derivatives of each step's log-probability, of one task of unstacked
    params: (N, P) and (N, P, P)."""

    def log_prob(vector: Tensor) -> Tensor:
        stacked = stack(unflatten(vector, params), 1)
        return policy(stacked, batch.obs).log_prob(batch.action)[0]

    first = torch.autograd.functional.jacobian(log_prob, flatten(params))
    second = [
        torch.autograd.functional.hessian(lambda v, step=step: log_prob(v)[step], flatten(params))
        for step in range(batch.obs.shape[1])
    ]
    return first, torch.stack(second)


def derivatives_of(surrogate, policy, params, batch) -> tuple[Tensor, Tensor]:
    """Gradient (P,) and Hessian (P, P) of a surrogate of one task."""

    def loss(vector: Tensor) -> Tensor:
        stacked = stack(unflatten(vector, params), 1)
        return surrogate(policy(stacked, batch.obs), batch).sum()

    vector = flatten(params).requires_grad_()
    first = torch.autograd.grad(loss(vector), vector, create_graph=True)[0]
    second = [torch.autograd.grad(slope, vector, retain_graph=True)[0] for slope in first]
    return first.detach(), torch.stack(second)


@pytest.fixture
def two_step_episodes():
    """One task, two episodes of two steps, the second of which ended after one; and the policy."""
    small = GaussianMLP(PolicyConfig(hidden=(2,)), 1, 1)
    rng = np.random.default_rng(2)
    params = {name: value + 0.3 for name, value in small.init(rng, torch.float64).items()}

    def draw(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal((1, 4, *shape)))

    took_place = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).double()
    obs, action = draw(1), draw(1)
    batch = TrainingBatch(
        obs=obs,
        action=action,
        advantage=draw() * took_place,
        weight=took_place / 3,
        log_prob=small(stack(params, 1), obs).log_prob(action),
        reward=draw() * took_place,
        value=draw() * took_place,
        loss=torch.zeros(1, dtype=torch.float64),
        horizon=2,
    )
    return small, params, batch


def outer(x: Tensor) -> Tensor:
    return x[:, None] * x[None, :]


def test_the_likelihood_ratios_second_derivative_by_scores(two_step_episodes):
    """-sum w A (s s^T + H): each step is credited for itself alone."""
    policy, params, played = two_step_episodes
    s, h = scores(policy, params, played)
    _, second = derivatives_of(likelihood_ratio, policy, params, played)
    advantage = played.advantage[0]
    expected = -sum(advantage[t] * (outer(s[t]) + h[t]) for t in range(3)) / 3
    torch.testing.assert_close(second, expected, rtol=1e-10, atol=1e-12)


def test_the_log_likelihoods_second_derivative_by_scores(two_step_episodes):
    """-sum w A H."""
    policy, params, played = two_step_episodes
    _, h = scores(policy, params, played)
    _, second = derivatives_of(log_likelihood, policy, params, played)
    expected = -sum(played.advantage[0, t] * h[t] for t in range(3)) / 3
    torch.testing.assert_close(second, expected, rtol=1e-10, atol=1e-12)


def test_dices_derivatives_by_scores(two_step_episodes):
    """Two steps, worked out: the second reward counts with the probability of both.

    box(l0) r0 + box(l0 + l1) r1 + (1 - box(l0)) b0 + (1 - box(l1)) b1, whose derivatives are sums
    over s = grad l, H = Hessian of l: of box(l), s and s s^T + H.
    """
    policy, params, played = two_step_episodes
    s, h = scores(policy, params, played)
    first, second = derivatives_of(dice, policy, params, played)
    r, b = played.reward[0], played.value[0]
    slope = r[0] * s[0] + r[1] * (s[0] + s[1]) - b[0] * s[0] - b[1] * s[1]
    slope = slope + (r[2] - b[2]) * s[2]  # the second episode
    torch.testing.assert_close(first, -slope / 3, rtol=1e-11, atol=1e-13)
    both = outer(s[0] + s[1]) + h[0] + h[1]
    curvature = (r[0] - b[0]) * (outer(s[0]) + h[0]) + r[1] * both - b[1] * (outer(s[1]) + h[1])
    curvature = curvature + (r[2] - b[2]) * (outer(s[2]) + h[2])
    torch.testing.assert_close(second, -curvature / 3, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_loaded_dices_derivatives_by_scores(two_step_episodes, decay):
    """box(l0) - 1 at the first step and box(d l0 + l1) - box(d l0) at the second; without the
    decay (d = 0) the second derivative is that of the likelihood ratio."""
    policy, params, played = two_step_episodes
    s, h = scores(policy, params, played)
    first, second = derivatives_of(loaded_dice(decay), policy, params, played)
    a = played.advantage[0]
    torch.testing.assert_close(first, -(a[:3] @ s[:3]) / 3, rtol=1e-11, atol=1e-13)
    later = outer(decay * s[0] + s[1]) - outer(decay * s[0]) + h[1]
    curvature = a[0] * (outer(s[0]) + h[0]) + a[1] * later + a[2] * (outer(s[2]) + h[2])
    torch.testing.assert_close(second, -curvature / 3, rtol=1e-10, atol=1e-12)
    _, ratio = derivatives_of(likelihood_ratio, policy, params, played)
    assert torch.allclose(second, ratio, rtol=1e-9) == (decay == 0)


def test_loaded_dice_looks_back_over_a_whole_episode(tiny_policy, tiny_params, make_batch):
    """Three steps and more, with weights 1, d, d^2, ... and in each episode anew."""
    decay, params = 0.7, stack(tiny_params, 1)
    played = make_batch(tiny_policy, params, np.random.default_rng(5), num_steps=8)
    played = replace(played, weight=torch.full((1, 8), 1 / 8).double())
    s, h = scores(tiny_policy, tiny_params, played)
    _, second = derivatives_of(loaded_dice(decay), tiny_policy, tiny_params, played)
    expected = torch.zeros_like(second)
    for t in range(8):
        before = range(4 * (t // 4), t)
        past = sum((decay ** (t - u) * s[u] for u in before), torch.zeros(34).double())
        here = outer(past + s[t]) - outer(past) + h[t]
        expected -= played.advantage[0, t] * here / 8
    torch.testing.assert_close(second, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("surrogate", EPISODIC)
def test_steps_after_an_episodes_end_have_no_influence(surrogate, two_step_episodes):
    """Whatever their probability is: neither on values nor on derivatives of any order."""
    policy, params, played = two_step_episodes
    obs, action = played.obs.clone(), played.action.clone()
    obs[0, 3], action[0, 3] = 7.0, -9.0
    soiled = replace(played, obs=obs, action=action)
    function = inner_surrogate(surrogate, 0.9)
    for one, other in zip(
        derivatives_of(function, policy, params, played),
        derivatives_of(function, policy, params, soiled),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_the_value_of_each_surrogate_where_the_policy_acted(two_step_episodes):
    """-sum w A for the ratio, the mean reward for DiCE, and 0 for loaded DiCE."""
    policy, params, played = two_step_episodes
    now = policy(stack(params, 1), played.obs)
    objective = {
        "likelihood_ratio": (played.advantage * played.weight).sum(),
        "log_likelihood": (played.log_prob * played.advantage * played.weight).sum(),
        "dice": (played.reward * played.weight).sum(),
        "loaded_dice": 0.0,
    }
    for name, value in objective.items():
        assert inner_surrogate(name)(now, played).item() == pytest.approx(-float(value), rel=1e-12)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_a_rule_sees_the_tasks_loss_with_the_derivatives_of_the_surrogate(
    surrogate, two_step_episodes
):
    """The value is `rule_loss`; first and second derivatives are the surrogate's, at the parameters
    that acted and at others."""
    policy, params, played = two_step_episodes
    loss = policy_loss(played, policy, inner_surrogate(surrogate))
    rule_loss = torch.tensor([0.7], dtype=torch.float64)
    seen = []

    class Recording(SGD):
        def step(self, meta, fast_params, optimizer_state, gradient, loss, index):
            seen.append(loss)
            return super().step(meta, fast_params, optimizer_state, gradient, loss, index)

    found, loop = [], InnerLoop(Recording(0.1))
    for shift in (0.0, 0.1):
        meta = leaves({name: x + shift for name, x in params.items()})
        state = loop.init_state(meta, 1)
        loop.step(meta, state, loss, rule_loss=rule_loss, differentiable=True)
        assert seen[-1].tolist() == pytest.approx([0.7], rel=1e-12)
        plain = inner_surrogate(surrogate)(policy(stack(meta, 1), played.obs), played)
        for value in (seen[-1], plain):
            first = torch.autograd.grad(value.sum(), list(meta.values()), create_graph=True)
            length = sum(piece.square().sum() for piece in first)
            found.append((first, torch.autograd.grad(length, list(meta.values()))))
    for (one, two), (other, others) in zip(found[::2], found[1::2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip((*one, *two), (*other, *others), strict=True))


def test_magic_box_is_one_with_the_derivatives_of_the_exponential():
    x = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    box = magic_box(x.square())
    first = torch.autograd.grad(box, x, create_graph=True)[0]
    second = torch.autograd.grad(first, x)[0]
    assert box.item() == 1.0
    assert first.item() == pytest.approx(2 * 0.7)  # (x^2)'
    assert second.item() == pytest.approx((2 * 0.7) ** 2 + 2)  # (x^2)'^2 + (x^2)''


# --- on real episodes ---


@pytest.fixture
def process(make_agent, play):
    """TrainingBatch of real episodes, some of which end early, and the agent whose they are."""

    def process(family, **settings: float):
        agent = make_agent(family, dtype=torch.float64)
        tasks = family.tasks("train", 3)
        if isinstance(family, PointNav):
            tasks = np.array([[0.1, 0.0], [0.0, -0.1], [0.4, 0.4]])
        episodes = play(agent, agent.initial_state(3), family, tasks, 12)
        params = stack(agent.meta, 3)
        cpu = torch.device("cpu")
        played, _ = process_episodes(episodes, agent.policy, params, ReturnConfig(**settings), cpu)
        return agent, params, episodes, played

    return process


class EndlessNav(PointNav):
    """Its episodes are cut short, and the value of their last state counts."""

    finite_horizon = False


NEAR = {"horizon": 25, "action_scale": 1.0}
FAMILIES = [PointNav(**NEAR), EndlessNav(**NEAR), TabularMDP(horizon=6, num_states=3)]


def gradient_of(surrogate, agent, played) -> Tensor:
    start = leaves(agent.meta)
    loss = surrogate(agent.policy(stack(start, 3), played.obs), played).sum()
    gradients = torch.autograd.grad(loss, list(start.values()))
    return torch.cat([gradient.flatten() for gradient in gradients])


def assert_close(actual: Tensor, expected: Tensor, rel: float = 1e-10) -> None:
    """The difference is small against the whole vector."""
    assert float((actual - expected).norm() / expected.norm()) < rel


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
def test_all_inner_surrogates_adapt_alike_without_discount(family, standardize, process):
    """Discount and lambda are 1: one and the same first derivative, the policy gradient."""
    agent, _, episodes, played = process(family, discount=1.0, standardize=standardize)
    if isinstance(family, PointNav):
        assert 0 < episodes.terminated.sum() < episodes.terminated.size, "ends of both kinds"
    expected = gradient_of(likelihood_ratio, agent, played)
    for surrogate in (log_likelihood, dice, loaded_dice(1.0), loaded_dice(0.3)):
        assert_close(gradient_of(surrogate, agent, played), expected)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
def test_dice_counts_the_discount_from_the_start_of_an_episode(family, process):
    """Its first derivative is the likelihood ratio's on advantages times discount^t; the others'
    are not discounted in this manner, with any lambda."""
    discount = 0.8
    agent, _, _, played = process(family, discount=discount)
    to_start = discount ** torch.arange(family.horizon).double().repeat(12)
    discounted = replace(played, advantage=played.advantage * to_start)
    assert_close(gradient_of(dice, agent, played), gradient_of(likelihood_ratio, agent, discounted))
    agent, _, _, played = process(family, discount=discount, gae_lambda=0.7)
    expected = gradient_of(likelihood_ratio, agent, played)
    assert_close(gradient_of(loaded_dice(0.9), agent, played), expected)
    assert_close(gradient_of(log_likelihood, agent, played), expected)


# --- clipping and the term of E-MAML, by hand ---


@dataclass
class Given:
    """Has given log-probabilities, whatever the action."""

    values: Tensor

    def log_prob(self, action: Tensor) -> Tensor:
        return self.values


def ratios(*values: float) -> tuple[Given, Tensor]:
    """A policy with these likelihood ratios against one of log-probability 0, and their leaf."""
    leaf = torch.tensor([values], dtype=torch.float64).log().requires_grad_()
    return Given(leaf), leaf


def steps(advantage: list[float], weight: list[float]) -> TrainingBatch:
    rows = [torch.tensor([row], dtype=torch.float64) for row in (advantage, weight)]
    zeros = torch.zeros_like(rows[0])
    return TrainingBatch(zeros, zeros, *rows, zeros, zeros, zeros, zeros[:, 0], len(advantage))


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope"),
    [
        (1.5, 2.0, 2.4, 0.0),  # beyond 1.2 nothing more is gained
        (1.5, -2.0, -3.0, -3.0),  # but what is lost counts in full
        (0.5, 2.0, 1.0, 1.0),
        (0.5, -2.0, -1.6, 0.0),  # below 0.8 nothing more is gained
        (1.1, 2.0, 2.2, 2.2),
        (0.9, -2.0, -1.8, -1.8),
        (1.0, 2.0, 2.0, 2.0),
    ],
)
def test_clipped_ratio_by_hand(ratio, advantage, objective, slope):
    """With clip 0.2; the slope is by log pi, so r A where it is not clipped."""
    policy, leaf = ratios(ratio)
    loss = clipped_ratio(0.2)(policy, steps([advantage], [1.0]))
    assert loss.tolist() == pytest.approx([-objective])
    assert torch.autograd.grad(loss.sum(), leaf)[0].item() == pytest.approx(-slope)


@pytest.mark.parametrize(
    ("surrogate", "expected"),
    [
        (likelihood_ratio, 0.25 * 1.5 * 2 + 0.75 * 0.5 * 4),
        (clipped_ratio(0.2), 0.25 * 1.2 * 2 + 0.75 * 0.5 * 4),
        (log_likelihood, 0.25 * np.log(1.5) * 2 + 0.75 * np.log(0.5) * 4),
    ],
)
def test_surrogates_are_weighted_sums(surrogate, expected):
    policy, _ = ratios(1.5, 0.5)
    loss = surrogate(policy, steps([2.0, 4.0], [0.25, 0.75]))
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(-expected)


def test_emaml_term_by_hand():
    """-(mean ratio) * return weight; by log pi: -weight * ratio * return weight."""
    policy, leaf = ratios(1.5, 0.5)
    loss = emaml_term(policy, steps([9.0, 9.0], [0.25, 0.75]), torch.tensor([-2.0]).double())
    assert loss.tolist() == pytest.approx([2 * (0.25 * 1.5 + 0.75 * 0.5)])
    slope = torch.autograd.grad(loss.sum(), leaf)[0]
    assert slope.tolist() == [pytest.approx([2 * 0.25 * 1.5, 2 * 0.75 * 0.5])]


def test_emaml_term_makes_a_good_tasks_data_more_likely(tiny_policy, tiny_params, make_batch):
    """Its gradient is minus the return weight times the mean of the scores, task by task."""
    batch = make_batch(tiny_policy, stack(tiny_params, 2), np.random.default_rng(0))
    return_weight = torch.tensor([1.5, -0.5]).double()
    start = leaves(tiny_params)
    policy = tiny_policy(stack(start, 2), batch.obs)
    found = torch.autograd.grad(
        emaml_term(policy, batch, return_weight).sum(), list(start.values()), retain_graph=True
    )
    log_prob = (policy.log_prob(batch.action) * batch.weight).sum(1)
    expected = torch.autograd.grad((-return_weight * log_prob).sum(), list(start.values()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def test_mean_kl_averages_by_weight(tiny_policy, tiny_params, make_batch):
    """KL(old || new), and steps of weight 0 do not count."""
    rng = np.random.default_rng(0)
    params = stack(tiny_params, 2)
    batch = make_batch(tiny_policy, params, rng)
    old = tiny_policy(params, batch.obs)
    shifted = {name: value + 0.1 for name, value in params.items()}
    new = tiny_policy(shifted, batch.obs)
    expected = [old.kl(new)[task][batch.weight[task] > 0].mean().item() for task in range(2)]
    assert mean_kl(old, new, batch.weight).tolist() == pytest.approx(expected, rel=1e-12)
