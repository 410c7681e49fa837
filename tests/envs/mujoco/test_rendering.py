"""Rendering of MuJoCo families: goals, bodies, cameras and interpolation."""

from __future__ import annotations

import contextlib

import mujoco
import numpy as np
import pytest

from metarl.envs import (
    AntDir,
    AntGoal,
    AntVel,
    HalfCheetahBody,
    HalfCheetahDir,
    HalfCheetahVel,
    HumanoidDir,
    RenderingUnavailable,
    WalkerVel,
)
from metarl.envs.mujoco.markers import Marker, metre_markers
from metarl.envs.mujoco.rendering import MujocoRenderer, font_scale, interpolated
from metarl.envs.rendering import frame_at

PLANE = AntDir(plane=True)
WITH_GOALS = [
    (HalfCheetahVel(), [0.0], [1.5]),
    (HalfCheetahDir(), [1.0], [-1.0]),
    (AntVel(), [0.0], [2.0]),
    (PLANE, [0.0], [2.0]),
    (AntGoal(), [0.0, 1.0], [1.0, 0.5]),
    (HumanoidDir(), [0.0], [2.0]),
    (WalkerVel(), [0.0], [2.0]),
]


def pictures(family, tasks, steps: int = 20) -> list[np.ndarray]:
    """One state, `steps` steps after the start, drawn under each task: colours 0 to 255."""
    env = family.make_batch(1)
    env.reset(np.array(tasks[:1], float), [np.random.default_rng(0)])
    states = np.stack([env.render_state(0)] * (steps + 1))
    with contextlib.closing(family.make_renderer(160, 120)) as renderer:
        try:
            return [renderer.draw(states, np.array(task, float)).astype(int) for task in tasks]
        except RenderingUnavailable as error:
            pytest.skip(f"this machine cannot render: {error}")


def red(picture: np.ndarray) -> np.ndarray:
    """Where a picture has the colour of goals."""
    r, g, b = np.moveaxis(picture, -1, 0)
    return (r > 1.5 * g) & (r > 1.5 * b) & (r > 60)


@pytest.mark.parametrize(("family", "task", "other"), WITH_GOALS)
def test_the_goal_is_seen_and_moves_with_the_task(family, task, other):
    one, two = (red(picture) for picture in pictures(family, [task, other]))
    assert one.sum() > 15
    assert two.sum() > 15
    assert (one != two).sum() > 15


def test_another_body_is_drawn():
    """The image shows the task's own model."""
    short, long = pictures(HalfCheetahBody(), [[1.0, 1.0, 0.5], [1.0, 1.0, 2.0]])
    assert np.abs(short - long).sum() > 1000


def test_the_pacer_runs_at_the_goal_velocity():
    family = HalfCheetahVel()
    start, now = np.zeros((2, 18))
    start[0], now[0] = 3.0, 7.0
    (marker,) = family.goal_markers(start, now, 2.1, np.array([1.5]))
    assert marker.position[0] == pytest.approx(3.0 + 1.5 * 2.1)


def test_states_between_two_control_steps():
    """Positions and velocities go straight, orientations turn: their quaternions keep length 1."""
    model = AntDir().model
    before, after = np.zeros((2, model.nq + model.nv))
    before[:3], after[:3] = (0, 0, 1), (2, -4, 1)
    before[3:7] = 1, 0, 0, 0
    after[3:7] = np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)  # a quarter of a turn about z
    after[7], after[-1] = 0.8, 4.0
    state = interpolated(model, before, after, 0.25)
    expected = np.zeros_like(state)
    expected[:3], expected[7], expected[-1] = (0.5, -1, 1), 0.2, 1.0
    expected[3:7] = np.cos(np.pi / 16), 0, 0, np.sin(np.pi / 16)
    np.testing.assert_allclose(state, expected, atol=1e-12)
    np.testing.assert_allclose(interpolated(model, before, after, 0.0), before, atol=1e-12)


