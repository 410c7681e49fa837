"""Drawing episodes: what every kind of scene has in common."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np


class Scene(Protocol):
    """Draws episodes, at whole control steps and between them."""

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the picture of an episode at a moment, (height, width, 3) uint8.

        Args:
            states: what is known of the episode, one state per control step, (t, k). Those after
                the moment do not show, but a camera may look ahead.
            task: (task_dim,).
            time: the moment, in control steps since the beginning, from 0 to t - 1 and not always
                whole; by default the last state's. A scene that has nothing to show between two
                states shows the earlier one.
        """
        ...

    def close(self) -> None:
        """Free what drawing holds."""
        ...


def moment(states: np.ndarray, time: float | None) -> tuple[int, float]:
    """Return the last state at or before a moment, and which share of the way to the next is gone.

    Raises:
        ValueError: if the states, (t, k), do not reach as far.
    """
    last = len(states) - 1
    if time is None:
        return last, 0.0
    if not 0 <= time <= last:
        raise ValueError(f"time: expected from 0 to {last}, the last of the states, got {time}")
    return math.floor(time), time % 1
