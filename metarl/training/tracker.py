"""The interface of everything that tracks a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Receives the metrics and the files of a run."""

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Record the metrics of one iteration."""
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
    """Discards everything."""

    def log(self, metrics: Mapping[str, Any]) -> None: ...

    def scalars(self, values: Mapping[str, float]) -> None: ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None: ...

    def image(self, name: str, path: Path) -> None: ...

    def video(self, name: str, path: Path) -> None: ...

    def artifact(self, name: str, path: Path) -> None: ...

    def finish(self) -> None: ...
