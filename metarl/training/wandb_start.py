"""The start of tracking by Weights & Biases (W&B)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import wandb

from metarl.runs.run import Run
from metarl.training.safe_tracker import Limits, SafeTracker, named_summary, warn_untracked
from metarl.training.tracker import Tracker
from metarl.training.wandb_service import (
    CALL_TIMEOUT,
    FINISH_TIMEOUT,
    HANG_TIMEOUT,
    START_TIMEOUT,
    end_service,
    timeout_for,
)
from metarl.training.wandb_tracker import WandbTracker


def safe_wandb(run: Run, mode: str, job: str) -> SafeTracker:
    """Start tracking by W&B; a failure ends its processes.

    Args:
        run: the run.
        mode: `auto`, `online` or `offline`.
        job: the kind of work, see `metarl.training.tracking.start_tracker`.
    """
    limits = Limits(
        start=timeout_for("INIT", START_TIMEOUT) + HANG_TIMEOUT,
        finish=timeout_for("FINISH", FINISH_TIMEOUT) + HANG_TIMEOUT,
        call=CALL_TIMEOUT,
    )
    return SafeTracker("W&B", lambda: start_wandb(run, mode, job), limits, end_service)


def start_wandb(run: Run, mode: str, job: str) -> Tracker:
    """Start a W&B run, offline if `mode` is another one and the server is out of reach, and print
    how it is tracked."""
    # W&B would send reports of its errors to its developers, and print every failure to do so.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    use_folders_of(run.directory)
    try:
        if mode == "auto":
            mode = "online" if _logged_in() else "offline"
        tracker = WandbTracker(run, mode, job)
    except Exception as error:
        if mode == "offline":
            raise
        end_service()  # the running service would refuse a second run with the same id
        tracker = WandbTracker(run, "offline", job)
        reason = named_summary(error)
        warn_untracked(f"W&B is out of reach, so this run is tracked offline: {reason}")
    with contextlib.suppress(OSError):  # of standard output, not of W&B
        print(tracker.status, flush=True)
    return tracker


def use_folders_of(directory: Path) -> None:
    """Let W&B keep its own files in a run's folder where the home folder cannot be written, such as
    that of a container's user. There it keeps the artifacts of offline runs until they are sent."""
    if os.access(os.path.expanduser("~"), os.W_OK):  # Path.home fails for a user without one
        return
    for name in ("DATA", "CACHE", "CONFIG"):
        folder = directory.absolute() / "wandb" / f".{name.lower()}"
        os.environ.setdefault(f"WANDB_{name}_DIR", str(folder))


def _logged_in() -> bool:
    return wandb.login(prompt=False, verify=False)
