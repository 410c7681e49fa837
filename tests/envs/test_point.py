"""metarl.envs.point: 2D navigation, worked by hand."""

import numpy as np
import pytest

from metarl.envs import PointNav, SimulationDiverged
from metarl.envs.point import GOAL_RADIUS

MAX_STEP = 0.1
METRES = PointNav(action_scale=MAX_STEP)  # actions are displacements


def begin(family: PointNav, *goals: list[float]):
    """A batch environment at the start of an episode for each goal."""
    env = family.make_batch(len(goals))
    obs = env.reset(np.array(goals), [np.random.default_rng(i) for i in range(len(goals))])
    assert np.array_equal(obs, np.zeros((len(goals), 2)))
    return env


def test_steps_by_hand():
    """The default scale, 0.1: the action is the step. Reward is minus the distance left."""
    env = begin(METRES, [0.3, 0.4], [0.0, -0.1])
    obs, reward, terminated = env.step(np.array([[0.1, 0.05], [0.0, 0.05]]))
    np.testing.assert_allclose(obs, [[0.1, 0.05], [0.0, 0.05]], rtol=1e-15)
    np.testing.assert_allclose(reward, [-np.hypot(0.2, 0.35), -0.15], rtol=1e-15)
    assert terminated.tolist() == [False, False]
    obs, reward, _ = env.step(np.array([[-0.05, 0.1], [-0.1, -0.1]]))
    np.testing.assert_allclose(obs, [[0.05, 0.15], [-0.1, -0.05]], rtol=1e-14)
    np.testing.assert_allclose(reward, [-np.hypot(0.25, 0.25), -np.hypot(0.1, 0.05)], rtol=1e-14)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_action_scale_is_the_action_of_the_largest_step(scale):
    """Half of it moves by half; beyond it, actions are clipped, each axis by itself."""
    env = begin(PointNav(action_scale=scale), [0.5, 0.5])
    obs, _, _ = env.step(np.array([[0.5 * scale, -scale]]))
    np.testing.assert_allclose(obs, [[0.05, -0.1]], rtol=1e-14)
    obs, _, _ = env.step(np.array([[7 * scale, -0.5 * scale]]))
    np.testing.assert_allclose(obs, [[0.15, -0.15]], rtol=1e-14)
    obs, _, _ = env.step(np.array([[-np.inf, np.inf]]))
    np.testing.assert_allclose(obs, [[0.05, -0.05]], rtol=1e-14)


@pytest.mark.parametrize(
    ("offset", "reached"),
    [
        ([0.0, 0.0], True),
        ([0.009, -0.009], True),  # further than the radius, but not along an axis
        ([0.011, 0.0], False),
        ([0.0, -0.011], False),
    ],
)
def test_the_goal_is_reached_when_both_axes_are_close(offset, reached):
    assert GOAL_RADIUS == 0.01
    env = begin(METRES, np.add([MAX_STEP, MAX_STEP], offset))
    _, reward, terminated = env.step(np.array([[0.1, 0.1]]))
    assert terminated.tolist() == [reached]
    assert reward[0] == pytest.approx(-np.hypot(*offset), abs=1e-12)


def test_the_start_is_not_judged():
    """A goal at the start ends the episode only after a step that stays there."""
    env = begin(METRES, [0.0, 0.0], [0.0, 0.0])
    _, _, terminated = env.step(np.array([[0.0, 0.0], [0.1, 0.0]]))
    assert terminated.tolist() == [True, False]


def test_episodes_not_stepped_keep_their_state():
    env = begin(METRES, [0.5, 0.5], [0.5, 0.5], [0.5, 0.5])
    env.step(np.full((3, 2), 0.1), np.array([0, 2]))
    assert [env.render_state(i).tolist() for i in range(3)] == [[0.1, 0.1], [0, 0], [0.1, 0.1]]


def test_results_are_fresh_arrays():
    """What a caller does to an observation does not move the point, nor does the next step change
    an observation given before."""
    env = begin(METRES, [0.5, 0.5])
    first, _, _ = env.step(np.array([[0.1, 0.0]]))
    kept = first.copy()
    env.step(np.array([[0.1, 0.0]]))
    assert np.array_equal(first, kept)
    first[:] = 99
    assert env.render_state(0)[0] == pytest.approx(0.2)


def test_an_action_that_is_not_a_number_diverges():
    env = begin(METRES, [0.5, 0.5], [0.5, 0.5])
    with pytest.raises(SimulationDiverged) as caught:
        env.step(np.array([[0.1, 0.1], [0.1, np.nan]]))
    assert caught.value.ids.tolist() == [1]
    obs, reward, _ = caught.value.result
    np.testing.assert_allclose(obs[0], [0.1, 0.1])
    assert np.isfinite(reward[0])
    obs, _, _ = env.step(np.array([[0.1, 0.1], [0.1, 0.1]]), np.array([0]))
    np.testing.assert_allclose(obs[0], [0.2, 0.2])


@pytest.mark.parametrize("horizon", [1, 20, 100])
def test_observations_stay_in_their_space(horizon):
    """Also those of who always walks the same way, to the last step."""
    family = PointNav(horizon=horizon)
    env = begin(family, [0.5, 0.5])
    for _ in range(horizon):
        obs, _, _ = env.step(np.array([[0.1, -0.1]]))
    assert family.observation_space.contains(obs[0])


def test_tasks_are_uniform_in_the_square():
    tasks = PointNav(goal_range=2.0).sample_tasks(np.random.default_rng(0), 4000)
    assert tasks.shape == (4000, 2)
    assert np.abs(tasks).max() <= 2.0
    assert np.abs(tasks.mean(0)).max() < 0.1
    np.testing.assert_allclose(tasks.std(0), 4 / np.sqrt(12), rtol=0.05)


