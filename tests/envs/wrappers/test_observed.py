"""envs.wrappers.observed: the oracle's view is the family's own world, with the task to be seen."""

from __future__ import annotations

import dataclasses
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Discrete
from gymnasium.utils.env_checker import check_env

from metarl.envs import (
    HalfCheetahVel,
    PointNav,
    RenderingUnavailable,
    TabularMDP,
    TaskError,
    TaskFamily,
    TaskObserved,
    make_family,
)


@dataclasses.dataclass(frozen=True)
class EndlessPoint(PointNav):
    """Differs from PointNav in all that a family may say of itself."""

    finite_horizon = False
    source = "nowhere"

    @property
    def all_tasks(self) -> np.ndarray:
        return np.full((1, 2), 0.1)


@pytest.fixture(
    params=[PointNav(horizon=9), HalfCheetahVel(horizon=9), TabularMDP(horizon=9), EndlessPoint()],
    ids=lambda family: type(family).__name__,
)
def family(request) -> TaskFamily:
    return request.param


def begin(family: TaskFamily, tasks: np.ndarray):
    """A batch environment on two threads, and the first observations."""
    env = family.make_batch(len(tasks), num_threads=2)
    return env, env.reset(tasks, [np.random.default_rng(i) for i in range(len(tasks))])


def random_actions(family: TaskFamily, num_episodes: int) -> list[np.ndarray]:
    """Six times (N, action_dim)."""
    rng, shape = np.random.default_rng(0), (6, num_episodes, family.action_dim)
    if isinstance(family.action_space, Discrete):
        return list(rng.integers(family.action_space.n, size=shape))
    return list(rng.standard_normal(shape))


@pytest.mark.parametrize("ids", [None, np.array([0, 2])])
def test_observations_are_followed_by_the_task_and_all_else_is_the_same(family, ids):
    """To the bit, at the reset and at every step, and also for a part of the episodes."""
    tasks, view = family.tasks("test", 4), TaskObserved(family)
    rows = slice(None) if ids is None else ids
    (base, obs), (env, seen) = begin(family, tasks), begin(view, tasks)
    assert np.array_equal(seen, np.hstack([obs, tasks]))
    for action in random_actions(family, 4):
        obs, reward, terminated = base.step(action, ids)
        seen, same_reward, same_end = env.step(action, ids)
        assert np.array_equal(seen[rows], np.hstack([obs, tasks])[rows])
        assert np.array_equal(same_reward[rows], reward[rows])
        assert np.array_equal(same_end[rows], terminated[rows])
        for i in range(4):
            assert np.array_equal(env.render_state(i), base.render_state(i))
        assert all(view.observation_space.contains(row) for row in seen)


def test_advance_is_the_familys(family):
    tasks = family.tasks("test", 3)
    (base, _), (env, _) = begin(family, tasks), begin(TaskObserved(family), tasks)
    for action in random_actions(family, 3)[:2]:
        base.advance(action)
        env.advance(action)
    base.advance(action, np.array([1]))
    env.advance(action, np.array([1]))
    for i in range(3):
        assert np.array_equal(env.render_state(i), base.render_state(i))


def test_the_time_in_the_physics_is_that_of_the_wrapped_environment(family):
    """It may be set back, as the benchmark does."""
    env, _ = begin(TaskObserved(family), family.tasks("test", 3))
    assert env.physics_seconds == 0
    assert (env.num_episodes, env.num_threads, env.batch_env.num_threads) == (3, 2, 2)
    action = random_actions(family, 3)[0]
    env.step(action)
    assert env.physics_seconds == env.batch_env.physics_seconds > 0
    env.physics_seconds = 0.0
    assert env.batch_env.physics_seconds == 0
    env.advance(action)
    assert env.physics_seconds > 0


def test_spaces(family):
    view = TaskObserved(family)
    (obs_dim,), (task_dim,) = family.observation_space.shape, family.task_space.shape
    shown = family.ood_space
    space = view.observation_space
    assert space.shape == (obs_dim + task_dim,)
    assert np.array_equal(space.low, [*family.observation_space.low, *shown.low])
    assert np.array_equal(space.high, [*family.observation_space.high, *shown.high])
    for name in ("action_space", "task_space", "ood_space", "splits"):
        assert getattr(view, name) == getattr(family, name)
    assert view.action_dim == family.action_dim


def test_the_tasks_and_what_is_said_of_them_are_the_familys(family):
    view = TaskObserved(family)
    for split in family.splits:
        tasks = family.tasks(split, 3)
        assert np.array_equal(view.tasks(split, 3), tasks)
        assert view.task_hash(tasks) == family.task_hash(tasks)
        assert np.array_equal(view.check_task(tasks[0].tolist()), tasks[0])
    one, other = (made.sample_tasks(np.random.default_rng(0), 3) for made in (view, family))
    assert np.array_equal(one, other)
    with pytest.raises(TaskError, match=family.name):
        view.check_task([*tasks[0], 0.0])
    for name in (
        "name",
        "source",
        "horizon",
        "finite_horizon",
        "dynamics_tasks",
        "num_all_tasks",
        "no_ood_reason",
        "frames_per_second",
    ):
        assert getattr(view, name) == getattr(family, name)


def test_a_wrong_mdp_is_refused_as_the_family_does():
    """By the family's own check, not only by the bounds of the task space."""
    family = TabularMDP()
    with pytest.raises(TaskError, match="state 0 and action 0"):
        TaskObserved(family).check_task(np.zeros(family.task_space.shape))


def test_pictures_and_descriptions_are_the_familys(family):
    view, task = TaskObserved(family), family.tasks("test", 1)
    env, _ = begin(view, task)
    states = [env.render_state(0)]
    for action in random_actions(family, 1):
        env.step(action)
        states.append(env.render_state(0))
    assert view.caption(states[-1], task[0]) == family.caption(states[-1], task[0])
    pictures = []
    for made in (view, family):
        try:
            scene = made.make_renderer(64, 48)
        except RenderingUnavailable as error:
            pytest.skip(f"this machine cannot render: {error}")
        pictures.append(scene.draw(np.stack(states), task[0]))
        scene.close()
    assert pictures[0].shape == (48, 64, 3)
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("name", ["PointNav", "HalfCheetahVel", "TabularMDP"])
def test_gymnasiums_environment_shows_the_task(name):
    env = gymnasium.make(f"metarl/{name}-v0", observe_task=True).unwrapped
    family = env.family
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if not env.observation_space.is_bounded():
            # Mean rewards of an MDP have no bounds, which the checker finds unusual.
            warnings.filterwarnings("ignore", "(?s).*m.*imum value is -?infinity")
        check_env(env, skip_render_check=True)
    task = family.tasks("test", 1)[0]
    obs, _ = env.reset(seed=0, options={"task": task})
    assert np.array_equal(obs[-len(task) :], task)
    obs, *_ = env.step(env.action_space.sample())
    assert np.array_equal(obs[-len(task) :], task)
    assert env.metadata["render_fps"] == 20
    env.close()


def test_views_compare_and_are_replaced_as_other_families():
    view = TaskObserved(PointNav(horizon=5))
    assert view == TaskObserved(PointNav(horizon=5))
    assert view != TaskObserved(PointNav(horizon=5, goal_range=1.0))
    assert view != PointNav(horizon=5)
    longer = dataclasses.replace(view, family=PointNav(horizon=6))
    assert (longer.horizon, longer.family.horizon) == (6, 6)


def test_a_view_of_a_view_is_refused():
    with pytest.raises(ValueError, match="family: its tasks are observed already"):
        TaskObserved(make_family("point_nav", observe_task=True))
