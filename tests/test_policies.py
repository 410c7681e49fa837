"""metarl.policies: the Gaussian policy, as torch functions and as the NumPy actor."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, kl_divergence
from torch.distributions import Normal as TorchNormal

from metarl.adaptation import stack
from metarl.policies import GaussianMLP, Normal, PolicyConfig


@pytest.fixture
def pair():
    """Two Gaussians, (2 tasks, 5 steps, 3 action dimensions), and actions, float64."""
    rng = np.random.default_rng(0)

    def normal():
        mean, log_std = rng.standard_normal((2, 5, 3)), 0.3 * rng.standard_normal((2, 1, 3))
        return Normal(torch.from_numpy(mean), torch.from_numpy(log_std))

    return normal(), normal(), torch.from_numpy(rng.standard_normal((2, 5, 3)))


def as_torch(normal: Normal) -> Independent:
    """Torch's own diagonal Gaussian: Independent sums over action dimensions."""
    return Independent(TorchNormal(normal.mean, normal.log_std.exp()), 1)


def test_log_prob_is_the_sum_over_action_dimensions(pair):
    normal, _, action = pair
    expected = TorchNormal(normal.mean, normal.log_std.exp()).log_prob(action).sum(-1)
    assert torch.allclose(normal.log_prob(action), expected, rtol=1e-12)


def test_kl_equals_torch_distributions(pair):
    """KL(self || other), which is not KL(other || self)."""
    one, other, _ = pair
    expected = kl_divergence(as_torch(one), as_torch(other))
    assert torch.allclose(one.kl(other), expected, rtol=1e-12)
    assert not torch.allclose(other.kl(one), expected, rtol=1e-3)
    assert torch.equal(one.kl(one), torch.zeros(2, 5).double())


def test_entropy_equals_torch_distributions(pair):
    normal, _, _ = pair
    expected = as_torch(normal).entropy()
    assert torch.allclose(normal.entropy().expand(2, 5), expected, rtol=1e-12)


def test_fisher_product_is_the_hessian_of_kl(pair):
    """At other = self, in the coordinates mean and log std."""
    normal, direction, _ = pair
    mean, log_std = normal.mean[0, 0], normal.log_std[0, 0]

    def kl(coordinates: torch.Tensor) -> torch.Tensor:
        other = Normal(coordinates[:3], coordinates[3:])
        return Normal(mean, log_std).kl(other)

    hessian = torch.autograd.functional.hessian(kl, torch.cat([mean, log_std]))
    by_mean, by_log_std = normal.fisher_product(direction.mean, direction.log_std)
    expected = hessian @ torch.cat([direction.mean[0, 0], direction.log_std[0, 0]])
    assert torch.allclose(torch.cat([by_mean[0, 0], by_log_std[0, 0]]), expected, rtol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (6,), (6, 4)])
def test_the_numpy_actor_acts_like_the_torch_policy(hidden, activation):
    rng = np.random.default_rng(0)
    policy = GaussianMLP(PolicyConfig(hidden=hidden, activation=activation, init_std=0.5), 3, 2)
    singles = [policy.init(rng) for _ in range(4)]
    params = {name: torch.stack([single[name] for single in singles]) for name in singles[0]}
    obs = rng.standard_normal((4, 7, 3)).astype(np.float32)
    before = obs.copy()
    actor, zeros = policy.actor(params), np.zeros((4, 7, 2), np.float32)
    mean = actor.act(obs, zeros)
    expected = policy(params, torch.from_numpy(obs)).mean.numpy()
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    assert mean.dtype == np.float32
    assert np.array_equal(obs, before), "acting must not write into the observations"
    np.testing.assert_allclose(actor.act(obs, zeros + 1) - mean, 0.5, rtol=1e-5)


