"""metarl.agents.recurrent.learner: sequences shared out, weights and values of trials."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents.moments import Moments
from metarl.agents.recurrent.actor_critic import Predictions
from metarl.agents.recurrent.learner import Learner, encode_trials, microbatches, reward_scale
from metarl.agents.recurrent.ppo import PPOConfig
from metarl.agents.recurrent.trials import Trials, join_episodes
from metarl.config import Config
from metarl.core.distributions import Normal
from metarl.core.parallel import MicrobatchPool
from metarl.envs import PointNav
from tests.agents.playing import play


@pytest.mark.parametrize(
    ("count", "steps", "expected"),
    [
        (10, 400, [10]),
        (16, 400, [8, 8]),
        (32, 50, [16, 16]),
        (80, 50, [40, 40]),
        (81, 50, [27, 27, 27]),
        (40, 800, [20, 20]),
        (17, 5000, [6, 6, 5]),
    ],
)
def test_parts_are_of_similar_size_and_smaller_if_sequences_are_long(count, steps, expected):
    rows = torch.arange(count) + 3
    parts = microbatches(rows, steps)
    assert [len(part) for part in parts] == expected
    assert torch.equal(torch.cat(parts), rows)


def weighed_batch(weight, **update):
    """The learner of RL2, parameters in float64 and the batch of four trials of 10 steps."""
    config = Config(
        env=PointNav(horizon=5, action_scale=1.0, ends_at_goal=False),
        agent={"kind": "rl2", "network": {"size": 4}, "update": update},
        sampling={"num_tasks": 4, "num_episodes": 1, "adaptation_steps": 1},
        threads=1,
    )
    agent = config.make_agent()
    trials = join_episodes([episodes for _, episodes in play(config, agent)])
    weight = None if weight is None else np.array(weight)
    params = {name: value.double() for name, value in agent.params.items()}
    inputs = encode_trials(agent.encoder, trials)
    batch, _ = agent._learner.batch(params, replace(trials, weight=weight), *inputs, 0.7)
    return agent._learner, params, batch


@pytest.mark.parametrize("truncate", [0, 4])
def test_minibatches_have_the_weighted_gradient_on_average(truncate):
    """Of all trials together, also where each minibatch is one trial; weights of mean 2 are made
    weights of mean 1."""
    learner, params, batch = weighed_batch([5.0, 0.5, 1.5, 1.0], truncate=truncate)
    weight = batch.weight.unflatten(0, (4, -1)).amax((1, 2))
    torch.testing.assert_close(weight, torch.tensor([2.5, 0.25, 0.75, 0.5]).double())

    def gradient(batch, *trials):
        rows = batch.rows_of(torch.tensor(trials))
        return learner._gradient(params, batch, rows, learner._config)[1]

    whole = gradient(batch, 0, 1, 2, 3)
    mean = torch.stack([gradient(batch, trial) for trial in range(4)]).mean(0)
    torch.testing.assert_close(mean, whole)
    plain = weighed_batch(None, truncate=truncate)[2]
    each = torch.stack([gradient(plain, trial) for trial in range(4)])
    torch.testing.assert_close(weight @ each / 4, whole)
    assert float((whole - each.mean(0)).norm()) > 0.1 * float(whole.norm())


def test_steps_after_a_trials_end_have_no_probability_ratio():
    """Where it would be infinite: neither the loss nor its derivatives differ."""
    learner, params, batch = weighed_batch(None)
    weight = batch.weight.clone()
    weight[1, 7:] = 0
    shorter = replace(batch, weight=weight, advantage=batch.advantage * weight)
    log_prob = torch.where(weight > 0, batch.log_prob, -1e4)
    rows = torch.arange(4)
    for one, other in zip(
        learner._gradient(params, shorter, rows, learner._config),
        learner._gradient(params, replace(shorter, log_prob=log_prob), rows, learner._config),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_equal_weights_change_no_bit():
    plain, equal = (weighed_batch(weight)[2].tensors for weight in (None, [2.0] * 4))
    assert all(torch.equal(plain[name], equal[name]) for name in plain)


class Sums:
    """A network whose memory and value are the sum of its inputs so far."""

    memory_size = 1

    def __call__(self, params, inputs, memory):
        sums = memory[:, None] + inputs.cumsum(1)
        return Predictions(Normal(inputs, inputs[:, :1]), sums[..., 0], sums)


def two_trials() -> Trials:
    """Two trials of two episodes: of two steps and one, and of one step and one."""
    mask = np.array([[True, True, True], [True, True, False]])
    ends = np.array([[False, True, True], [True, True, False]])
    reward = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 0.0]], np.float32)
    obs = np.zeros((2, 3, 1), np.float32)
    return Trials(obs, obs, reward, mask, ends, obs, ends, obs[:, 0])


@pytest.mark.parametrize(
    ("across_episodes", "bootstrap", "expected"),
    [
        # Values after the ends are 4 + 30 and 2 + 60: 4 + 34 / 2, 2 + 21 / 2 ..; 16 + 62 / 2 ..
        (True, [True, True], [[7.25, 12.5, 21.0], [31.5, 47.0, 0.0]]),
        (True, [True, False], [[7.25, 12.5, 21.0], [16.0, 16.0, 0.0]]),
        (True, [False, False], [[3.0, 4.0, 4.0], [16.0, 16.0, 0.0]]),
        # And after the first episodes 3 + 10 and 1 + 20: 2 + 13 / 2 and 8 + 21 / 2
        (False, [True, True], [[5.25, 8.5, 21.0], [18.5, 47.0, 0.0]]),
        (False, [False, False], [[2.0, 2.0, 4.0], [8.0, 16.0, 0.0]]),
    ],
)
def test_returns_go_on_after_a_trial_or_an_episode_that_was_cut_off(
    across_episodes, bootstrap, expected
):
    config = PPOConfig(discount=0.5, gae_lambda=1.0, across_episodes=across_episodes)
    trials = two_trials()
    cut = replace(trials, bootstrap=trials.ends & np.array(bootstrap)[:, None])
    inputs = np.float32([[1, 2, 1], [1, 1, 0]])[..., None]
    after = np.float32([[0, 10, 30], [20, 60, 0]])[..., None]
    learner = Learner(Sums(), config, torch.device("cpu"), MicrobatchPool(1))
    batch, _ = learner.batch({"none": torch.zeros(1)}, cut, inputs, after, 1.0)
    found = batch.target * (batch.weight > 0)
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("across_episodes", "returns"),
    [(True, [3.0, 4.0, 4.0, 16.0, 16.0]), (False, [2.0, 2.0, 4.0, 8.0, 16.0])],
)
def test_rewards_are_scaled_by_the_returns_that_are_learned(across_episodes, returns):
    """1 + 4 / 2 .. over the end of an episode, or 1 + 2 / 2."""
    config = PPOConfig(discount=0.5, across_episodes=across_episodes)
    moments, scale = reward_scale(Moments.empty(1), two_trials(), config)
    assert moments.count == 5
    assert moments.mean == pytest.approx(np.mean(returns))
    assert scale == pytest.approx(1 / np.std(returns))
