"""Offscreen rendering of MuJoCo models, with or without a display."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context
from scipy.ndimage import gaussian_filter1d

from metarl.envs.rendering import moment

if TYPE_CHECKING:
    from metarl.envs.mujoco.family import MujocoFamily

LIGHTEN = 0.6  # how far the colours of floor and sky are drawn towards white
PERIOD = 2.0  # of the floor's pattern, m: a light and a dark square
DISTANCE = 3.3  # of the camera, in radii of the robot
CALM = 0.3  # s over which the camera evens out how the robot moves (standard deviation)
LABEL_WIDTH = 70  # of a metre on the floor, pixels, with some room to the next
MAX_PATHS = 16  # episodes whose camera paths are kept
BLUE = (0.165, 0.435, 0.733, 1.0)  # of the marks on the floor
RED = (0.753, 0.224, 0.169, 1.0)  # of goals


class RenderingUnavailable(RuntimeError):
    """This machine cannot make an OpenGL context."""


def _choose_backend() -> None:
    """Use EGL on a Linux machine without a display, unless MUJOCO_GL says what to use."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not display and not os.environ.get("MUJOCO_GL"):
        from mujoco.egl import GLContext  # fails where libEGL is missing

        gl_context.GLContext = GLContext


def make_renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """Make a renderer of pictures of the given size in pixels.

    Raises:
        RenderingUnavailable: if there is no working OpenGL library; says what helps.
    """
    model = copy.copy(model)
    model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(height, model.vis.global_.offheight)
    try:
        _choose_backend()
        return mujoco.Renderer(model, height, width)
    # The bindings raise errors of many kinds, down to AttributeError, for a missing library.
    except Exception as error:
        raise RenderingUnavailable(
            f"cannot render: no OpenGL context with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r} "
            f"({type(error).__name__}: {error}). On a machine without a display set MUJOCO_GL=egl "
            "and install the EGL library (Debian and Ubuntu: apt-get install libegl1), or set "
            "MUJOCO_GL=osmesa and install libosmesa6"
        ) from error


def drawable(model: mujoco.MjModel) -> mujoco.MjModel:
    """Return a copy to draw: light, matt and quick to render, on a floor of 1 m squares."""
    model = copy.copy(model)
    for texture in np.flatnonzero(model.tex_type != mujoco.mjtTexture.mjTEXTURE_CUBE):
        start, pixels = model.tex_adr[texture], model.tex_height[texture] * model.tex_width[texture]
        colours = model.tex_data[start : start + pixels * model.tex_nchannel[texture]]
        colours[:] = 255 - (1 - LIGHTEN) * (255.0 - colours)
    for floor in floors(model):
        if (material := model.geom_matid[floor]) >= 0:
            model.geom_rgba[floor, :3] = model.mat_rgba[material, :3] = 1
            model.mat_texuniform[material] = False
            model.mat_texrepeat[material] = 2 * model.geom_size[floor, :2] / PERIOD
    model.light_diffuse[:] *= 0.6
    model.vis.headlight.ambient[:] = 0.35
    # Without a GPU, mirrors and fine shadows would take most of the time.
    model.mat_reflectance[:] = 0
    model.vis.quality.shadowsize = 512
    return model


def floors(model: mujoco.MjModel) -> np.ndarray:
    """Return which geoms are planes, (n,)."""
    return np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)


@dataclass(frozen=True)
class Mark:
    """Something drawn into a scene that the model does not have.

    Attributes:
        kind: the shape, one of MuJoCo's.
        position: of its centre; of an arrow its foot. (3,), m.
        size: as in MuJoCo's models for the shape (a cylinder's radius and half height), (3,), m.
        heading: where its x axis (an arrow's tip) points in the plane, radians from x.
        colour: red, green, blue, opacity.
        text: a label.
    """

    kind: mujoco.mjtGeom
    position: Sequence[float] | np.ndarray
    size: Sequence[float] = (0.1, 0.1, 0.1)
    heading: float = 0.0
    colour: Sequence[float] = RED
    text: str = ""

    def add_to(self, scene: mujoco.MjvScene) -> None:
        """Add the mark to what a renderer draws."""
        geom = scene.geoms[scene.ngeom]
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        if self.kind == mujoco.mjtGeom.mjGEOM_ARROW:  # points along its z axis
            frame = [0.0, -sin, cos, 0.0, cos, sin, -1.0, 0.0, 0.0]
        else:
            frame = [cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0]
        position, colour = np.array(self.position, float), np.array(self.colour, np.float32)
        mujoco.mjv_initGeom(geom, self.kind, np.array(self.size), position, np.array(frame), colour)
        geom.label = self.text
        scene.ngeom += 1


