"""envs.point: 2D navigation, worked by hand."""

import numpy as np
import pytest

from envs import PointNav, SimulationDiverged
from envs.point import GOAL_RADIUS, MAX_STEP

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
    assert [env.drawn_state(i).tolist() for i in range(3)] == [[0.1, 0.1], [0, 0], [0.1, 0.1]]


def test_results_are_fresh_arrays():
    """What a caller does to an observation does not move the point, nor does the next step change
    an observation given before."""
    env = begin(METRES, [0.5, 0.5])
    first, _, _ = env.step(np.array([[0.1, 0.0]]))
    kept = first.copy()
    env.step(np.array([[0.1, 0.0]]))
    assert np.array_equal(first, kept)
    first[:] = 99
    assert env.drawn_state(0)[0] == pytest.approx(0.2)


def test_an_action_that_is_not_a_number_diverges():
    env = begin(METRES, [0.5, 0.5], [0.5, 0.5])
    with pytest.raises(SimulationDiverged) as caught:
        env.step(np.array([[0.1, 0.1], [0.1, np.nan]]))
    assert caught.value.ids.tolist() == [1]


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


def test_the_scene_shows_path_and_goal():
    """A picture of the asked size, in which the goal's and the point's colours appear."""
    family = PointNav()
    scene = family.make_scene(120, 80)
    picture = scene.draw(np.array([[0.0, 0.0], [0.1, 0.1]]), np.array([0.3, 0.3]))
    scene.close()
    assert picture.shape == (80, 120, 3)
    assert picture.dtype == np.uint8
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
    assert {(0x2A, 0x6F, 0xBB), (0xC0, 0x39, 0x2B)} <= colours
    assert family.describe(np.array([0.3, 0.0]), np.array([0.0, 0.4])) == "distance 0.50"
