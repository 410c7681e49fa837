"""metarl.objectives: the surrogates, exactly, on a problem with a known expected return.

One step, one action a ~ N(mean, std^2), reward -(a - goal)^2, so the expected loss is
(mean - goal)^2 + std^2. Gauss-Hermite quadrature replaces the sampling and is exact here.
"""

import numpy as np
import pytest
import torch

from metarl.adaptation import InnerConfig, adapt, stack
from metarl.experience import Experience
from metarl.objectives import INNER_SURROGATES, likelihood_ratio, mean_kl
from metarl.policies import GaussianMLP, Params, PolicyConfig

GOAL, MEAN, STD = 0.7, -0.4, 0.6


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
def expectation(policy: GaussianMLP, params: Params) -> Experience:
    """The quadrature's actions and weights: a sum over it is the expectation over the policy."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    mean, std = params["bias0"].item(), params["log_std"].exp().item()
    action = torch.from_numpy(mean + std * nodes).reshape(1, -1, 1)
    obs = torch.zeros_like(action)
    log_prob = policy(params, obs).log_prob(action)
    reward = -((action[..., 0] - GOAL) ** 2)
    return Experience(
        obs, action, reward, torch.from_numpy(weights / weights.sum())[None], log_prob
    )


def derivatives(surrogate: str, policy: GaussianMLP, params: Params) -> tuple[list, list]:
    """First derivatives by mean and log std, and the diagonal of the second."""
    stacked = stack(params, 1)
    experience = expectation(policy, stacked)
    loss = INNER_SURROGATES[surrogate](policy(stacked, experience.obs), experience)
    leaves = [params["bias0"], params["log_std"]]
    first = torch.autograd.grad(loss.sum(), leaves, create_graph=True)
    second = [
        torch.autograd.grad(slope.sum(), leaf, retain_graph=True)[0]
        for slope, leaf in zip(first, leaves, strict=True)
    ]
    return [slope.item() for slope in first], [curvature.item() for curvature in second]


@pytest.mark.parametrize("surrogate", INNER_SURROGATES)
def test_the_gradient_is_the_policy_gradient(surrogate, policy, params):
    """d/d(mean, log std) of (mean - goal)^2 + std^2."""
    first, _ = derivatives(surrogate, policy, params)
    assert first == pytest.approx([2 * (MEAN - GOAL), 2 * STD**2], rel=1e-10)


def test_the_likelihood_ratios_curvature_is_that_of_the_expected_return(policy, params):
    _, second = derivatives("likelihood_ratio", policy, params)
    assert second == pytest.approx([2.0, 4 * STD**2], rel=1e-10)


def test_the_log_likelihoods_curvature_is_not(policy, params):
    """It is E[A] / std^2 in the mean: without the credit for the policy that gathered the data."""
    _, second = derivatives("log_likelihood", policy, params)
    expected_reward = -((MEAN - GOAL) ** 2 + STD**2)
    assert second[0] == pytest.approx(expected_reward / STD**2, rel=1e-10)
    assert second[0] < 0


@pytest.mark.parametrize("surrogate", INNER_SURROGATES)
def test_the_meta_gradient_of_an_exactly_known_problem(surrogate, policy, params):
    """One step of size lr takes mean - goal to (1 - 2 lr) times it, so the loss after it has the
    slope 2 (1 - 2 lr)^2 (mean - goal) in the mean. Only the likelihood ratio finds it."""
    lr, start = 0.1, stack(params, 1)
    config = InnerConfig(lr=lr, surrogate=surrogate)
    adapted = adapt(policy, start, [expectation(policy, start)], config, differentiable=True)
    assert adapted["bias0"].item() - GOAL == pytest.approx((1 - 2 * lr) * (MEAN - GOAL))
    after = expectation(policy, adapted)
    loss = likelihood_ratio(policy(adapted, after.obs), after).sum()
    slope = torch.autograd.grad(loss, params["bias0"])[0].item()
    true_slope = 2 * (1 - 2 * lr) ** 2 * (MEAN - GOAL)
    if surrogate == "likelihood_ratio":
        assert slope == pytest.approx(true_slope, rel=1e-10)
    else:
        assert abs(slope / true_slope - 1) > 0.1


def test_mean_kl_averages_by_weight(tiny_policy, tiny_params, invent):
    """KL(old || new), and steps of weight 0 do not count."""
    rng = np.random.default_rng(0)
    params = stack(tiny_params, 2)
    experience = invent(tiny_policy, params, rng)
    old = tiny_policy(params, experience.obs)
    shifted = {name: value + 0.1 for name, value in params.items()}
    new = tiny_policy(shifted, experience.obs)
    expected = [old.kl(new)[task][experience.weight[task] > 0].mean().item() for task in range(2)]
    assert mean_kl(old, new, experience.weight).tolist() == pytest.approx(expected, rel=1e-12)
