"""metarl.agents.pearl.sac: densities, targets and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.agents.pearl.networks import CRITICS, NetworkConfig, Networks, select
from metarl.agents.pearl.posterior import kl_to_prior, product, sample
from metarl.agents.pearl.sac import SAC, Transitions, sample_action
from metarl.core.params import Params, concatenate, flatten, leaves, unflatten

NETWORKS = Networks(NetworkConfig(hidden=(7, 6), encoder_hidden=(5,), latent_dim=2), 3, 2)
LOSSES = SAC(NETWORKS, discount=0.9, reward_scale=3.0)
M, B = 2, 4


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def params(rng) -> Params:
    """Nothing at a special value such as 0, and outputs that depend on the inputs."""
    params = NETWORKS.init(rng, torch.float64)
    return {
        name: value + 0.3 * torch.from_numpy(rng.standard_normal(value.shape))
        for name, value in params.items()
    }


@pytest.fixture
def batch(rng) -> Transitions:
    rows = torch.from_numpy(rng.standard_normal((M, B, 3 + 2 + 1 + 3 + 1)))
    rows[..., 3:5] = rows[..., 3:5].tanh()
    rows[..., -1] = torch.tensor([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    return Transitions.from_rows(rows, 3, 2)


def normal(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape))


def test_the_rows_of_a_replay_buffer_by_column():
    batch = Transitions.from_rows(torch.arange(10.0).view(1, 1, 10), 3, 2)
    assert batch.obs.tolist() == [[[0, 1, 2]]]
    assert batch.action.tolist() == [[[3, 4]]]
    assert batch.reward.tolist() == [[5]]
    assert batch.next_obs.tolist() == [[[6, 7, 8]]]
    assert batch.continues.tolist() == [[9]]


def test_the_log_density_is_that_of_torch(rng):
    mean, log_std, noise = (normal(rng, 50, 2) for _ in range(3))
    action, log_prob = sample_action(mean, log_std, noise)
    base = torch.distributions.Normal(mean, log_std.exp())
    transform = torch.distributions.TanhTransform(cache_size=1)
    squashed = torch.distributions.TransformedDistribution(base, transform)
    u = mean + log_std.exp() * noise
    assert torch.equal(action, transform(u))  # whose inverse is remembered
    torch.testing.assert_close(log_prob, squashed.log_prob(transform(u)).sum(-1))


def test_the_log_density_is_finite_at_the_bound():
    """In float32 tanh(20) is 1, and the density of the action far beyond it."""
    mean, zeros = torch.tensor([[20.0, -20.0]]), torch.zeros(1, 2)
    action, log_prob = sample_action(mean, zeros, zeros)
    assert action.tolist() == [[1.0, -1.0]]
    expected = 2 * (-0.5 * np.log(2 * np.pi) - (np.log(4) - 40))
    assert log_prob.item() == pytest.approx(expected)


def test_targets_go_on_after_a_time_limit_but_not_after_a_terminal_state(rng, params, batch):
    z, noise = normal(rng, M, 2), normal(rng, M, B, 2)
    target_params = {name: value + 0.1 for name, value in select(params, *CRITICS).items()}
    found = LOSSES.target(params, target_params, batch, z, noise, 0.7)
    for row in range(M * B):
        task, step = divmod(row, B)
        obs, latent = batch.next_obs[task, step][None], z[task][None]
        mean, log_std = NETWORKS.policy(params, obs, latent)
        action, log_prob = sample_action(mean, log_std, noise[task, step][None])
        value = NETWORKS.critics(target_params, obs, action, latent).min() - 0.7 * log_prob
        expected = 3 * batch.reward[task, step] + 0.9 * batch.continues[task, step] * value
        torch.testing.assert_close(found[row], expected[0])
    ends = batch.continues.flatten() == 0
    assert torch.equal(found[ends], 3 * batch.reward.flatten()[ends])


def assert_is_gradient(loss, params: Params, rng) -> None:
    """Against central differences, in a direction for each parameter."""
    start = leaves(params)
    gradient = torch.autograd.grad(loss(start), list(start.values()), materialize_grads=True)
    gradient, vector = concatenate(gradient), flatten(params)
    for name in params:
        direction = concatenate(
            torch.from_numpy(rng.standard_normal(value.shape)) * (other == name)
            for other, value in params.items()
        )
        step = 1e-6 * direction
        ahead, back = (loss(unflatten(vector + sign * step, params)) for sign in (1, -1))
        expected = (ahead - back) / 2e-6
        found = gradient @ direction
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=name)


def test_the_gradient_of_critics_and_encoder(rng, params, batch):
    """Through the draw from the posterior; the target is a constant."""
    context, noise = normal(rng, M, 5, NETWORKS.context_dim), normal(rng, M, 2)
    target = normal(rng, M * B)

    def loss(params: Params) -> torch.Tensor:
        posterior = product(NETWORKS.factors(params, context))
        z = sample(posterior, noise)
        errors, _ = LOSSES.critic_loss(params, batch, z, target)
        return errors / (M * B) + 0.1 * kl_to_prior(posterior).sum()

    assert_is_gradient(loss, select(params, *CRITICS, "encoder"), rng)


def test_the_gradient_of_the_policy(rng, params, batch):
    z, noise = normal(rng, M, 2), normal(rng, M, B, 2)
    critics = select(params, *CRITICS)

    def loss(params: Params) -> torch.Tensor:
        return LOSSES.policy_loss(params, critics, batch, z, noise, 0.7)[0]

    assert_is_gradient(loss, select(params, "policy"), rng)


def test_the_loss_of_critics_by_hand(params, batch):
    z, target = torch.zeros(M, 2, dtype=torch.float64), torch.full((M * B,), 0.5).double()
    errors, value = LOSSES.critic_loss(params, batch, z, target)
    obs, action = batch.obs.flatten(0, 1), batch.action.flatten(0, 1)
    values = NETWORKS.critics(params, obs, action, torch.zeros(M * B, 2).double())
    assert not torch.allclose(values[0], values[1])
    torch.testing.assert_close(errors, ((values - 0.5) ** 2).sum())
    torch.testing.assert_close(value, values.mean(0).sum())
