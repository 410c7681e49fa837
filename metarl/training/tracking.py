"""Tracking by Weights & Biases (W&B), which can neither stop nor change the training.

All tracked data is in the run's folder too.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import wandb

from metarl.core.errors import warn
from metarl.core.parsing import error_summary
from metarl.runs.run import Run
from metarl.training.tracker import NullTracker, Tracker
from metarl.training.tracking_environment import tracking_mode
from metarl.training.wandb_service import (
    CALL_TIMEOUT,
    FINISH_TIMEOUT,
    HANG_TIMEOUT,
    START_TIMEOUT,
    end_service,
    timeout_for,
)
from metarl.training.wandb_tracker import WandbTracker

__all__ = ["NullTracker", "SafeTracker", "Tracker", "end_service", "start_tracker"]


class SafeTracker:
    """A tracker whose calls neither raise nor block for long.

    Calls are made in a separate thread. After the first call that raises an error or exceeds its
    timeout, one warning is printed and no further call is made.
    """

    def __init__(self, start: Callable[[], Tracker]) -> None:
        """Start the thread, and make the tracker in it by calling `start`."""
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future] | None]
        self._calls = queue.SimpleQueue()
        self._tracker: Tracker = NullTracker()
        self._ended = False
        # A daemon thread does not keep the process alive: a call may never return.
        threading.Thread(target=self._work, name="metarl-tracking", daemon=True).start()

        def begin() -> None:
            self._tracker = start()

        self._call(begin, timeout_for("INIT", START_TIMEOUT) + HANG_TIMEOUT)

    def _work(self) -> None:
        while item := self._calls.get():
            call, outcome = item
            try:
                outcome.set_result(call())
            except BaseException as error:  # W&B may even raise SystemExit
                outcome.set_exception(error)

    def _call(self, call: Callable[[], Any], seconds: float = CALL_TIMEOUT) -> None:
        if self._ended:
            return
        outcome: Future = Future()
        self._calls.put((call, outcome))
        wait([outcome], seconds)
        reason = None if outcome.done() else f"no answer for {seconds:g} s"
        if outcome.done() and (error := outcome.exception()) is not None:
            reason = named_summary(error)
        if reason is not None:
            self._end()
            warn_untracked(f"W&B failed, and this run is no longer tracked: {reason}")
            end_service()

    def _end(self) -> None:
        self._ended = True
        self._calls.put(None)

    def log(self, metrics: Mapping[str, Any]) -> None:
        self._call(lambda: self._tracker.log(metrics))

    def scalars(self, values: Mapping[str, float]) -> None:
        self._call(lambda: self._tracker.scalars(values))

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        self._call(lambda: self._tracker.table(name, columns, rows))

    def image(self, name: str, path: Path) -> None:
        self._call(lambda: self._tracker.image(name, path))

    def video(self, name: str, path: Path) -> None:
        self._call(lambda: self._tracker.video(name, path))

    def artifact(self, name: str, path: Path) -> None:
        self._call(lambda: self._tracker.artifact(name, path))

    def finish(self) -> None:
        self._call(
            lambda: self._tracker.finish(), timeout_for("FINISH", FINISH_TIMEOUT) + HANG_TIMEOUT
        )
        self._end()


def start_tracker(run: Run, job: str = "train") -> Tracker:
    """Start tracking as the run's config says.

    Errors of W&B are not raised: one warning reports the first, and the run continues without W&B.

    Args:
        run: the run. WANDB_MODE, if set, replaces the mode of its config.
        job: kind of work, which distinguishes several W&B runs of one folder.

    Raises:
        UserError: if WANDB_MODE is no mode.
    """
    mode = tracking_mode(run.config.tracking.mode)
    if mode == "disabled":
        return NullTracker()
    tracker = SafeTracker(lambda: _start(run, mode, job))
    if job == "train":
        # W&B may lack iterations that it was not sent, or that it did not write before `kill -9`.
        for metrics, timings in zip(run.metrics(), run.timings(), strict=False):
            tracker.log(tracked(metrics, timings))
    return tracker


def tracked(metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is tracked of one iteration: its metrics and timings that have a value."""
    return {name: each for name, each in {**metrics, **timings}.items() if each is not None}


def _start(run: Run, mode: str, job: str) -> Tracker:
    # W&B would send reports of its errors to its developers, and print every failure to do so.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if mode == "auto":
        mode = "online" if _logged_in() else "offline"
    try:
        tracker = WandbTracker(run, mode, job)
    except Exception as error:
        if mode == "offline":
            raise
        end_service()  # the running service would refuse a second run with the same id
        tracker = WandbTracker(run, "offline", job)
        reason = named_summary(error)
        warn_untracked(f"W&B is out of reach, so this run is tracked offline: {reason}")
    print(tracker.status, flush=True)
    return tracker


def named_summary(error: BaseException) -> str:
    """Return the type and the message of an error on one line."""
    return f"{type(error).__name__}: {error_summary(error)}"


def warn_untracked(message: str) -> None:
    """Print a warning about metrics or files that are not sent to W&B."""
    warn(f"{message} (metrics.jsonl and the checkpoints hold everything)")


def _logged_in() -> bool:
    return wandb.login(prompt=False, verify=False)
