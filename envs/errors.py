"""Errors of task families, and errors of a family's own code, told on one line."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

import numpy as np


class TaskError(ValueError):
    """A task that is in no task set of its family."""


class SimulationDiverged(RuntimeError):
    """Some episodes reached a state that is not finite or that the physics engine gave up on.

    Attributes:
        ids: the episodes, (n,) integers into the batch.
        reason: the cause of the divergence.
        result: the results of the step, with which the other episodes can continue; the rows of
            diverged episodes are undefined. None if unknown: then no episode can continue.
    """

    def __init__(
        self,
        ids: np.ndarray,
        reason: str,
        result: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.ids = np.asarray(ids)
        self.reason = reason
        self.result = result
        super().__init__(f"episodes {self.ids.tolist()} of the batch diverged: {reason}")


def first_line(message: object) -> str:
    """Return the first line of a message, without the colours of a terminal."""
    plain = re.sub(r"\x1b\[\d+m", "", str(message))
    return plain.strip().partition("\n")[0]


def located(error: Exception) -> str:
    """Return the type, the first line and the place of an error that was caught.

    The place is the innermost one outside Python's library and installed packages; the innermost of
    all if everything is installed, the family too. If the message has a traceback, as that of
    another process, it is the innermost one there.
    """
    frames = traceback.extract_tb(error.__traceback__)
    installed = ("site-packages", sysconfig.get_path("stdlib"), "<frozen")
    own = [each for each in frames if not any(part in each.filename for part in installed)]
    frame = (own or frames)[-1]
    place = frame.filename, frame.lineno, frame.name
    if told := re.findall(r'File "(.+)", line (\d+), in (\S+)', str(error)):
        place = told[-1]
    place = f"{Path(place[0]).name}, line {place[1]}, in {place[2]}"
    return f"{type(error).__name__}: {first_line(error)} ({place})"
