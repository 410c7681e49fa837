"""The interface of everything that tracks a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from metarl.runs.logs import VALIDATION

AXES = ("iteration", "env_steps")
"""Metrics without a section: what charts have on their x axis."""
TIMINGS = ("seconds", "env_steps_per_second")


class Tracker(Protocol):
    """Receives the metrics and the files of a run.

    A class of the user's is called with the run and the kind of work: `train`, `evaluate`, `render`
    or `report`.
    """

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Record the metrics and timings of one iteration. A training that goes on first records
        all iterations so far again, so what is recorded is complete if a tracker begins anew."""
        ...

    def scalars(self, values: Mapping[str, float]) -> None:
        """Record numbers under their names as they are."""
        ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Record a table."""
        ...

    def image(self, name: str, path: Path) -> None:
        """Record an image file."""
        ...

    def video(self, name: str, path: Path) -> None:
        """Record a video file, .mp4 or .gif."""
        ...

    def artifact(self, name: str, path: Path) -> None:
        """Record a file as a new version of the artifact `name`."""
        ...

    def finish(self) -> None:
        """End the tracking; nothing more is recorded."""
        ...


class NullTracker:
    """Discards everything: the base of trackers that record something."""

    def log(self, metrics: Mapping[str, Any]) -> None: ...

    def scalars(self, values: Mapping[str, float]) -> None: ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None: ...

    def image(self, name: str, path: Path) -> None: ...

    def video(self, name: str, path: Path) -> None: ...

    def artifact(self, name: str, path: Path) -> None: ...

    def finish(self) -> None: ...


def in_section(name: str) -> str:
    """Return the name of a metric in charts: `time/...`, `train/...`, `validation/...`, or an axis
    without a section."""
    if name in AXES or name.startswith(VALIDATION):
        return name
    if name in TIMINGS:
        return f"time/{name}"
    part = name.removeprefix("seconds/")
    return f"train/{name}" if part == name else f"time/{part}"
