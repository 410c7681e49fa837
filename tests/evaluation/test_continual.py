"""The protocol `continual`, on an agent whose adaptation is known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import metarl
from metarl.core.errors import ConfigError, UserError
from metarl.envs import PointNav
from metarl.envs.point import PointBatchEnv
from metarl.evaluation.config import EvaluationConfig
from metarl.evaluation.continual import SEQUENCE_LENGTH, continual, forgetting
from metarl.reporting.evaluation import evaluation_text
from metarl.reporting.pooling import pooled_interval
from metarl.rollout.failures import EpisodeDiverged, Failure
from metarl.runs.result import Evaluation
from tests.evaluation.learner import FAMILY, FailsOnce, Learner, expected_returns
from tests.faulty import FaultyNav

SMALL = EvaluationConfig(tasks=10, episodes=4, steps=1)


def test_continual_by_hand():
    """From the meta-parameters, a task is known only just after it was met; a learner that goes on
    keeps some way towards the last goals."""
    parts = continual(Learner(), FAMILY, SMALL)
    goals = FAMILY.tasks("test", 10).reshape(2, SEQUENCE_LENGTH, 2)
    fresh, sequential = (
        part.by_task.reshape(2, SEQUENCE_LENGTH, SEQUENCE_LENGTH + 1) for part in parts.values()
    )
    for sequence in range(2):
        state = np.zeros(2)
        for met in range(SEQUENCE_LENGTH + 1):
            if met:
                goal = goals[sequence, met - 1]
                state = state + 0.8 * (goal - state)
            for targets, found in (
                (0.8 * goals[sequence, met - 1] * (met > 0), fresh),
                (state, sequential),
            ):
                expected = expected_returns(np.tile(targets, (SEQUENCE_LENGTH, 1)), goals[sequence])
                np.testing.assert_allclose(found[sequence, :, met], expected, atol=1e-5)


def test_continual_needs_a_whole_sequence():
    with pytest.raises(ConfigError, match="tasks: expected at least 5, one sequence, got 4"):
        continual(Learner(), FAMILY, replace(SMALL, tasks=4))


def test_no_task_is_left_out_without_a_word():
    with pytest.raises(ConfigError) as error:
        continual(Learner(), FAMILY, replace(SMALL, tasks=8))
    assert str(error.value) == "tasks: expected whole sequences of 5 tasks (nearest: 10), got 8"


def matrix_result(matrices: np.ndarray) -> Evaluation:
    """A part of `continual` with given returns R (S, L + 1, L)."""
    number, _, length = matrices.shape
    by_task = np.swapaxes(matrices, 1, 2).reshape(number * length, length + 1, 1)
    return Evaluation("f", "test", "", np.zeros((number * length, 1)), by_task)


def test_intervals_are_over_sequences():
    """An agent in one state plays the tasks of a sequence: here they differ by sequence only."""
    returns = np.repeat(np.random.default_rng(0).normal(size=(4, 6)), 5, axis=0)[..., None]
    tasks = np.arange(20.0)[:, None]
    found = Evaluation("f", "test", "", tasks, returns, x_label="tasks met", sequence_length=5)
    by_sequence = returns[::5, :, 0]
    expected = stats.t.interval(0.95, 3, by_sequence.mean(0), stats.sem(by_sequence))
    np.testing.assert_allclose(found.interval.T, expected)
    np.testing.assert_allclose(pooled_interval([found, found]).T, expected)
    stored = found.to_dict()
    for content in (stored, {name: stored[name] for name in stored if name != "sequence_length"}):
        again = Evaluation.from_dict(content)  # the second one is of an earlier version
        assert np.array_equal(again.interval, found.interval)
    with pytest.raises(ValueError, match="20 tasks, sequence_length 3"):
        Evaluation.from_dict({**stored, "sequence_length": 3})
    assert evaluation_text([found]).endswith("in sequences of 5, over which intervals are")
    lost = tuple(Failure("episode", "lost", task_index=index) for index in (2, 7))
    one = replace(found, failures=lost).only(np.arange(20) >= 5)
    assert [each.task_index for each in one.failures] == [2]  # the eighth is the third that is left
    one = found.only(np.arange(20) < 5)
    assert np.isnan(one.interval).all()


def test_the_interval_over_sequences_of_all_tasks_is_around_the_mean():
    """Which counts two directions once each, however often a sequence has them."""
    tasks = np.array([[1.0], [-1.0]] * 8)[:15]
    returns = 10 * tasks[:, :, None] + np.arange(15.0)[:, None, None] + np.zeros((15, 6, 1))
    found = Evaluation("f", "test", "", tasks, returns, num_all_tasks=2, sequence_length=5)
    assert found.mean == pytest.approx(found.interval.mean(axis=1))
    assert np.ptp(found.interval, axis=1).min() > 0


def test_continual_has_sequences():
    assert {each.sequence_length for each in continual(Learner(), FAMILY, SMALL).values()} == {5}


def test_forgetting_by_hand():
    """R[i, j]: rows are tasks met, from none to all three."""
    returns = np.array([[0.0, 0, 0], [5, 1, 0], [3, 6, 2], [4, 2, 9]])
    found = forgetting(matrix_result(np.stack([returns, 2 * returns])))
    assert found.matrix.tolist() == (1.5 * returns).tolist()
    assert found.plasticity.tolist() == [20 / 3, 40 / 3]  # 5, 6 and 9
    assert found.average.tolist() == [5.0, 10.0]
    # of task 1: 4 against 5 when just met; of task 2: 2 against 6
    assert found.backward_transfer.tolist() == [-2.5, -5.0]
    # of task 1: 4 below its best of 5 (after task 1) ; of task 2: 2 below 6
    assert found.forgetting.tolist() == [2.5, 5.0]


def test_what_is_learned_later_counts_as_the_best():
    """A task that became better before it became worse."""
    returns = np.array([[0.0, 0, 0], [5, 0, 0], [8, 6, 0], [4, 6, 0]])
    assert forgetting(matrix_result(returns[None])).forgetting.tolist() == [2.0]


def test_a_sequence_with_a_task_that_is_lost_is_not_gone_on_with():
    """continual, by hand: two sequences, of which one loses all episodes of its third task."""
    lost = FAMILY.tasks("test", 10)[2]

    class Batch(PointBatchEnv):
        def step(self, action, ids=None):
            obs, reward, terminated = super().step(action, ids)
            reward[(self.tasks == lost).all(axis=1)] = np.nan
            return obs, reward, terminated

    class Nav(PointNav):
        def make_batch(self, num_episodes, num_threads=1):
            return Batch(self, num_episodes, num_threads)

    family = Nav(horizon=6)
    parts = continual(Learner(), family, replace(SMALL, on_failure="drop_episode"))
    nominal = continual(Learner(), FAMILY, SMALL)
    for name, each in parts.items():
        returns = each.returns.reshape(2, SEQUENCE_LENGTH, SEQUENCE_LENGTH + 1, -1)
        expected = nominal[name].returns.reshape(returns.shape)
        assert np.array_equal(returns[1], expected[1])
        assert np.isnan(returns[0, 2]).all()  # on the task itself, at any point
        others = [0, 1, 3, 4]
        assert np.array_equal(returns[0, others][:, :3], expected[0, others][:, :3])
        assert np.isnan(returns[0, others][:, 3]).all()  # just after the task was to be met
        gone = returns[0, others][:, 4:]
        if name == "sequential":
            assert np.isnan(gone).all()
        else:
            assert np.array_equal(gone, expected[0, others][:, 4:])
        matrix = nominal[name].by_task.reshape(2, SEQUENCE_LENGTH, -1)[1].T
        np.testing.assert_allclose(forgetting(each).matrix, matrix)


def test_a_trial_of_a_memory_that_lost_an_episode_is_left_out_of_what_follows(monkeypatch):
    """The third task fails in the first of the four trials, while it is adapted to."""
    config = metarl.load_config("point_nav/rl2")
    agent = config.replace(env=FAMILY).make_agent()
    setting = replace(SMALL, tasks=5, on_failure="drop_episode")
    # From the meta-parameters: 5 plays before the first task, then one of adaptation and 5 for each
    fails = 5 + 2 * 6 + 1
    monkeypatch.setattr(FailsOnce, "fails", fails)
    found = continual(agent, FailsOnce(horizon=6), setting)["from the meta-parameters"]
    lost = np.isnan(found.returns)  # (tasks, tasks met, episodes)
    assert lost[:, 3, 0].all()
    assert lost.sum() == SEQUENCE_LENGTH
    monkeypatch.setattr(FailsOnce, "fails", 36 - 1 + fails)  # the sequential part follows
    found = continual(agent, FailsOnce(horizon=6), setting)["sequential"]
    lost = np.isnan(found.returns)
    assert lost[:, 3:, 0].all()
    assert lost.sum() == 3 * SEQUENCE_LENGTH


def test_a_continual_evaluation_without_a_whole_sequence_is_an_error():
    """Of one task that is lost in each: the other tasks alone say nothing of forgetting."""
    agent, setting = Learner(), replace(SMALL, episodes=1, on_failure="drop_episode")
    family = FaultyNav(horizon=6, share=0.1)
    with pytest.raises(EpisodeDiverged, match="no sequence of tasks is left that was played"):
        continual(agent, family, setting)
    nan = np.full((5, 6, 1), np.nan)
    with pytest.raises(UserError, match="no sequence of tasks is left"):
        forgetting(Evaluation("point_nav", "test", "hash", FAMILY.tasks("test", 5), nan))
