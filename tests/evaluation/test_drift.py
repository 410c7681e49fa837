"""The protocol `drift`: what it measures on an agent whose adaptation is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

import metarl
from metarl.core.errors import UserError
from metarl.core.rng import Purpose, make_rng
from metarl.envs import HalfCheetahDir, TabularMDP
from metarl.envs.external.meta_world import MetaWorld
from metarl.evaluation.config import EvaluationConfig
from metarl.evaluation.drift import DRIFT, check_drifts, drift
from metarl.rollout.sampling import drifting
from tests.evaluation.learner import FAMILY, Learner, expected_returns

CONFIG = EvaluationConfig(tasks=7, episodes=3, steps=2)


@pytest.fixture(scope="module")
def versions():
    rng = make_rng(0, Purpose.DRIFT)
    return drifting(FAMILY, rng, FAMILY.tasks("test", 7), 3, DRIFT)


def test_what_was_learned_on_a_version_is_measured_on_the_next(versions):
    """The learner of three episodes goes three quarters of the way to the goal that it has met."""
    result = drift(Learner("constant"), FAMILY, CONFIG)["adapting"]
    assert np.abs(np.diff(versions, axis=1)).max() > 0.05
    targets = [np.zeros((7, 2))]
    for version in range(2):
        targets.append(targets[-1] + 0.75 * (versions[:, version] - targets[-1]))
    for version, each in enumerate(targets):
        expected = expected_returns(each, versions[:, version])
        np.testing.assert_allclose(result.by_task[:, version], expected, atol=1e-5)
    assert result.x == (0, 1, 2)
    assert np.array_equal(result.tasks, FAMILY.tasks("test", 7))


def test_each_version_is_played_without_adaptation_too(versions):
    result = drift(Learner(), FAMILY, CONFIG)["not adapting"]
    for version in range(3):
        expected = expected_returns(np.zeros((7, 2)), versions[:, version])
        np.testing.assert_allclose(result.by_task[:, version], expected, atol=1e-5)


def test_an_agent_that_cannot_adapt_is_measured_on_all_versions(versions):
    learner = Learner()
    learner.max_adaptations = 0
    results = drift(learner, FAMILY, CONFIG)
    for result in results.values():
        assert result.x == (0, 1, 2)
        for version in range(3):
            expected = expected_returns(np.zeros((7, 2)), versions[:, version])
            np.testing.assert_allclose(result.by_task[:, version], expected, atol=1e-5)
    assert list(results) == ["adapting", "not adapting"]


@pytest.mark.parametrize("method", ["maml_trpo", "rl2"])
def test_a_body_that_drifts(method):
    small = {"num_tasks": 2, "num_episodes": 1, "env.horizon": 10}
    config = metarl.load_config("half_cheetah_body/maml_trpo", **small)
    if method == "rl2":
        agent = metarl.load_config("half_cheetah_dir/rl2").agent
        config = config.replace(agent=agent)
    setting = EvaluationConfig(tasks=2, episodes=2, steps=1)
    results = drift(config.make_agent(), config.env, setting)
    assert results.keys() == {"adapting", "not adapting"}
    first, other = results.values()
    assert np.array_equal(first.returns[:, 0], other.returns[:, 0])  # the same state and episodes
    assert not np.array_equal(first.returns[:, 1], other.returns[:, 1])


@pytest.mark.parametrize(
    ("family", "kind"),
    [(TabularMDP(), "tasks without bounds"), (HalfCheetahDir(), "a finite number of tasks")],
)
def test_tasks_that_cannot_drift_are_refused(family, kind):
    expected = f"^protocol drift: {family.name} has {kind}, which cannot drift; expected k_step, "
    with pytest.raises(UserError, match=f"{expected}few_episode, robust or continual$"):
        drift(Learner(), family, CONFIG)


def test_tasks_whose_next_version_is_none_are_refused():
    family = MetaWorld(benchmark="ML10")
    rows = np.array([[2.0, 0.1, 0.7, 0.2, 0.0, 0.0, 0.0]])[:, : family.task_space.shape[0]]
    with pytest.raises(UserError, match=r"^protocol drift: tasks of metaworld cannot drift, since"):
        check_drifts(family, rows)


def test_tasks_outside_of_the_bounds_of_the_steps_are_refused():
    """Their second version would be moved into the bounds."""
    expected = "^protocol drift: expected tasks of the distribution of point_nav, .* got "
    for tasks in ({"split": "ood", "tasks": 3}, {"tasks": [[0.1, 0.2], [0.6, 0.0]]}):
        with pytest.raises(UserError, match=expected):
            drift(Learner(), FAMILY, EvaluationConfig(**tasks))
