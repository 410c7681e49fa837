"""Offscreen rendering of MuJoCo families, with or without a display."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Sequence
from typing import ClassVar, Protocol

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context

from metarl.envs.mujoco.camera import View
from metarl.envs.mujoco.markers import GOAL_HEIGHT, GOAL_RADIUS, Marker, metre_labels, metre_markers
from metarl.envs.rendering import RenderingUnavailable, frame_at

LIGHTEN = 0.6  # fraction by which the colours of floor and sky are moved towards white
PERIOD = 2.0  # of the floor's pattern, m: a light and a dark square
CAMERA_DISTANCE = 3.3  # in radii of the robot
CAMERA_SMOOTHING = 0.3  # standard deviation of the Gaussian filter on the camera's path, s
LIGHT_HEIGHT = 4.0  # at least, of lights whose rays are parallel, m
LABEL_WIDTH = 0.2  # room for a label on the floor, in widths of the image
MAX_PATHS = 16  # episodes whose camera paths are cached


class RenderedFamily(Protocol):
    """The members of `MujocoFamily` that rendering uses."""

    camera_elevation: ClassVar[float]

    @property
    def dt(self) -> float: ...

    def task_model(self, task: np.ndarray) -> mujoco.MjModel: ...

    def goal_markers(
        self, start: np.ndarray, state: np.ndarray, seconds: float, task: np.ndarray
    ) -> Sequence[Marker]: ...

    def goal_place(self, task: np.ndarray) -> tuple[float, float] | None: ...


def _choose_backend() -> None:
    """Use EGL on a Linux machine without a display, unless MUJOCO_GL names a backend."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not display and not os.environ.get("MUJOCO_GL"):
        from mujoco.egl import GLContext  # fails where libEGL is missing

        gl_context.GLContext = GLContext


def make_offscreen_renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """Make MuJoCo's renderer for images of the given size in pixels.

    Raises:
        RenderingUnavailable: if there is no working OpenGL library; the message says what to
            install or set.
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
            "and install the EGL library (Debian and Ubuntu: apt-get install libegl1 libopengl0 "
            "libgl1-mesa-dri), or set "
            "MUJOCO_GL=osmesa and install libosmesa6"
        ) from error


def restyled(model: mujoco.MjModel) -> mujoco.MjModel:
    """Return a copy for rendering: light, matt and cheap to render, on a floor of 1 m squares."""
    model = copy.copy(model)
    for texture in np.flatnonzero(model.tex_type != mujoco.mjtTexture.mjTEXTURE_CUBE):
        start, pixels = model.tex_adr[texture], model.tex_height[texture] * model.tex_width[texture]
        colours = model.tex_data[start : start + pixels * model.tex_nchannel[texture]]
        colours[:] = 255 - (1 - LIGHTEN) * (255.0 - colours)
    for floor in floor_geoms(model):
        if (material := model.geom_matid[floor]) >= 0:
            model.geom_rgba[floor, :3] = model.mat_rgba[material, :3] = 1
            model.mat_texuniform[material] = False
            model.mat_texrepeat[material] = 2 * model.geom_size[floor, :2] / PERIOD
    model.light_diffuse[:] *= 0.6
    # What is above a light throws no shadow.
    distant = model.light_type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    model.light_pos[distant, 2] = np.maximum(model.light_pos[distant, 2], LIGHT_HEIGHT)
    model.vis.headlight.ambient[:] = 0.35
    # Without a GPU, mirrors and fine shadows would take most of the time.
    model.mat_reflectance[:] = 0
    model.vis.quality.shadowsize = 512
    return model


def cast_no_shadow(scene: mujoco.MjvScene) -> None:
    """Make the floors of a scene receive shadows only.

    Otherwise they throw streaks of shadow on themselves in some images, as the depth of the shadow
    map is rounded.
    """
    for geom in scene.geoms[: scene.ngeom]:
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
            geom.category = mujoco.mjtCatBit.mjCAT_DECOR  # decorations throw none


def floor_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Return the indices of the geoms that are planes, (n,)."""
    return np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)


