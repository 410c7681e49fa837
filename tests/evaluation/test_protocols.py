"""Protocols: what each measures, on agents whose adaptation is known by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

import metarl
from metarl.core.errors import ConfigError, UserError
from metarl.envs import PointNav, TabularMDP
from metarl.envs.point import PointBatchEnv
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.config import PERTURBATIONS, EvaluationConfig
from metarl.evaluation.continual import forgetting
from metarl.evaluation.evaluate import arranged, evaluate, stack
from metarl.evaluation.protocols import (
    PROTOCOLS,
    few_episode,
    k_step,
    ood,
    robust,
)
from metarl.reporting.evaluation import evaluation_table, publish_evaluation
from metarl.rollout.failures import EpisodeDiverged
from metarl.runs.run import Run
from metarl.training.loop import train
from tests.evaluation.learner import FAMILY, Learner, expected_returns
from tests.faulty import FaultyNav

SMALL = EvaluationConfig(tasks=10, episodes=4, steps=1)


@dataclass(frozen=True)
class Succeeding(PointNav):
    """A family whose episodes succeed if their return is above -2."""

    horizon: int = 6

    def make_batch(self, num_episodes, num_threads=1):
        return SucceedingBatch(self, num_episodes, num_threads)


class SucceedingBatch(PointBatchEnv):
    def reset(self, tasks, rngs):
        self.totals, self.success = np.zeros(self.num_episodes), np.ones(self.num_episodes, bool)
        return super().reset(tasks, rngs)

    def step(self, action, ids=None):
        obs, reward, terminated = super().step(action, ids)
        rows = slice(None) if ids is None else ids
        self.totals[rows] += reward[rows]
        self.success = self.totals > -2.0
        return obs, reward, terminated


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_knows_which_episodes_succeeded(protocol):
    results = PROTOCOLS[protocol](Learner(), Succeeding(), replace(SMALL, steps=2))
    for part, result in results.items():
        assert result.success is not None, part
        assert np.array_equal(result.success, result.returns > -2.0), part
    successes = np.concatenate([result.success.ravel() for result in results.values()])
    assert 0.1 < successes.mean() < 0.9


def test_where_no_success_is_reported_there_is_none():
    """An environment may report success only in the phase in which there is one."""
    returns, success = np.zeros((2, 3)), np.eye(2, 3, dtype=bool)
    found = arranged([(returns, None), (returns, success)], stack)
    assert np.array_equal(found["success"], np.stack([0 * success, success], axis=1))
    assert arranged([(returns, None), (returns, None)], stack)["success"] is None


def test_k_step_takes_half_steps_after_the_first():
    result = k_step(Learner(), FAMILY, replace(SMALL, steps=2))[""]
    goals = FAMILY.tasks("test", 10)
    first = 0.8 * goals
    second = first + 0.5 * 0.8 * (goals - first)
    expected = [expected_returns(each, goals) for each in (0 * goals, first, second)]
    np.testing.assert_allclose(result.by_task.T, expected, atol=1e-5)
    constant = k_step(Learner("constant"), FAMILY, replace(SMALL, steps=2))[""]
    np.testing.assert_allclose(
        constant.by_task[:, 2], expected_returns(first + 0.8 * (goals - first), goals), atol=1e-5
    )


def test_k_step_is_evaluate(tmp_path):
    agent = metarl.load_config("point_nav/maml_trpo", **{"agent.policy.hidden": [8]}).make_agent()
    result = k_step(agent, FAMILY, SMALL)[""]
    alone = evaluate(agent, FAMILY, tasks=10, episodes=4, steps=1)
    assert np.array_equal(result.returns, alone.returns)


def test_few_episode_counts_the_episodes_that_adaptation_saw():
    result = few_episode(Learner(), FAMILY, SMALL)[""]
    goals = FAMILY.tasks("test", 10)
    assert result.x == (0, 1, 2, 3, 5, 10, 20)
    assert result.x_label == "episodes of experience"
    for place, seen in enumerate(result.x):
        expected = expected_returns((1 - 1 / (seen + 1)) * goals, goals)
        np.testing.assert_allclose(result.by_task[:, place], expected, atol=1e-5)
    assert result.returns.shape == (10, 7, 4)


def test_few_episode_measures_after_the_numbers_it_is_given():
    """After one episode as among other numbers; after 30, more than by default."""
    result = few_episode(Learner(), FAMILY, replace(SMALL, experience=(1, 30)))[""]
    goals = FAMILY.tasks("test", 10)
    assert result.x == (0, 1, 30)
    np.testing.assert_allclose(
        result.by_task[:, 2], expected_returns(30 / 31 * goals, goals), atol=1e-5
    )
    usual = few_episode(Learner(), FAMILY, SMALL)[""]
    assert np.array_equal(result.returns[:, :2], usual.returns[:, :2])


def test_more_experience_than_fits_is_refused_before_anything_is_played():
    """500 tasks, each with 1000 episodes of experience 1000 times."""
    config = replace(SMALL, tasks=500, episodes=1000, trials=1000, experience=(1000,))
    with pytest.raises(ConfigError, match="tasks, episodes and horizon that make at most"):
        few_episode(Learner(), FAMILY, config)


def test_few_episode_gathers_experience_several_times():
    """A learner of 7 episodes is asked 5 times, each time with 2 episodes: 10 in all. Twice, with
    4 episodes: 8."""
    for trials, expected in ((5, 10), (2, 8)):
        result = few_episode(Learner(), FAMILY, replace(SMALL, episodes=7, trials=trials))[""]
        assert result.returns.shape[2] == expected


def test_ood_shows_both_task_sets():
    parts = ood(Learner(), FAMILY, SMALL)
    assert list(parts) == ["in distribution", "out of distribution"]
    inside, outside = parts.values()
    assert np.array_equal(inside.tasks, FAMILY.tasks("test", 10))
    assert np.array_equal(outside.tasks, FAMILY.tasks("ood", 10))
    np.testing.assert_allclose(
        outside.by_task[:, 1], expected_returns(0.8 * outside.tasks, outside.tasks)
    )


def test_ood_needs_tasks_out_of_distribution():
    with pytest.raises(UserError, match="tabular_mdp has no split 'ood'"):
        ood(metarl.load_config("tabular_mdp/maml_trpo").make_agent(), TabularMDP(), SMALL)


def test_robust_is_worse_the_stronger_the_perturbation():
    parts = robust(Learner(), FAMILY, SMALL)
    assert len(parts) == 1 + sum(map(len, PERTURBATIONS.values()))
    nominal = parts["nominal"]
    for name in ("action_delay", "motor_strength"):
        means = [nominal.mean[1], *(parts[f"{name} {x:g}"].mean[1] for x in PERTURBATIONS[name])]
        assert (np.diff(means) < 0).all(), name
    noisy = parts["observation_noise 0.4"]
    assert noisy.mean[1] < nominal.mean[1]
    assert {part.task_hash for part in parts.values()} == {nominal.task_hash}


def test_robust_has_strengths_of_ones_own():
    own = {"motor_strength": (0.5,), "action_delay": [2.0, 1]}
    parts = robust(Learner(), FAMILY, replace(SMALL, perturbations=own))
    assert [*parts] == ["nominal", "motor_strength 0.5", "action_delay 2", "action_delay 1"]
    usual = robust(Learner(), FAMILY, SMALL)
    assert np.array_equal(parts["action_delay 2"].returns, usual["action_delay 2"].returns)


def test_robust_leaves_out_what_choices_cannot_have():
    parts = robust(
        metarl.load_config("tabular_mdp/maml_trpo").make_agent(),
        TabularMDP(),
        replace(SMALL, tasks=2),
    )
    assert not any("motor" in name for name in parts)
    assert "action_delay 4" in parts


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"episodes": 0}, "episodes: expected at least 1"),
        ({"steps": -1}, "steps: expected between 0 and 1000"),
        ({"seed": -1}, "seed: expected between 0"),
        ({"seed": 0.5}, "seed: expected a whole number, got 0.5"),
        ({"trials": 1.5}, "trials: expected a whole number, got 1.5"),
        ({"threads": 0}, "threads: expected between 1 and 1024, got 0"),
        ({"on_failure": "stpo"}, "on_failure: unknown 'stpo' .nearest: stop"),
    ],
)
def test_a_wrong_setting_is_named(fields, message):
    with pytest.raises((ConfigError, UserError), match=message):
        EvaluationConfig(**fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"iterations": 1, "num_tasks": 2, "num_episodes": 3, "env.horizon": 6}
    config = metarl.load_config(
        "point_nav/maml_trpo",
        **settings,
        **{"agent.policy.hidden": [8], "tracking.mode": "disabled"},
    )
    return train(config, tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_leaves_a_result_file_a_figure_and_a_table(run, name):
    results, file = evaluate_run(
        run.directory, protocol=name, tasks=5, episodes=2, steps=1, against=["random"]
    )
    content = json.loads(file.read_text())
    assert content["protocol"] == name
    steps = "" if name == "few_episode" else "-steps_1"  # it has its own numbers of episodes
    assert file.name == f"{name}-test-tasks_5-episodes_2{steps}.json"
    figure = publish_evaluation(Run.open(run.directory), file, results)
    assert figure == file.with_suffix(".png")
    assert figure.read_bytes().startswith(b"\x89PNG")
    parts = {part for method in content["methods"].values() for part in method["parts"]}
    assert len(results) == 2 * len(parts)
    table = evaluation_table(results)
    assert table.row_count == sum(len(result.x) for result in results.values())


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
        for failure in (
            each.failures if name != "drift" else ()
        ):  # of whose tasks there are versions
            assert each.tasks[failure.task_index].tolist() == list(failure.task)
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
        each.task_index
        for each in result[""].failures
        if (each.adaptation_step, each.episode) == (0, 0)
    }
    assert 0 < len(first) < 10
    assert np.isnan(returns[sorted(first), 1]).all()


def test_means_are_over_the_same_repeats_at_every_x():
    """few_episode: a repeat whose experience failed is not counted before it either."""
    family = FaultyNav(horizon=6, share=0.1)
    settings = replace(SMALL, on_failure="drop_episode")
    result = few_episode(Learner(), family, settings)[""]
    lost = np.isnan(result.returns).all(axis=1)  # (B, episodes)
    alone = np.isnan(result.returns) & ~lost[:, None]  # episodes that failed themselves
    assert lost.any()
    per_repeat = result.returns.shape[2] // min(SMALL.trials, SMALL.episodes)
    by_repeat = alone.reshape(len(alone), len(result.x), -1, per_repeat)
    assert not by_repeat.all(axis=3).any()


class Rememberer(Learner):
    remembers = True


@pytest.mark.parametrize("name", ["k_step", "few_episode"])
def test_means_are_over_the_same_trials_of_an_agent_that_remembers(name):
    family = FaultyNav(horizon=6, share=0.05)
    settings = replace(SMALL, on_failure="drop_episode", episodes=4, trials=4)
    result = PROTOCOLS[name](Rememberer(), family, settings)[""]
    lost = np.isnan(result.returns)
    assert 0 < lost.mean() < 1
    assert np.array_equal(lost.all(axis=1), lost.any(axis=1))
