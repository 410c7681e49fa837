"""Deterministic actions of measured episodes; adaptation explores as usual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import metarl
from metarl.agents.rollouts import adaptation_rollouts
from metarl.core.errors import UserError
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import TabularMDP
from metarl.evaluation.config import EvaluationConfig
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.protocols import PROTOCOLS
from metarl.rollout.collect import collect, episode_rngs
from tests.evaluation.learner import (
    FAMILY,
    FailsOnce,
    Learner,
    LearnerState,
    Walker,
    expected_returns,
)

SMALL = EvaluationConfig(tasks=5, episodes=3, steps=2, deterministic=True)


class Explorer(Walker):
    """Acts with noise, unless it is deterministic."""

    def __init__(self, targets: np.ndarray, std: float) -> None:
        super().__init__(targets)
        self.std = std

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return rng.standard_normal((horizon, 2), np.float32)

    def act(self, obs, noise, last_reward, active):
        return super().act(obs, noise, last_reward, active) + self.std * noise


class ExploringLearner(Learner):
    """Learns the goals from the episodes that it has explored in, and from no others."""

    def actor(self, state: LearnerState, *, deterministic: bool = False) -> Explorer:
        return Explorer(state.targets, 0.0 if deterministic else 5.0)

    def adapt(self, state, episodes):
        step = 10 * (state.targets[:, None, None] - episodes.obs)
        assert not np.allclose(episodes.action[episodes.mask], step[episodes.mask], atol=0.5)
        return super().adapt(state, episodes)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_measures_the_actions_without_noise(protocol):
    """These have the returns of an agent without noise, exactly."""
    measured = PROTOCOLS[protocol](ExploringLearner(), FAMILY, SMALL)
    expected = PROTOCOLS[protocol](Learner(), FAMILY, SMALL)
    assert measured.keys() == expected.keys()
    for part, result in measured.items():
        assert result.deterministic
        if not part.startswith(("observation_noise", "motor_strength")):
            np.testing.assert_array_equal(result.returns, expected[part].returns)


def test_the_returns_are_those_known_by_hand():
    result = PROTOCOLS["k_step"](ExploringLearner("constant"), FAMILY, SMALL)[""]
    goals = FAMILY.tasks("test", 5)
    targets = [share * goals for share in (0, 3 / 4, 15 / 16)]
    expected = np.array([expected_returns(each, goals) for each in targets]).T
    np.testing.assert_allclose(result.returns, np.tile(expected[..., None], 3), atol=1e-4)


def test_maml_adapts_as_in_the_evaluation_without_it():
    """The states are the same, and the deterministic episodes begin where the others begin."""
    config = metarl.load_config("point_nav/maml_trpo", **{"agent.policy.hidden": [8]})
    agent, tasks = config.make_agent(), FAMILY.tasks("test", 4)
    usual = adaptation_rollouts(
        agent,
        FAMILY.make_batch(8),
        tasks,
        2,
        seed=0,
        purpose=Purpose.EVALUATION_EPISODES,
        timer=Timer(),
    )
    expected = []
    for step, (state, episodes) in enumerate(usual):
        played = collect(
            FAMILY.make_batch(8),
            agent.actor(state, deterministic=True),
            tasks,
            episode_rngs(0, Purpose.EVALUATION_EPISODES, 4, 2, adaptation_step=step),
            Timer(),
        )
        assert np.array_equal(played.obs[:, :, 0], episodes.obs[:, :, 0])
        assert not np.array_equal(played.action, episodes.action)
        expected.append(played.returns)
    result = evaluate(agent, FAMILY, tasks=4, episodes=2, steps=2, deterministic=True)
    assert np.array_equal(result.returns, np.stack(expected, axis=1))


def test_a_categorical_policy_plays_its_mode():
    """In a deterministic MDP all episodes of a task are then the same."""
    family = TabularMDP(num_states=3, num_actions=2, horizon=5, reward_std=0.0)
    config = metarl.load_config("tabular_mdp/maml_trpo", env=family)
    row = family.tasks("test", 1)[0]
    row[6:] = np.eye(3)[[1, 2, 0, 1, 2, 0]].ravel()  # the next state of each state and action
    returns = [
        evaluate(
            config.make_agent(), family, tasks=[row], episodes=6, steps=0, deterministic=each
        ).returns
        for each in (True, False)
    ]
    assert np.ptp(returns[0]) == 0
    assert np.ptp(returns[1]) > 0


def test_an_agent_without_deterministic_actions_is_refused():

    class Older(Learner):
        def actor(self, state):
            return Walker(state.targets)

    with pytest.raises(UserError, match=r"^deterministic: .*\.Older\.actor has no"):
        evaluate(Older(), FAMILY, tasks=2, deterministic=True)
    assert evaluate(Older(), FAMILY, tasks=2, episodes=1).returns.shape == (2, 4, 1)


@pytest.mark.parametrize("protocol", ["k_step", "few_episode", "drift"])
def test_a_trial_of_a_memory_that_lost_an_exploring_episode_is_left_out(protocol, monkeypatch):
    """The second batch is the experience before the first adaptation, which is not measured."""
    monkeypatch.setattr(FailsOnce, "fails", 2)
    agent = ExploringLearner()
    agent.remembers = True
    settings = replace(SMALL, trials=3, on_failure="drop_episode")
    parts = PROTOCOLS[protocol](agent, FailsOnce(horizon=6), settings)
    result = parts["adapting" if protocol == "drift" else ""]
    assert len(result.failures) == 1
    lost = np.isnan(result.returns)
    assert lost[0, :, 0].all()
    assert lost.sum() == lost.shape[1]


def test_a_measured_episode_that_fails_does_not_end_the_adaptation(monkeypatch):
    """With one episode per task, the first batch is measured, and the second is learned from."""
    monkeypatch.setattr(FailsOnce, "fails", 1)
    settings = replace(SMALL, episodes=1, on_failure="drop_episode")
    result = PROTOCOLS["k_step"](ExploringLearner(), FailsOnce(horizon=6), settings)[""]
    expected = PROTOCOLS["k_step"](Learner(), FAMILY, replace(SMALL, episodes=1))[""]
    assert np.isnan(result.returns[0, 0]).all()
    np.testing.assert_array_equal(result.returns[:, 1:], expected.returns[:, 1:])