def test_stacked_equals_one_by_one():
    rng = np.random.default_rng(0)
    policy = GaussianMLP(PolicyConfig(hidden=(6, 4)), 3, 2)
    singles = [policy.init(rng, torch.float64) for _ in range(4)]
    obs = torch.from_numpy(rng.standard_normal((4, 7, 3)))
    together = policy(
        {name: torch.stack([single[name] for single in singles]) for name in singles[0]}, obs
    )
    for task, single in enumerate(singles):
        alone = policy(stack(single, 1), obs[task : task + 1])
        assert torch.allclose(together.mean[task], alone.mean[0], rtol=1e-13)
        assert torch.equal(together.log_std[task], alone.log_std[0])


def test_the_network_is_what_it_says():
    """One hidden unit, worked by hand: mean = 2 tanh(3 x + 1) - 1, std = e^0.5."""
    policy = GaussianMLP(PolicyConfig(hidden=(1,)), 1, 1)
    values = {"weight0": 3.0, "bias0": 1.0, "weight1": 2.0, "bias1": -1.0, "log_std": 0.5}
    params = {
        name: torch.tensor([[[value]]], dtype=torch.float64) for name, value in values.items()
    }
    normal = policy(params, torch.tensor([[[0.2]]], dtype=torch.float64))
    assert float(normal.mean) == pytest.approx(2 * math.tanh(1.6) - 1, rel=1e-14)
    assert float(normal.log_std) == 0.5


@pytest.mark.parametrize("init_std", [1.0, 0.1])
def test_initial_parameters(init_std):
    """Biases 0, weights within Glorot's bound and spread over it, std as configured."""
    policy = GaussianMLP(PolicyConfig(hidden=(50, 40), init_std=init_std), 30, 6)
    params = policy.init(np.random.default_rng(0))
    assert [tuple(params[f"weight{i}"].shape) for i in range(3)] == [(30, 50), (50, 40), (40, 6)]
    for layer in range(3):
        weight = params[f"weight{layer}"]
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.9 * bound < float(weight.abs().max()) <= bound
        assert not params[f"bias{layer}"].any()
    assert torch.allclose(params["log_std"].exp(), torch.tensor(init_std))


BOUNDS = PolicyConfig(hidden=(), min_std=0.1, max_std=2.0)


@pytest.mark.parametrize(
    ("std", "clamped", "has_gradient"),
    [(0.01, 0.1, False), (0.5, 0.5, True), (1.9, 1.9, True), (5.0, 2.0, False)],
)
def test_std_bounds_are_a_clamp_without_gradient_beyond(std, clamped, has_gradient):
    """Floor and ceiling, as documented, alike in the policy and in the actor."""
    policy = GaussianMLP(BOUNDS, 1, 2)
    params = stack(policy.init(np.random.default_rng(0)), 1)
    log_std = torch.full((1, 1, 2), math.log(std), requires_grad=True)
    params = {**params, "log_std": log_std}
    obs = torch.ones(1, 3, 1)
    normal = policy(params, obs)
    assert torch.allclose(normal.log_std.exp(), torch.tensor(clamped))
    normal.log_prob(torch.full((1, 3, 2), 0.7)).sum().backward()
    assert bool((log_std.grad != 0).all()) == has_gradient
    assert bool((log_std.grad == 0).all()) == (not has_gradient)

    actor, zeros = policy.actor(params), np.zeros((1, 3, 2), np.float32)
    spread = actor.act(obs.numpy(), zeros + 1) - actor.act(obs.numpy(), zeros)
    np.testing.assert_allclose(spread, clamped, rtol=1e-5)


def test_default_bounds_are_documented_and_finite():
    config = PolicyConfig()
    assert (config.min_std, config.max_std) == (1e-6, 20.0)


def test_noise_is_the_streams_standard_normal():
    policy = GaussianMLP(PolicyConfig(hidden=()), 1, 2)
    actor = policy.actor(stack(policy.init(np.random.default_rng(0)), 1))
    noise = actor.noise(np.random.default_rng(5), 400)
    assert noise.shape == (400, 2)
    assert noise.dtype == np.float32
    assert np.array_equal(noise, actor.noise(np.random.default_rng(5), 400))
    assert abs(noise.mean()) < 0.15
    assert abs(noise.std() - 1) < 0.1
