"""Protocols: what each measures, on agents whose adaptation is known by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import metarl
from metarl.agents.base import make_agent
from metarl.core.errors import ConfigError, UserError
from metarl.envs import PointNav, TabularMDP
from metarl.envs.point import PointBatchEnv
from metarl.evaluation.compare import evaluate_run, evaluation_table
from metarl.evaluation.evaluate import Evaluation, evaluate
from metarl.evaluation.protocols import (
    EXPERIENCE,
    PROTOCOLS,
    SEQUENCE,
    STRENGTHS,
    Setting,
    continual,
    few_episode,
    forgetting,
    ood,
    paper,
    robust,
)
from metarl.rollout.failures import EpisodeDiverged
from metarl.training.loop import train
from tests.faulty import FaultyNav

FAMILY = PointNav(horizon=6)
SMALL = Setting(tasks=10, episodes=4, steps=1)


class Walker:
    """Acts without noise: goes where its state, (B, 2), tells it to, and stays there."""

    def __init__(self, targets: np.ndarray) -> None:
        self.targets = targets

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return np.zeros((horizon, 1), np.float32)

    def act(self, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return (10 * (self.targets[:, None] - obs)).astype(np.float32)


class Learner:
    """An agent that goes a share of the way to the goal: 1 - 1 / (episodes seen + 1) of what is
    left, at each adaptation. It knows nothing at first, and stays at the start."""

    def initial_state(self, num_tasks: int) -> np.ndarray:
        return np.zeros((num_tasks, 2))

    def actor(self, state: np.ndarray) -> Walker:
        return Walker(state)

    def adapt(self, state: np.ndarray, episodes, scale: float = 1.0) -> np.ndarray:
        seen = episodes.reward.shape[1]
        return state + scale * (1 - 1 / (seen + 1)) * (episodes.tasks - state)


def far(targets: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """The return, by task, of going from the start to the targets at 0.1 per axis and step."""
    position, total = np.zeros_like(targets), np.zeros(len(goals))
    done = np.zeros(len(goals), bool)
    for _ in range(FAMILY.horizon):
        position = position + np.clip(targets - position, -0.1, 0.1)
        total -= np.where(done, 0, np.linalg.norm(position - goals, axis=1))
        done |= (np.abs(position - goals) < 0.01).all(axis=1)
    return total


def test_paper_takes_half_steps_after_the_first():
    result = paper(Learner(), FAMILY, replace(SMALL, steps=2))[""]
    goals = FAMILY.tasks("test", 10)
    first = 0.8 * goals
    second = first + 0.5 * 0.8 * (goals - first)
    expected = [far(each, goals) for each in (0 * goals, first, second)]
    np.testing.assert_allclose(result.by_task.T, expected, atol=1e-5)
    constant = paper(Learner(), FAMILY, replace(SMALL, steps=2, schedule="constant"))[""]
    np.testing.assert_allclose(
        constant.by_task[:, 2], far(first + 0.8 * (goals - first), goals), atol=1e-5
    )


def test_paper_is_evaluate(tmp_path):
    agent = make_agent(metarl.load_config("point_nav/maml_trpo", **{"policy.hidden": [8]}))
    result = paper(agent, FAMILY, SMALL)[""]
    alone = evaluate(agent, FAMILY, tasks=10, episodes=4, steps=1, scales=[1.0])
    assert np.array_equal(result.returns, alone.returns)


def test_few_episode_counts_the_episodes_that_adaptation_saw():
    result = few_episode(Learner(), FAMILY, SMALL)[""]
    goals = FAMILY.tasks("test", 10)
    assert result.points == (0, *EXPERIENCE)
    assert result.axis == "episodes of experience"
    for place, seen in enumerate(result.points):
        expected = far((1 - 1 / (seen + 1)) * goals, goals)
        np.testing.assert_allclose(result.by_task[:, place], expected, atol=1e-5)
    assert result.returns.shape == (10, 1 + len(EXPERIENCE), 4)


def test_few_episode_gathers_experience_several_times():
    """A learner of 7 episodes is asked 5 times, each time with 2 episodes: 10 in all."""
    result = few_episode(Learner(), FAMILY, replace(SMALL, episodes=7))[""]
    assert result.returns.shape[2] == 10


def test_ood_shows_both_task_sets():
    parts = ood(Learner(), FAMILY, SMALL)
    assert list(parts) == ["in distribution", "out of distribution"]
    inside, outside = parts.values()
    assert np.array_equal(inside.tasks, FAMILY.tasks("test", 10))
    assert np.array_equal(outside.tasks, FAMILY.tasks("ood", 10))
    np.testing.assert_allclose(outside.by_task[:, 1], far(0.8 * outside.tasks, outside.tasks))


def test_ood_needs_tasks_out_of_distribution():
    with pytest.raises(UserError, match="tabular_mdp has no split 'ood'"):
        ood(make_agent(metarl.load_config("tabular_mdp/maml_trpo")), TabularMDP(), SMALL)


def test_robust_is_worse_the_stronger_the_perturbation():
    parts = robust(Learner(), FAMILY, SMALL)
    assert len(parts) == 1 + sum(map(len, STRENGTHS.values()))
    usual = parts["usual"]
    for name in ("action_delay", "motor_strength"):
        means = [usual.mean[1], *(parts[f"{name} {x:g}"].mean[1] for x in STRENGTHS[name])]
        assert (np.diff(means) < 0).all(), name
    noisy = parts["observation_noise 0.4"]
    assert noisy.mean[1] < usual.mean[1]
    assert {part.task_hash for part in parts.values()} == {usual.task_hash}


def test_robust_leaves_out_what_choices_cannot_have():
    parts = robust(
        make_agent(metarl.load_config("tabular_mdp/maml_trpo")),
        TabularMDP(),
        replace(SMALL, tasks=2),
    )
    assert not any("motor" in name for name in parts)
    assert "action_delay 4" in parts


def test_continual_by_hand():
    """From the meta-parameters, a task is known only just after it was met; a learner that goes on
    keeps some way towards the last goals."""
    parts = continual(Learner(), FAMILY, SMALL)
    goals = FAMILY.tasks("test", 10).reshape(2, SEQUENCE, 2)
    fresh, going_on = (part.by_task.reshape(2, SEQUENCE, SEQUENCE + 1) for part in parts.values())
    for sequence in range(2):
        state = np.zeros(2)
        for met in range(SEQUENCE + 1):
            if met:
                goal = goals[sequence, met - 1]
                state = state + 0.8 * (goal - state)
            for targets, found in (
                (0.8 * goals[sequence, met - 1] * (met > 0), fresh),
                (state, going_on),
            ):
                expected = far(np.tile(targets, (SEQUENCE, 1)), goals[sequence])
                np.testing.assert_allclose(found[sequence, :, met], expected, atol=1e-5)


def test_continual_needs_a_whole_sequence():
    with pytest.raises(ConfigError, match="tasks: expected at least 5, one sequence, got 4"):
        continual(Learner(), FAMILY, replace(SMALL, tasks=4))


def matrix_result(matrices: np.ndarray) -> Evaluation:
    """A part of `continual` with given returns R (S, L + 1, L)."""
    number, _, length = matrices.shape
    by_task = np.swapaxes(matrices, 1, 2).reshape(number * length, length + 1, 1)
    return Evaluation("f", "test", "", np.zeros((number * length, 1)), by_task)


def test_forgetting_by_hand():
    """R[i, j]: rows are tasks met, from none to all three."""
    returns = np.array([[0.0, 0, 0], [5, 1, 0], [3, 6, 2], [4, 2, 9]])
    found = forgetting(matrix_result(np.stack([returns, 2 * returns])))
    assert found.matrix.tolist() == (1.5 * returns).tolist()
    assert found.average.tolist() == [5.0, 10.0]
    # of task 1: 4 against 5 when just met; of task 2: 2 against 6
    assert found.backward_transfer.tolist() == [-2.5, -5.0]
    # of task 1: 4 below its best of 5 (after task 1) ; of task 2: 2 below 6
    assert found.forgetting.tolist() == [2.5, 5.0]


def test_what_is_learned_later_counts_as_the_best():
    """A task that became better before it became worse."""
    returns = np.array([[0.0, 0, 0], [5, 0, 0], [8, 6, 0], [4, 6, 0]])
    assert forgetting(matrix_result(returns[None])).forgetting.tolist() == [2.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"episodes": 0}, "episodes: expected at least 1"),
        ({"steps": -1}, "steps: expected at least 0"),
        ({"seed": -1}, "seed: expected between 0"),
        ({"schedule": "haling"}, "nearest: halving"),
    ],
)
def test_a_wrong_setting_is_named(fields, message):
    with pytest.raises((ConfigError, UserError), match=message):
        Setting(**fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"iterations": 1, "num_tasks": 2, "num_episodes": 3, "env.horizon": 6}
    config = metarl.load_config(
        "point_nav/maml_trpo", **settings, **{"policy.hidden": [8], "tracking.mode": "disabled"}
    )
    return train(config, tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_leaves_a_result_file_a_figure_and_a_table(run, name):
    results, files = evaluate_run(
        run.directory, protocol=name, tasks=5, episodes=2, steps=1, against=["random"]
    )
    content = json.loads(files[0].read_text())
    assert content["protocol"] == name
    assert [file.name for file in files] == [f"{name}-test.json", f"{name}-test.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    parts = {part for method in content["methods"].values() for part in method["parts"]}
    assert len(results) == 2 * len(parts)
    table = evaluation_table(results)
    assert table.row_count == sum(len(result.points) for result in results.values())


# --- episodes that fail ---

FAULTY = FaultyNav(horizon=6, share=0.05)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_leaves_out_what_fails_or_stops(name):
    agent = Learner()
    with pytest.raises(EpisodeDiverged, match=r"^task \d+ \["):
        PROTOCOLS[name](agent, FAULTY, SMALL)
    parts = PROTOCOLS[name](agent, FAULTY, replace(SMALL, on_failure="drop_episode"))
    whole = PROTOCOLS[name](agent, replace(FAULTY, share=0.0), SMALL)
    assert any(each.failures for each in parts.values())
    for part, each in parts.items():
        known = np.isfinite(each.returns)
        # The learner does not look at its episodes, so nothing else may differ.
        assert np.array_equal(each.returns[known], whole[part].returns[known])
        assert np.isfinite(each.mean).all()
        if name == "continual":
            assert np.isfinite(forgetting(each).matrix).all()


def test_what_was_never_experienced_is_not_learned_from():
    """few_episode: where the first episode failed, there is no return after one episode."""
    family = FaultyNav(horizon=6, share=0.3)
    result = few_episode(Learner(), family, replace(SMALL, episodes=1, on_failure="drop_episode"))
    returns = result[""].returns[..., 0]
    first = {
        each.task_index for each in result[""].failures if (each.phase, each.episode) == (0, 0)
    }
    assert 0 < len(first) < 10
    assert np.isnan(returns[sorted(first), 1]).all()


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
    usual = continual(Learner(), FAMILY, SMALL)
    for name, each in parts.items():
        returns = each.returns.reshape(2, SEQUENCE, SEQUENCE + 1, -1)
        expected = usual[name].returns.reshape(returns.shape)
        assert np.array_equal(returns[1], expected[1])
        assert np.isnan(returns[0, 2]).all()  # on the task itself, at any point
        others = [0, 1, 3, 4]
        assert np.array_equal(returns[0, others][:, :3], expected[0, others][:, :3])
        assert np.isnan(returns[0, others][:, 3]).all()  # just after the task was to be met
        gone = returns[0, others][:, 4:]
        if name == "going on":
            assert np.isnan(gone).all()
        else:
            assert np.array_equal(gone, expected[0, others][:, 4:])
        matrix = usual[name].by_task.reshape(2, SEQUENCE, -1)[1].T
        np.testing.assert_allclose(forgetting(each).matrix, matrix)


def test_a_continual_evaluation_without_a_whole_sequence_is_an_error():
    """Of one task that is lost in each: the other tasks alone say nothing of forgetting."""
    agent, setting = Learner(), replace(SMALL, episodes=1, on_failure="drop_episode")
    family = FaultyNav(horizon=6, share=0.1)
    with pytest.raises(EpisodeDiverged, match="no sequence of tasks is left that was played"):
        continual(agent, family, setting)
    nan = np.full((5, 6, 1), np.nan)
    with pytest.raises(UserError, match="no sequence of tasks is left"):
        forgetting(Evaluation("point_nav", "test", "hash", FAMILY.tasks("test", 5), nan))