class MujocoRenderer:
    """Renders the robot of a family from the side. A render state is qpos and qvel, (nq + nv,).

    The camera follows the smoothed path of the robot, or the middle between it and the goal, where
    the goal has a place, from far enough to see both in the whole episode. Markers on the floor
    show the distance from the origin along x. Between two control steps the states are
    interpolated.
    """

    def __init__(self, family: RenderedFamily, width: int, height: int) -> None:
        """Render the `task_model` and the `goal_markers` of a family; sizes are in pixels."""
        self._family, self._size = family, (width, height)
        self._paths: dict[bytes, np.ndarray] = {}
        self._task: list[float] | None = None
        self._task_model: mujoco.MjModel | None = None
        self._renderer: mujoco.Renderer | None = None

    def _renderer_of(self, task: np.ndarray) -> mujoco.Renderer:
        """Return the renderer of a task's model, a new one only if the model has changed."""
        if self._renderer is not None and self._task == task.tolist():
            return self._renderer
        model, self._task = self._family.task_model(task), task.tolist()
        if self._renderer is not None and model is self._task_model:
            return self._renderer
        self.close()
        self._task_model, self._model = model, restyled(model)
        self._renderer = self._open_renderer(self._model)
        return self._renderer

    def _open_renderer(self, model: mujoco.MjModel) -> mujoco.Renderer:
        """Make a renderer, and the camera, light and simulation that go with it."""
        self._data = mujoco.MjData(model)
        mujoco.mj_forward(model, self._data)
        robot = model.geom_bodyid > 0
        centre = self._data.subtree_com[1]
        distance = np.linalg.norm(self._data.geom_xpos[robot] - centre, axis=1)
        radius = (distance + model.geom_rbound[robot]).max()
        # The shadow map covers only this radius, so that its few pixels are small.
        model.vis.map.shadowclip = 2 * radius / model.stat.extent

        self._camera = mujoco.MjvCamera()
        self._camera.lookat[:], self._radius = centre, radius
        self._camera.azimuth, self._camera.elevation = 90.0, self._family.camera_elevation
        self._view = View(self._size, model.vis.global_.fovy, self._family.camera_elevation)
        return make_offscreen_renderer(model, *self._size)

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the image of the states, (t, nq + nv), at a time, under a task, (task_dim,).

        Args and errors are those of `Renderer.draw`.
        """
        renderer = self._renderer_of(task)
        step, fraction = frame_at(states, time)
        path, state = self._path(states), states[step]
        position = path[step]
        if fraction:
            position = position + fraction * (path[step + 1] - position)
            state = interpolated(self._model, state, states[step + 1], fraction)
        model, data = self._model, self._data
        data.qpos[:], data.qvel[:] = np.split(state, [model.nq])
        mujoco.mj_forward(model, data)
        # Move floor and lights by whole periods of the pattern, so that the robot stays over them.
        shift = PERIOD * np.round(position / PERIOD)
        data.geom_xpos[floor_geoms(model), :2] += shift
        data.light_xpos[:, :2] += shift
        self._aim(path, position, self._family.goal_place(task))
        renderer.update_scene(data, self._camera)
        cast_no_shadow(renderer.scene)
        lookat, distance = self._camera.lookat, self._camera.distance
        half_width = self._view.slopes[0] * distance  # that the camera sees, m
        metres = range(
            math.ceil(lookat[0] - 1.2 * half_width), math.floor(lookat[0] + 1.2 * half_width) + 1
        )
        seconds = (step + fraction) * self._family.dt
        goal_markers = self._family.goal_markers(states[0], state, seconds, task)
        for marker in (*metre_markers(metres, position[1]), *goal_markers):
            marker.add_to(renderer.scene)
        labels = metre_labels(metres, position[1], math.ceil(LABEL_WIDTH * 2 * half_width))
        return self._view.with_labels(renderer.render(), labels, lookat, distance)

    def _aim(
        self, path: np.ndarray, position: np.ndarray, goal: tuple[float, float] | None
    ) -> None:
        """Turn the camera to a position on the robot's path, (t, 2), and to the goal."""
        camera = self._camera
        camera.lookat[:2], camera.distance = position, CAMERA_DISTANCE * self._radius
        if goal is not None:
            camera.lookat[:2] = (position + goal) / 2
            # As seen from the middle, the robot and the goal's foot and top at each of the steps.
            half = np.column_stack([path - goal, np.zeros(len(path))]) / 2
            foot, top = (-half + np.array([0, 0, z - camera.lookat[2]]) for z in (0, GOAL_HEIGHT))
            seen = (half, self._radius), (foot, GOAL_RADIUS), (top, 0.0)
            far = max(self._view.distance_to_see(centres, reach) for centres, reach in seen)
            camera.distance = max(camera.distance, far)

    def _path(self, states: np.ndarray) -> np.ndarray:
        """Return the camera's target at each of the states, (t, 2), m on the floor."""
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
            self._paths[key] = smoothed(centres, CAMERA_SMOOTHING / self._family.dt)
        return self._paths[key]

    def close(self) -> None:
        """Free the OpenGL context."""
        self._paths.clear()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def smoothed(path: np.ndarray, sigma: float) -> np.ndarray:
    """Return a path, (t, 2), filtered by a Gaussian of standard deviation `sigma`, steps.

    Beyond its ends the path goes on along lines fitted to its first and last 2 sigma, so that the
    result follows a steady movement there too.
    """
    from scipy.ndimage import gaussian_filter1d  # slow, and only videos need it

    reach = math.ceil(4 * sigma)  # where the filter is cut
    fitted, beyond = min(len(path), math.ceil(2 * sigma)), np.arange(1, reach + 1)
    if fitted < 2:
        return path.copy()

    def ahead(end: np.ndarray) -> np.ndarray:
        """Return the steps, (reach, 2), that follow the last ones, (fitted, 2)."""
        slope, last = np.polyfit(np.arange(1 - fitted, 1), end, 1)
        return last + slope * beyond[:, None]

    longer = np.concatenate([ahead(path[fitted - 1 :: -1])[::-1], path, ahead(path[-fitted:])])
    return gaussian_filter1d(longer, sigma, axis=0, truncate=4.0)[reach:-reach]


def interpolated(
    model: mujoco.MjModel, before: np.ndarray, after: np.ndarray, fraction: float
) -> np.ndarray:
    """Return the state, (nq + nv,), at a fraction of the way from one state to the next."""
    state, nq = before + fraction * (after - before), model.nq
    # Orientations are quaternions: interpolate by a constant rotation.
    velocity, position = np.empty(model.nv), before[:nq].copy()
    mujoco.mj_differentiatePos(model, velocity, 1.0, before[:nq], after[:nq])
    mujoco.mj_integratePos(model, position, velocity, fraction)
    state[:nq] = position
    return state
