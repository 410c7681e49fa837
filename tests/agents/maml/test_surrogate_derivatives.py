"""metarl.agents.maml.surrogates: derivatives on episodes of several steps, by scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.maml.batch import ReturnConfig, TrainingBatch, process_episodes
from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.surrogates import (
    EPISODIC,
    dice,
    inner_surrogate,
    likelihood_ratio,
    loaded_dice,
    log_likelihood,
    policy_loss,
)
from metarl.agents.maml.update_rules import SGD
from metarl.core.params import Params, flatten, leaves, stack, unflatten
from metarl.core.policies import GaussianMLP, PolicyConfig
from metarl.envs import PointNav, TabularMDP
from tests.agents.maml.references import with_magic_boxes

SURROGATES = ("likelihood_ratio", "log_likelihood", "dice", "loaded_dice")


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
        longest=2,
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


@pytest.mark.parametrize("name", EPISODIC)
def test_dice_has_the_derivatives_of_magic_boxes_where_the_policy_acted(name, two_step_episodes):
    """Where another policy acted, the boxes are 1 still, and the ratios weigh by importance."""
    policy, params, played = two_step_episodes
    here = derivatives_of(inner_surrogate(name, 0.9), policy, params, played)
    boxes = derivatives_of(with_magic_boxes(name, 0.9), policy, params, played)
    for ours, theirs in zip(here, boxes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    old = replace(played, log_prob=played.log_prob - 0.3)
    ours, _ = derivatives_of(inner_surrogate(name, 0.9), policy, params, old)
    theirs, _ = derivatives_of(with_magic_boxes(name, 0.9), policy, params, old)
    assert torch.equal(theirs, boxes[0])
    assert not torch.allclose(ours, theirs, rtol=0.1)


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