class MujocoScene:
    """Draws a model in a given state, seen from the side. A state is qpos and qvel, (nq + nv,).

    The camera follows the robot, more calmly than it moves; marks on the floor tell its distance
    from the origin along x. Between two control steps the robot is drawn between their states.
    """

    def __init__(self, family: MujocoFamily, width: int, height: int) -> None:
        """Draw the `task_model` and the `marks` of a family, in pictures of this many pixels."""
        self._family, self._size = family, (width, height)
        self._paths: dict[bytes, np.ndarray] = {}
        self._task: list[float] | None = None
        self._drawn: mujoco.MjModel | None = None
        self._renderer: mujoco.Renderer | None = None

    def _renderer_of(self, task: np.ndarray) -> mujoco.Renderer:
        """Return the renderer of a task's model: the last one, if the model is the same."""
        if self._renderer is not None and self._task == task.tolist():
            return self._renderer
        model, self._task = self._family.task_model(task), task.tolist()
        if self._renderer is not None and model is self._drawn:
            return self._renderer
        self.close()
        self._drawn, self._model = model, drawable(model)
        self._renderer = self._make_renderer(self._model)
        return self._renderer

    def _make_renderer(self, model: mujoco.MjModel) -> mujoco.Renderer:
        """Make a renderer, and the camera, light and simulation that go with it."""
        width, height = self._size
        self._data = mujoco.MjData(model)
        mujoco.mj_forward(model, self._data)
        robot = model.geom_bodyid > 0
        centre = self._data.subtree_com[1]
        distance = np.linalg.norm(self._data.geom_xpos[robot] - centre, axis=1)
        radius = (distance + model.geom_rbound[robot]).max()
        # Shadows reach this far: little, so that their few pixels are small.
        model.vis.map.shadowclip = 2 * radius / model.stat.extent

        self._camera = mujoco.MjvCamera()
        self._camera.lookat[:] = centre
        self._camera.distance = DISTANCE * radius
        self._camera.azimuth, self._camera.elevation = 90.0, self._family.camera_elevation
        # Half of the width that the camera sees at the robot, m.
        slope = math.tan(math.radians(model.vis.global_.fovy) / 2) * width / height
        sight = slope * self._camera.distance
        self._sight = 1.2 * sight  # and a little more
        self._every = math.ceil(LABEL_WIDTH * 2 * sight / width)
        return make_renderer(model, width, height)

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the picture of the states, (t, nq + nv), at a moment, under the task."""
        renderer = self._renderer_of(task)
        step, share = moment(states, time)
        path, state = self._path(states), states[step]
        x, y = position = path[step]
        if share:
            x, y = position = position + share * (path[step + 1] - position)
            state = between(self._model, state, states[step + 1], share)
        model, data = self._model, self._data
        data.qpos[:], data.qvel[:] = np.split(state, [model.nq])
        mujoco.mj_forward(model, data)
        # Floor and lights go along, by whole repeats of the pattern, so that they have no end.
        shift = PERIOD * np.round(position / PERIOD)
        data.geom_xpos[floors(model), :2] += shift
        data.light_xpos[:, :2] += shift
        self._camera.lookat[:2] = position
        renderer.update_scene(data, self._camera)
        seen = range(math.ceil(x - self._sight), math.floor(x + self._sight) + 1)
        seconds = (step + share) * self._family.dt
        marks = self._family.marks(states[0], state, seconds, task)
        for mark in (*distances(seen, y, self._every), *marks):
            mark.add_to(renderer.scene)
        return renderer.render()

    def _path(self, states: np.ndarray) -> np.ndarray:
        """Return where the camera looks at each of the states, (t, 2), m on the floor."""
        key = states.tobytes()
        if key not in self._paths:
            model, data = self._model, self._data
            centres = np.empty((len(states), 2))
            for centre, state in zip(centres, states, strict=True):
                data.qpos[:] = state[: model.nq]
                mujoco.mj_kinematics(model, data)
                mujoco.mj_comPos(model, data)
                centre[:] = data.subtree_com[1][:2]
            if len(self._paths) == MAX_PATHS:
                self._paths.pop(next(iter(self._paths)))
            calm = CALM / self._family.dt
            self._paths[key] = gaussian_filter1d(centres, calm, axis=0, mode="nearest")
        return self._paths[key]

    def close(self) -> None:
        """Free the OpenGL context."""
        self._paths.clear()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def between(
    model: mujoco.MjModel, before: np.ndarray, after: np.ndarray, share: float
) -> np.ndarray:
    """Return the state, (nq + nv,), when a share of the way from one to the next is gone."""
    state, nq = before + share * (after - before), model.nq
    # Orientations are quaternions, which are not added but turned.
    velocity, position = np.empty(model.nv), before[:nq].copy()
    mujoco.mj_differentiatePos(model, velocity, 1.0, before[:nq], after[:nq])
    mujoco.mj_integratePos(model, position, velocity, share)
    state[:nq] = position
    return state


def distances(metres: Iterable[int], y: float, every: int) -> Iterator[Mark]:
    """Mark whole metres along x on the floor, between the robot, at `y`, and the camera.

    Every so many of them have a label: in a small picture not all have room for it.
    """
    for metre in metres:
        size = (0.02 if metre else 0.05, 0.3, 0.002)
        yield Mark(mujoco.mjtGeom.mjGEOM_BOX, (metre, y - 0.3, 0.0), size, colour=BLUE)
        if metre % every:
            continue
        text = f"{metre} m" if metre else "start"
        yield Mark(mujoco.mjtGeom.mjGEOM_LABEL, (metre, y - 0.8, 0.0), colour=BLUE, text=text)
