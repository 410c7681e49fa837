"""Rendering of episodes: the interface of every family's renderer."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from metarl.envs.errors import located


class RenderingUnavailable(RuntimeError):
    """The family cannot be rendered on this machine; the message says why."""


class RendererFailed(RuntimeError):
    """A family's renderer raised an error; the message, one line, gives its place."""


class Renderer(Protocol):
    """Renders an episode at and between its control steps."""

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the image of an episode at a point in time, (height, width, 3) uint8.

        Args:
            states: the render states of the episode, one per control step, (t, k). States after
                `time` are not shown, but a camera may look ahead.
            task: (task_dim,).
            time: control steps since the beginning, from 0 to t - 1, not necessarily whole; by
                default t - 1. A renderer that cannot interpolate shows the earlier state.

        Raises:
            RenderingUnavailable: if this machine cannot render the family.
            ValueError: if `time` is out of range.
        """
        ...

    def close(self) -> None:
        """Free the resources of the renderer."""
        ...


@contextlib.contextmanager
def drawing(family: str) -> Iterator[None]:
    """Turn any error of a family's renderer, which may be a user's own, into one of one line.

    Args:
        family: the name of the family in the message.

    Raises:
        RenderingUnavailable: if the block does.
        RendererFailed: if the block raises any other error.
    """
    try:
        yield
    except RenderingUnavailable:
        raise
    except Exception as error:
        raise RendererFailed(f"the renderer of {family} raised {located(error)}") from error


@contextlib.contextmanager
def without_glfw_warnings() -> Iterator[None]:
    """Leave out GLFW's warnings, that there is no display: the error of the renderer follows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="glfw")
        yield


def frame_at(states: np.ndarray, time: float | None) -> tuple[int, float]:
    """Return the index of the last state at or before a time, and the fraction of a step after it.

    Args:
        states: one per control step, (t, k).
        time: in control steps; None for that of the last state.

    Raises:
        ValueError: if `time` is not between 0 and t - 1.
    """
    last = len(states) - 1
    if time is None:
        return last, 0.0
    if not 0 <= time <= last:
        raise ValueError(f"time: expected from 0 to {last}, the last of the states, got {time}")
    return math.floor(time), time % 1
