"""envs.rendering: the goal is in the picture."""

from __future__ import annotations

import contextlib

import mujoco
import numpy as np
import pytest

from envs import (
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
from envs.rendering import Mark

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
    states = np.stack([env.drawn_state(0)] * (steps + 1))
    with contextlib.closing(family.make_scene(160, 120)) as scene:
        try:
            return [scene.draw(states, np.array(task, float)).astype(int) for task in tasks]
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
    """The scene shows the task's own model."""
    short, long = pictures(HalfCheetahBody(), [[1.0, 1.0, 0.5], [1.0, 1.0, 2.0]])
    assert np.abs(short - long).sum() > 1000


def test_the_pacer_runs_at_the_goal_velocity():
    family = HalfCheetahVel()
    states = np.zeros((41, 18))
    states[:, 0] = 3.0
    (mark,) = family.marks(states, np.array([1.5]))
    assert mark.position[0] == pytest.approx(3.0 + 1.5 * 40 * family.dt)


@pytest.mark.parametrize("angle", [0.0, 1.0, -2.5])
def test_an_arrow_points_where_it_is_told_to(angle):
    """Its z axis, which MuJoCo draws it along, lies in the plane; the frame is right-handed."""
    scene = mujoco.MjvScene(AntDir().model, maxgeom=5)
    before = scene.ngeom
    Mark(mujoco.mjtGeom.mjGEOM_ARROW, (1, 2, 3), heading=angle).add_to(scene)
    geom = scene.geoms[before]
    assert scene.ngeom == before + 1
    np.testing.assert_allclose(geom.pos, [1, 2, 3])
    np.testing.assert_allclose(geom.mat[:, 2], [np.cos(angle), np.sin(angle), 0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(geom.mat), 1, atol=1e-6)


def test_headings_of_directions():
    assert AntDir().heading(np.array([1.0])) == 0
    assert AntDir().heading(np.array([-1.0])) == pytest.approx(np.pi)
    assert PLANE.heading(np.array([0.3])) == 0.3
