"""metarl.agents.maml.surrogates: the surrogates and their derivatives, exactly.

First on a problem with a known expected return: one step, one action a ~ N(mean, std^2), reward
-(a - goal)^2, so the expected loss is (mean - goal)^2 + std^2. Gauss-Hermite quadrature replaces
the sampling and is exact here.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.maml.batch import TrainingBatch
from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.surrogates import (
    clipped_ratio,
    emaml_term,
    inner_surrogate,
    likelihood_ratio,
    log_likelihood,
    mean_kl,
)
from metarl.agents.maml.update_rules import SGD
from metarl.core.params import Params, leaves, stack
from metarl.core.policies import GaussianMLP, PolicyConfig

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
        longest=1,
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
    return TrainingBatch(
        zeros, zeros, *rows, zeros, zeros, zeros, zeros[:, 0], *2 * [len(advantage)]
    )


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


@pytest.mark.parametrize(
    "surrogate",
    [
        likelihood_ratio,
        clipped_ratio(0.2),
        lambda policy, batch: emaml_term(policy, batch, torch.ones(1).double()),
    ],
    ids=["likelihood_ratio", "clipped_ratio", "emaml_term"],
)
def test_steps_after_an_episodes_end_have_no_ratio(surrogate):
    """Where it would be infinite: neither value nor slope differ from those of the first step."""
    log_prob = torch.tensor([[0.1, 1e4]], dtype=torch.float64, requires_grad=True)
    alone, leaf = ratios(np.exp(0.1))
    loss, expected = (
        surrogate(Given(log_prob), steps([2.0, 0.0], [1.0, 0.0])),
        surrogate(alone, steps([2.0], [1.0])),
    )
    assert loss.tolist() == pytest.approx(expected.tolist())
    (slope,) = torch.autograd.grad(loss.sum(), log_prob)
    (first,) = torch.autograd.grad(expected.sum(), leaf)
    assert slope.tolist() == [pytest.approx([first.item(), 0.0])]


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