@pytest.mark.parametrize("field", ["horizon", "goal_range", "action_scale"])
def test_a_wrong_field_is_named(field):
    with pytest.raises(ValueError, match=f"{field}: expected .*, got 0"):
        PointNav(**{field: 0})


def test_the_renderer_shows_path_and_goal():
    """A picture of the asked size, in which the goal's and the point's colours appear."""
    family = PointNav()
    renderer = family.make_renderer(120, 80)
    picture = renderer.draw(np.array([[0.0, 0.0], [0.1, 0.1]]), np.array([0.3, 0.3]))
    renderer.close()
    assert picture.shape == (80, 120, 3)
    assert picture.dtype == np.uint8
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
    assert {(0x2A, 0x6F, 0xBB), (0xC0, 0x39, 0x2B)} <= colours
    assert family.caption(np.array([0.3, 0.0]), np.array([0.0, 0.4])) == "distance 0.50"


def test_between_two_steps_the_point_is_between_them():
    renderer, goal = PointNav().make_renderer(120, 80), np.array([0.3, 0.3])
    states = np.array([[0.0, 0.0], [0.2, 0.1], [0.3, -0.1]])
    shown = renderer.draw(states, goal, 1.5)
    assert np.array_equal(shown, renderer.draw(np.array([*states[:2], [0.25, 0.0]]), goal))
    assert np.array_equal(renderer.draw(states, goal, 1.0), renderer.draw(states[:2], goal))


# --- variants ---


def walk(family: PointNav, goal: list[float], *positions: list[float]) -> list[float]:
    """The rewards of a walk over given positions."""
    env = begin(family, goal)
    rewards = []
    for position in positions:
        step = np.subtract(position, env.render_state(0)) / family.max_step * family.action_scale
        rewards.append(env.step(step[None])[1][0])
        np.testing.assert_allclose(env.render_state(0), position, atol=1e-12)
    return rewards


def test_a_sparse_reward_is_given_near_the_goal_only():
    """PEARL's and VariBAD's: 1 minus the distance within 0.2."""
    family = PointNav(reward="sparse", max_step=2.0)
    rewards = walk(family, [1.0, 0.0], [0.7, 0.0], [0.9, 0.0], [1.0, 0.19], [1.0, 0.21])
    np.testing.assert_allclose(rewards, [0.0, 0.9, 0.81, 0.0], rtol=1e-12)


def test_progress_is_rewarded_where_the_goals_corner_is_the_nearest():
    """ProMP's: by how much the distance shrinks, nothing within 0.5 (L1) of the origin."""
    family = PointNav(region="corners", goal_range=2.0, reward="progress", max_step=2.0)
    rewards = walk(
        family,
        [2.0, -2.0],
        [0.2, -0.2],  # near the origin
        [0.5, -0.5],
        [0.4, -0.4],  # back
        [0.4, 0.4],  # nearer to another corner
        [1.0, -1.0],  # from there
    )
    root = np.sqrt(2)
    left = 1.0 * root
    expected = [0, 0.3 * root, -0.1 * root, 0, np.hypot(1.6, 2.4) - left]
    np.testing.assert_allclose(rewards, expected, atol=1e-12)


def test_regions_of_goals():
    rng = np.random.default_rng(0)
    corners = PointNav(region="corners", goal_range=2.0)
    assert {tuple(goal) for goal in corners.sample_tasks(rng, 60)} == {
        (x, y) for x in (-2.0, 2.0) for y in (-2.0, 2.0)
    }
    every = [[2.0, 2.0], [-2.0, 2.0], [-2.0, -2.0], [2.0, -2.0]]
    for split in ("train", "validation", "test"):
        assert corners.tasks(split, 6).tolist() == every + every[:2], "each in turn"
    assert corners.in_distribution(np.array([2.0, -2.0]))
    assert not corners.in_distribution(np.array([2.0, -1.0]))
    assert corners.splits == ("train", "validation", "test")
    half = PointNav(region="semicircle", goal_range=1.0)
    assert all(half.in_distribution(task) for task in half.tasks("test", 20))
    assert not any(half.in_distribution(np.array(task)) for task in ([0.3, 0.3], [0.6, -0.8]))
    upper, lower = half.sample_tasks(rng, 200), half.tasks("ood", 200)
    for goals in (upper, lower):
        np.testing.assert_allclose(np.linalg.norm(goals, axis=1), 1.0, rtol=1e-12)
    assert upper[:, 1].min() >= 0 > lower[:, 1].max()
    assert np.abs(PointNav().tasks("ood", 50)).max(axis=1).min() > 0.5


def test_starts_are_drawn_from_the_episodes_generators():
    family = PointNav(start_range=0.2)
    env = family.make_batch(50)
    starts = env.reset(np.zeros((50, 2)), [np.random.default_rng(i) for i in range(50)])
    assert 0.15 < np.abs(starts).max() <= 0.2
    again = env.reset(np.ones((50, 2)), [np.random.default_rng(i) for i in range(50)])
    assert np.array_equal(starts, again)


def test_an_episode_can_go_on_at_the_goal():
    env = begin(PointNav(ends_at_goal=False), [0.0, 0.0])
    assert env.step(np.zeros((1, 2)))[2].tolist() == [False]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_step": 0.0}, "max_step: expected more than 0, got 0.0"),
        ({"start_range": -1.0}, "start_range: expected at least 0, got -1.0"),
        ({"reward": "progress"}, "progress needs region corners, got region square"),
    ],
)
def test_a_variant_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PointNav(**fields)
