"""Tracking by the commands that work with a run that is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def check_tracking(directory: Path, overrides: dict[str, Any]) -> None:
    """Check the environment's variables of tracking, and the trackers that are given by flags.
    Those of the run's own config, which may come from another machine, are tried after the work.

    Raises:
        UserError: if a value is not valid; names it.
    """
    from metarl.training.tracking import check_trackers
    from metarl.training.tracking_environment import check_environment

    check_environment()
    if any(key.startswith("tracking.") for key in overrides):
        check_trackers(run_to_track(directory, overrides).config)


def run_to_track(directory: Path, overrides: dict[str, Any]) -> Any:
    """Open a run whose evaluation or video is tracked: with its own config, by which it is grouped,
    except for new values of `tracking`."""
    from metarl.runs.run import Run

    return Run.open(directory, **{k: v for k, v in overrides.items() if k.startswith("tracking.")})
