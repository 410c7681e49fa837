"""The trackers of a run, as its config says. None of them can stop or change the training.

All tracked data is in the run's folder too.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.config import Config
from metarl.core.errors import ConfigError, check_arguments
from metarl.envs.registry import import_object
from metarl.runs.run import Run
from metarl.training.safe_tracker import SafeTracker
from metarl.training.tracker import NullTracker, Tracker
from metarl.training.tracking_environment import check_environment, check_project, tracking_mode

KEY = "tracking.trackers"
METHODS = ("log", "scalars", "table", "image", "video", "artifact", "finish")


def start_tracker(run: Run, job: str = "train") -> Tracker:
    """Start tracking as the run's config says.

    Errors of trackers are not raised: one warning reports the first of each, and the run continues
    without this tracker.

    Args:
        run: the run. WANDB_MODE, if set, replaces the mode of its config.
        job: kind of work: `train`, `evaluate`, `render` or `report`.

    Raises:
        UserError: if WANDB_MODE is no mode.
    """
    mode = tracking_mode(run.config.tracking.mode)
    names = [name for name in run.config.tracking.trackers if (name, mode) != ("wandb", "disabled")]
    if not names:
        return NullTracker()
    trackers = Trackers([start_named(name, run, mode, job) for name in names])
    if job == "train":
        # A tracker may lack iterations that it had not written before `kill -9`.
        for metrics, timings in zip(run.metrics(), run.timings(), strict=False):
            trackers.log(tracked(metrics, timings))
    return trackers


def start_named(name: str, run: Run, mode: str, job: str) -> SafeTracker:
    """Start one tracker of `tracking.trackers`."""
    if name == "wandb":
        from metarl.training.wandb_start import safe_wandb  # W&B takes a second to import

        return safe_wandb(run, mode, job)
    return SafeTracker(name, lambda: tracker_class(name)(run, job))


def tracker_class(name: str) -> Any:
    """Return the class of a tracker other than `wandb`.

    Raises:
        ConfigError: if it cannot be imported, or is no tracker; names the key.
    """
    if name == "csv":
        from metarl.training.csv_tracker import CSVTracker

        return CSVTracker
    if name == "tensorboard":
        try:
            importlib.import_module("tensorboard")
        except ImportError as error:
            raise ConfigError(
                f"{KEY}: tensorboard needs the extra `tensorboard`: "
                'pip install "metarl-torch[tensorboard]"; or choose csv'
            ) from error
        from metarl.training.tensorboard_tracker import TensorBoardTracker

        return TensorBoardTracker
    try:
        found = import_object(name)
    except ValueError as error:
        raise ConfigError(f"{KEY}: {error}") from error
    missing = [each for each in METHODS if not callable(getattr(found, each, None))]
    if not isinstance(found, type) or missing:
        lacks = f"; it does not define {', '.join(missing)}" if isinstance(found, type) else ""
        raise ConfigError(
            f"{KEY}: {name}: expected a class derived from "
            f"metarl.training.tracker.NullTracker{lacks}"
        )
    check_arguments(KEY, name, found, ("run", "job"))
    return found


def check_trackers(config: Config) -> None:
    """Check that the trackers of a config can be made, before the work begins.

    Raises:
        ConfigError: if one cannot be imported, or is no tracker, or W&B refuses the name of the
            project; names it.
        UserError: as `check_environment`.
    """
    mode = tracking_mode(config.tracking.mode)
    for name in config.tracking.trackers:
        if name != "wandb":
            tracker_class(name)
        elif mode != "disabled":
            check_environment()
            check_project(config.tracking.project)


def tracked(metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is tracked of one iteration: its metrics and timings that have a value."""
    return {name: each for name, each in {**metrics, **timings}.items() if each is not None}


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def log(self, metrics: Mapping[str, Any]) -> None:
        for each in self._trackers:
            each.log(dict(metrics))  # which may change its own

    def scalars(self, values: Mapping[str, float]) -> None:
        for each in self._trackers:
            each.scalars(dict(values))

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        for each in self._trackers:
            each.table(name, list(columns), [list(row) for row in rows])

    def image(self, name: str, path: Path) -> None:
        for each in self._trackers:
            each.image(name, path)

    def video(self, name: str, path: Path) -> None:
        for each in self._trackers:
            each.video(name, path)

    def artifact(self, name: str, path: Path) -> None:
        for each in self._trackers:
            each.artifact(name, path)

    def finish(self) -> None:
        for each in self._trackers:
            each.finish()
