"""Offscreen rendering of MuJoCo models, with or without a display."""

from __future__ import annotations

import copy
import os
import sys

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context


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


class MujocoScene:
    """Draws a model in a given state. A state is qpos and qvel, (nq + nv,)."""

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._renderer = make_renderer(model, width, height)

    def draw(self, states: np.ndarray, task: np.ndarray) -> np.ndarray:
        """Return the picture of the last of the states, (t, nq + nv)."""
        nq = self._model.nq
        self._data.qpos[:], self._data.qvel[:] = states[-1][:nq], states[-1][nq:]
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, camera="track")
        return self._renderer.render()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()