def test_between_two_states_the_robot_is_between_them(monkeypatch):
    family, task = HalfCheetahVel(), np.array([0.0])
    states = np.zeros((2, 18))
    states[1, 2] = 0.8  # it pitches
    monkeypatch.setattr(MujocoRenderer, "_path", lambda self, states: np.zeros((len(states), 2)))
    with contextlib.closing(family.make_renderer(160, 120)) as renderer:
        first, halfway, second = (draw(renderer, states, task, t) for t in (0, 0.5, 1))
        turned = states.copy()
        turned[1, 2] = 0.4
        expected = draw(renderer, turned, task, 1)
    assert np.abs(first - second).sum() > 1000
    assert (halfway == expected).all()


def test_the_camera_is_calmer_than_the_robot():
    """It takes one that jumps to and fro for resting, and follows one that walks."""
    family = HalfCheetahVel()
    states = np.zeros((100, 18))
    states[::2, 0] = 0.5
    with contextlib.closing(family.make_renderer(64, 48)) as renderer:
        draw(renderer, states, np.zeros(1), 0)
        shaken = renderer._path(states)[10:-10, 0]
        states[:, 0] = np.linspace(0, 9.9, 100)
        walking = renderer._path(states)[:, 0]
        centre = walking[50] - states[50, 0]
    assert np.ptp(shaken) < 0.05
    np.testing.assert_allclose(walking[20:-20], states[20:-20, 0] + centre, atol=1e-3)
    assert walking[0] > states[0, 0] + centre  # it does not begin with a jerk


def draw(renderer, states: np.ndarray, task: np.ndarray, time: float) -> np.ndarray:
    try:
        return renderer.draw(states, task, time).astype(int)
    except RenderingUnavailable as error:
        pytest.skip(f"this machine cannot render: {error}")


def test_a_time_after_the_last_state_is_refused():
    assert frame_at(np.zeros((3, 1)), None) == (2, 0.0)
    assert frame_at(np.zeros((3, 1)), 1.25) == (1, 0.25)
    for time in (-0.1, 2.1):
        with pytest.raises(ValueError, match="time: expected from 0 to 2, the last of the states"):
            frame_at(np.zeros((3, 1)), time)


@pytest.mark.parametrize("angle", [0.0, 1.0, -2.5])
def test_an_arrow_points_where_it_is_told_to(angle):
    """Its z axis, which MuJoCo draws it along, lies in the plane; the frame is right-handed."""
    scene = mujoco.MjvScene(AntDir().model, maxgeom=5)
    before = scene.ngeom
    Marker(mujoco.mjtGeom.mjGEOM_ARROW, (1, 2, 3), heading=angle).add_to(scene)
    geom = scene.geoms[before]
    assert scene.ngeom == before + 1
    np.testing.assert_allclose(geom.pos, [1, 2, 3])
    np.testing.assert_allclose(geom.mat[:, 2], [np.cos(angle), np.sin(angle), 0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(geom.mat), 1, atol=1e-6)


def test_headings_of_directions():
    assert AntDir().heading(np.array([1.0])) == 0
    assert AntDir().heading(np.array([-1.0])) == pytest.approx(np.pi)
    assert PLANE.heading(np.array([0.3])) == 0.3


def test_every_metre_is_marked_and_as_many_named_as_have_room():
    markers = list(metre_markers(range(-1, 4), y=0.0, label_every=2))
    bars = [marker.position[0] for marker in markers if not marker.text]
    assert bars == [-1, 0, 1, 2, 3]
    assert [(marker.position[0], marker.text) for marker in markers if marker.text] == [
        (0, "start"),
        (2, "2 m"),
    ]


def test_labels_have_the_size_that_fits_the_image():
    sizes = [font_scale(width).value for width in (64, 358, 480, 640, 960, 4096)]
    assert sizes == [50, 50, 100, 150, 300, 300]
