"""metarl.core.actors: policies in NumPy against the torch policies."""

import math

import numpy as np
import pytest
import torch

from metarl.core.actors import MLPActor, chosen_index
from metarl.core.errors import UserError
from metarl.core.params import stack
from metarl.core.policies import (
    CategoricalMLP,
    GaussianMLP,
    PolicyConfig,
)


def act(actor: MLPActor, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The actions of the first step of episodes, of which every second one has ended."""
    active = np.arange(obs.shape[1]) % 2 == 0
    last_reward = np.zeros(obs.shape[:2], np.float32)
    return actor.act(obs, noise, last_reward, np.broadcast_to(active, obs.shape[:2]))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (6,), (6, 4)])
@pytest.mark.parametrize(
    "inputs", [{}, {"obs_scale": (1.0, 6.0, 0.2), "bias_transform": (2.0, 3.0)}], ids=str
)
def test_the_numpy_actor_acts_like_the_torch_policy(hidden, activation, inputs):
    rng = np.random.default_rng(0)
    config = PolicyConfig(hidden=hidden, activation=activation, init_std=0.5, **inputs)
    policy = GaussianMLP(config, 3, 2)
    singles = [policy.init(rng) for _ in range(4)]
    for single in singles:
        if "input" in single:
            single["input"] += torch.from_numpy(rng.standard_normal((1, 2))).float()
    params = {name: torch.stack([single[name] for single in singles]) for name in singles[0]}
    obs = rng.standard_normal((4, 7, 3)).astype(np.float32)
    before = obs.copy()
    actor, zeros = policy.actor(params), np.zeros((4, 7, 2), np.float32)
    mean = act(actor, obs, zeros)
    expected = policy(params, torch.from_numpy(obs)).mean.numpy()
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    assert mean.dtype == np.float32
    assert np.array_equal(obs, before), "acting must not write into the observations"
    np.testing.assert_allclose(act(actor, obs, zeros + 1) - mean, 0.5, rtol=1e-5)
    assert np.array_equal(act(policy.actor(params, deterministic=True), obs, zeros + 1), mean)


def test_noise_is_the_streams_standard_normal():
    policy = GaussianMLP(PolicyConfig(hidden=()), 1, 2)
    actor = policy.actor(stack(policy.init(np.random.default_rng(0)), 1))
    noise = actor.noise(np.random.default_rng(5), 400)
    assert noise.shape == (400, 2)
    assert noise.dtype == np.float32
    assert np.array_equal(noise, actor.noise(np.random.default_rng(5), 400))
    assert abs(noise.mean()) < 0.15
    assert abs(noise.std() - 1) < 0.1


@pytest.fixture
def categorical() -> tuple[CategoricalMLP, dict[str, torch.Tensor]]:
    """Four actions, and the parameters of two tasks."""
    rng = np.random.default_rng(0)
    policy = CategoricalMLP(PolicyConfig(hidden=(6,)), 3, 4)
    singles = [policy.init(rng) for _ in range(2)]
    return policy, {name: torch.stack([s[name] for s in singles]) for name in singles[0]}


def test_the_categorical_actor_picks_the_largest_of_logits_and_noise(categorical):
    """The index, as a float32, of each task's own network."""
    policy, params = categorical
    rng = np.random.default_rng(1)
    obs = rng.standard_normal((2, 50, 3)).astype(np.float32)
    logits = policy(params, torch.from_numpy(obs)).logits.numpy()
    actor = policy.actor(params)
    greedy = act(actor, obs, np.zeros((2, 50, 4), np.float32))
    assert greedy.shape == (2, 50, 1)
    assert greedy.dtype == np.float32
    assert np.array_equal(greedy[..., 0], logits.argmax(-1))
    assert len(np.unique(greedy)) > 1
    noise = 3 * rng.standard_normal((2, 50, 4)).astype(np.float32)
    assert np.array_equal(act(actor, obs, noise)[..., 0], (logits + noise).argmax(-1))


def test_the_categorical_actor_draws_from_the_softmax(categorical):
    """Chi-square over 20,000 draws at one observation: with 3 degrees of freedom it is above 16.3
    in one of a thousand cases; a stream that is fixed stays what it is."""
    policy, params = categorical
    params = {name: 2 * value for name, value in params.items()}  # far from uniform
    actor, draws = policy.actor(params), 20_000
    obs = np.tile(np.float32([0.5, -1.0, 2.0]), (2, draws, 1))
    noise = np.stack([actor.noise(np.random.default_rng(seed), draws) for seed in (0, 1)])
    assert noise.shape == (2, draws, 4)
    assert noise.dtype == np.float32
    action = act(actor, obs, noise)[..., 0].astype(int)
    probs = policy(params, torch.from_numpy(obs[:, :1])).logits.softmax(-1)[:, 0].numpy()
    assert np.abs(probs - 0.25).max() > 0.1
    for task in range(2):
        expected = draws * probs[task].astype(np.float64)
        counts = np.bincount(action[task], minlength=4)
        assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_the_noise_of_an_episode_is_its_streams(categorical):
    policy, params = categorical
    actor = policy.actor(params)
    first, again, other = (actor.noise(np.random.default_rng(seed), 9) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_actors_actions_are_likely_by_the_torch_policy(activation):
    """The mean log-probability of what it draws is minus the entropy, to sampling error."""
    policy = CategoricalMLP(PolicyConfig(hidden=(6,), activation=activation), 3, 4)
    params = stack(policy.init(np.random.default_rng(0)), 1)
    params = {name: 2 * value for name, value in params.items()}
    rng = np.random.default_rng(2)
    obs = rng.standard_normal((1, 5000, 3)).astype(np.float32)
    actor = policy.actor(params)
    action = act(actor, obs, actor.noise(rng, 5000)[None])
    distribution = policy(params, torch.from_numpy(obs))
    log_prob = distribution.log_prob(torch.from_numpy(action))
    surprise = -(log_prob + distribution.entropy())
    assert abs(float(surprise.mean())) < 4 * float(surprise.std()) / math.sqrt(5000)


@pytest.mark.parametrize("cls", [GaussianMLP, CategoricalMLP])
def test_rewards_and_the_end_of_other_episodes_do_not_change_an_action(cls):
    """To the bit: an MLP has no memory, and ended episodes stay in the matrix product."""
    policy = cls(PolicyConfig(hidden=(6,)), 3, 4)
    actor = policy.actor(stack(policy.init(np.random.default_rng(0)), 2))
    rng = np.random.default_rng(1)
    obs = rng.standard_normal((2, 7, 3)).astype(np.float32)
    noise = rng.standard_normal((2, 7, 4)).astype(np.float32)
    rewards, ended = rng.standard_normal((2, 7)).astype(np.float32), rng.random((2, 7)) < 0.5
    one = actor.act(obs, noise, np.zeros_like(rewards), np.ones_like(ended))
    assert np.array_equal(actor.act(obs, noise, rewards, ended), one)


def test_observations_of_another_size_are_refused():
    """An agent in another task family than that of its training."""
    policy = GaussianMLP(PolicyConfig(hidden=(6,)), 3, 2)
    actor = policy.actor(stack(policy.init(np.random.default_rng(0)), 1))
    with pytest.raises(UserError, match=r"expected observations of 3 numbers, .*, got 4"):
        act(actor, np.zeros((1, 2, 4), np.float32), np.zeros((1, 2, 2), np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("noise", [None, np.zeros((2, 1, 3), np.float32)])
def test_indices_by_logits_that_are_not_finite_are_no_actions(bad, noise):
    logits = np.array([[[0.0, 2.0, 1.0]], [[0.0, bad, 1.0]]], np.float32)
    found = chosen_index(logits, noise)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[[1.0]], [[np.nan]]])
