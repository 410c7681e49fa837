"""metarl.envs.gridworld: a hidden goal on a grid, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.envs import Bandit, GridWorld, TaskError, make_family
from metarl.envs.gymnasium_env import task_env

FAMILY = GridWorld()
STAY, UP, RIGHT, DOWN, LEFT = range(5)


def begin(family: GridWorld, *goals: tuple[int, int]):
    """A batch environment at the start of an episode for each goal."""
    env = family.make_batch(len(goals))
    env.reset(np.array(goals, float), [np.random.default_rng(i) for i in range(len(goals))])
    return env


def actions(*indices: int) -> np.ndarray:
    return np.array(indices, np.float32)[:, None]


# --- dynamics ---


def test_steps_by_hand():
    """Positions, with the edges of the grid, and the rewards of two goals."""
    env = begin(GridWorld(size=3, observation="coordinates"), (0, 2), (2, 1))
    positions, rewards, successes = [], [], []
    for pair in ((DOWN, LEFT), (UP, RIGHT), (UP, RIGHT), (UP, UP), (LEFT, RIGHT), (RIGHT, DOWN)):
        obs, reward, terminated = env.step(actions(*pair))
        positions.append(obs.tolist())
        rewards.append(reward.tolist())
        successes.append(env.success.tolist())
        assert not terminated.any()
    first = [[0, 0], [0, 1], [0, 2], [0, 2], [0, 2], [1, 2]]
    second = [[0, 0], [1, 0], [2, 0], [2, 1], [2, 1], [2, 0]]
    assert positions == [list(pair) for pair in zip(first, second, strict=True)]
    assert [each[0] for each in rewards] == [-0.1, -0.1, 1.0, 1.0, 1.0, -0.1]
    assert [each[1] for each in rewards] == [-0.1, -0.1, -0.1, 1.0, 1.0, -0.1]
    assert [each[0] for each in successes] == [False, False, True, True, True, True]
    assert [each[1] for each in successes] == [False, False, False, True, True, True]


def test_staying_is_rewarded_where_it_is():
    env = begin(FAMILY, (2, 0), (0, 2))
    for _ in range(2):
        env.step(actions(RIGHT, RIGHT))
    _, reward, _ = env.step(actions(STAY, STAY))
    assert reward.tolist() == [1.0, -0.1]


def test_every_cell_is_observed_by_a_number_of_its_own():
    env = begin(FAMILY, (4, 4))
    snake = 2 * [*4 * [UP], RIGHT, *4 * [DOWN], RIGHT] + 4 * [UP]
    seen = [env.step(actions(action))[0][0] for action in snake]
    assert FAMILY.observation_space.shape == (25,)
    assert np.array_equal(np.sum(seen, axis=1), np.ones(24))
    assert set(np.argmax(seen, axis=1)) == set(range(1, 25))


def test_goals_are_not_observed():
    """Of two goals, before either is reached."""
    for observation in ("one_hot", "coordinates"):
        env = begin(GridWorld(observation=observation), (0, 4), (4, 0))
        for action in (UP, RIGHT, RIGHT, LEFT, DOWN):
            obs, reward, _ = env.step(actions(action, action))
            assert np.array_equal(obs[0], obs[1])
            assert reward[0] == reward[1]


def test_an_episode_after_another_begins_without_success():
    env = begin(FAMILY, (0, 2))
    for _ in range(2):
        env.step(actions(UP))
    assert env.success.tolist() == [True]
    env.reset(np.array([[0.0, 2.0]]), [np.random.default_rng(0)])
    assert env.success.tolist() == [False]


def test_success_is_told_by_gymnasiums_interface():
    env = task_env(FAMILY, (0, 2))
    env.reset(seed=0)
    assert [env.step(UP)[-1]["is_success"] for _ in range(3)] == [False, True, True]
    for other in (make_family("point_nav"), Bandit()):
        env = task_env(other)
        env.reset(seed=0)
        assert "is_success" not in env.step(env.action_space.sample())[-1]


# --- tasks ---


def test_the_goals_are_varibads_21():
    goals = FAMILY.all_tasks.tolist()
    assert len(goals) == 21
    assert goals[:4] == [[0, 2], [0, 3], [0, 4], [1, 2]]
    assert goals == sorted(goals)
    assert not any(goal in goals for goal in ([0, 0], [0, 1], [1, 0], [1, 1]))
    assert np.array_equal(FAMILY.tasks("test", 22), [*goals, goals[0]])


def test_goals_are_equally_probable():
    """21,000 draws: each of them 1,000 times, within five standard errors."""
    drawn = FAMILY.sample_tasks(np.random.default_rng(0), 21_000)
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 21
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ([1, 1], r"more than 1, got \[1.0, 1.0\] \(nearest: \[1.0, 2.0\]\)"),
        ([2.5, 0.0], r"more than 1, got \[2.5, 0.0\] \(nearest: \[2.0, 0.0\]\)"),
        ([5, 0], r"lies between .*, got \[5.0, 0.0\] \(nearest: \[4.0, 0.0\]\)"),
        ([3], r"has 2 numbers, got \[3.0\]"),
        ("goal", "has 2 numbers, got 'goal'"),
    ],
)
def test_a_task_that_is_no_goal_is_refused(task, message):
    with pytest.raises(TaskError, match=f"a task of gridworld .*{message}"):
        FAMILY.check_task(task)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"horizon": 0}, "horizon: expected at least 1, got 0"),
        ({"size": 2}, "size: expected from 3 to 100, got 2"),
        ({"size": 101}, "size: expected from 3 to 100, got 101"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        GridWorld(**fields)


# --- pictures ---


def test_the_renderer_shows_the_agent_the_goal_and_visited_cells():
    renderer = GridWorld(size=3).make_renderer(120, 100)  # cells of 25 pixels
    states = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    goal = np.array([2.0, 2.0])
    picture = renderer.draw(states, goal, 1.5)
    assert picture.shape == (100, 120, 3)
    assert picture.dtype == np.uint8

    def colour(picture: np.ndarray, x: float, y: float) -> str:
        """The colour of a place of the grid, in cells."""
        row, column = round(50 - 25 * (y - 1)), round(60 + 25 * (x - 1))
        return "#{:02x}{:02x}{:02x}".format(*picture[row, column])

    agent, visited, goal_ring, reached = "#2a6fbb", "#a9c5e3", "#c0392b", "#2e8b57"
    assert colour(picture, 1, 0.5) == agent  # between two cells
    assert colour(picture, 0, 0) == visited
    assert colour(picture, 1, 1.3) == "#e4e4e0"  # not yet visited, and never a goal
    assert colour(picture, 1, 2) == "#ffffff"
    assert colour(picture, 2 - 0.36, 2) == goal_ring
    assert colour(renderer.draw(np.vstack([states, goal]), goal), 2 - 0.36, 2) == reached
    later = np.vstack([states[:3], states[:2]])
    assert np.array_equal(renderer.draw(later, goal, 1.0), renderer.draw(states[:2], goal))
    renderer.close()


def test_captions():
    assert FAMILY.caption(np.array([1.0, 3.0]), np.array([4.0, 4.0])) == "at (1, 3)"
    assert FAMILY.caption(np.array([4.0, 4.0]), np.array([4.0, 4.0])) == "at the goal (4, 4)"
