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
from metarl.envs.mujoco.camera import View
from metarl.envs.mujoco.markers import Label, Marker, metre_labels, metre_markers
from metarl.envs.mujoco.rendering import MujocoRenderer, interpolated, smoothed
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


def test_the_floor_throws_no_shadow_on_itself():
    """At this place the light of Gymnasium's models, 1.3 m high, made dark streaks behind it."""
    family, task = HalfCheetahVel(), np.array([1.0])
    rng, env = np.random.default_rng(3), family.make_batch(1)
    env.reset(task[None], [np.random.default_rng(0)])
    states = [env.render_state(0)]
    for _ in range(40):
        env.step(8 * rng.normal(size=(1, 6)))
        states.append(env.render_state(0))
    with contextlib.closing(family.make_renderer(480, 360)) as renderer:
        picture = draw(renderer, np.stack(states), task, 10)
    assert (picture[200:245, 300:460].max(axis=-1) < 90).sum() == 0
    # At some of these it made them with lights of every height.
    with contextlib.closing(family.make_renderer(360, 280)) as renderer:
        for x in np.arange(-1, 1, 0.05):
            begun = np.tile(states[0], (2, 1))
            begun[:, 0], begun[:, 2] = x, begun[:, 2] + 0.3
            picture = draw(renderer, begun, task, 0)
            assert (picture[130:180, 240:].max(axis=-1) < 90).sum() < 5


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
    np.testing.assert_allclose(walking, states[:, 0] + centre, atol=1e-3)  # at the ends too


@pytest.mark.parametrize("length", [1, 2, 7, 60])
def test_a_smoothed_path_of_any_length(length):
    """A line stays what it is; of a robot that comes from rest the end is not left behind."""
    time = np.arange(length)[:, None]
    line = 3 - time * [0.4, -0.1]
    np.testing.assert_allclose(smoothed(line, sigma=6.0), line, atol=1e-9)
    started = np.maximum(time - length / 2, 0) * [0.38, 0]  # 7.6 m/s after half of the episode
    behind = np.abs(smoothed(started, sigma=6.0) - started)[-1]
    assert behind.max() < 0.3  # m; a filter that repeats the last place is 0.9 m behind


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
    assert [marker.position[0] for marker in metre_markers(range(-1, 4), y=0.0)] == [-1, 0, 1, 2, 3]
    labels = metre_labels(range(-1, 4), y=0.0, every=2)
    assert [(label.position[0], label.text) for label in labels] == [(0, "start"), (2, "2 m")]


@pytest.mark.parametrize("size", [(160, 120), (960, 720)])
def test_labels_are_whole_or_not_there(size):
    """They are where their place is in the image, and none is cut at its edge."""
    view, lookat = View(size, 45.0, -20.0), np.zeros(3)
    white = np.full((size[1], size[0], 3), 255, np.uint8)

    def marked(x: float) -> np.ndarray:
        label = Label((x, 0.0, 0.0), "-16 m")
        drawn = view.with_labels(white, [label], lookat, 10.0)
        return np.argwhere((drawn != 255).any(-1))

    middle = marked(0.0)
    np.testing.assert_allclose(middle.mean(axis=0), np.array(size[::-1]) / 2, atol=size[0] / 60)
    width, half = np.ptp(middle[:, 1]), 10 * view.slopes[0]
    assert width < 0.25 * size[0]
    places = np.linspace(0.5, 1.2, 40) * half
    found = [marked(x) for x in places]
    assert {len(pixels) > 0 for pixels in found} == {True, False}
    assert all(abs(np.ptp(pixels[:, 1]) - width) <= 1 for pixels in found if len(pixels))


def test_places_in_the_image_are_those_of_mujoco():
    """A small ball is drawn where `View.pixels` says."""
    family, task = AntGoal(), np.array([2.0, 1.0])
    env = family.make_batch(1)
    env.reset(task[None], [np.random.default_rng(0)])
    with contextlib.closing(family.make_renderer(320, 240)) as renderer:
        draw(renderer, env.render_state(0)[None], task, 0)
        camera, scene = renderer._camera, renderer._renderer.scene
        place = (1.0, 2.0, 0.8)
        Marker(mujoco.mjtGeom.mjGEOM_SPHERE, place, (0.1, 0.1, 0.1)).add_to(scene)
        ball = red(renderer._renderer.render().astype(int))
        scene.ngeom -= 1
        ball &= ~red(renderer._renderer.render().astype(int))
    x, y = renderer._view.pixels(np.subtract(place, camera.lookat), camera.distance)
    np.testing.assert_allclose(np.argwhere(ball).mean(axis=0), (y, x), atol=2)


@pytest.mark.parametrize("size", [(320, 240), (240, 320)])
@pytest.mark.parametrize("goal", [(3, 0), (0, 3), (0, -3), (-3, 3), (4.5, -4.5), (-4.5, -4.5)])
def test_goals_with_a_place_are_seen_with_the_robot(goal, size):
    """Foot and top of the goal, and the robot, are in the image from the start to the end."""
    family, task = AntGoal(), np.array(goal, float)
    env = family.make_batch(1)
    env.reset(task[None], [np.random.default_rng(0)])
    states = np.repeat(env.render_state(0)[None], 60, axis=0)
    states[:, :2] = np.linspace([0, 0], -0.3 * task, 60)  # it walks away
    with contextlib.closing(family.make_renderer(*size)) as renderer:
        for time in (0, 59):
            draw(renderer, states, task, time)
            camera = renderer._camera
            for place in ((*goal, 0.0), (*goal, 1.5), (*states[time, :2], 0.0)):
                offset = np.subtract(place, camera.lookat)
                share = np.divide(renderer._view.pixels(offset, camera.distance), size)
                assert (share > 0.02).all()
                assert (share < 0.98).all()


def test_captions_have_no_minus_zero():
    state = np.zeros(40)
    state[HalfCheetahVel().model.nq] = -0.01
    assert HalfCheetahVel().caption(state, np.array([-0.04])) == "speed +0.0, goal +0.0 m/s"
    assert HalfCheetahDir().caption(state, np.array([1.0])) == "speed +0.0 m/s, goal forward"
    state[AntDir().model.nq] = -0.01
    assert PLANE.caption(state, np.array([-1e-4])) == "speed +0.0 m/s along +0 degrees"
    assert AntGoal().caption(state, np.array([0.0, -3.0])) == "goal 3.0 m away at -90 degrees"
