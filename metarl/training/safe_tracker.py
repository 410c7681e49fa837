"""A tracker that can neither stop nor change the training."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.core.errors import warn
from metarl.core.parsing import error_summary
from metarl.training.tracker import NullTracker, Tracker

CALL_TIMEOUT = 15.0


@dataclass(frozen=True)
class Limits:
    """The seconds that calls of a tracker may take: its start, its end, and any other."""

    start: float = 60.0
    finish: float = 60.0
    call: float = CALL_TIMEOUT


class SafeTracker:
    """A tracker whose calls neither raise nor block for long.

    Calls are made in a separate thread. After the first call that raises an error or exceeds its
    timeout, one warning is printed and no further call is made.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Tracker],
        limits: Limits | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the thread, and make the tracker in it.

        Args:
            name: the name of the tracker in the warning.
            start: makes the tracker.
            limits: the timeouts.
            on_failure: called after the warning.
        """
        self._name, self._limits, self._on_failure = name, limits or Limits(), on_failure
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future] | None]
        self._calls = queue.SimpleQueue()
        self._tracker: Tracker = NullTracker()
        self._ended = False
        # A daemon thread does not keep the process alive: a call may never return.
        threading.Thread(target=self._work, name="metarl-tracking", daemon=True).start()

        def begin() -> None:
            self._tracker = start()

        self._call(begin, self._limits.start)

    def _work(self) -> None:
        while item := self._calls.get():
            call, outcome = item
            try:
                outcome.set_result(call())
            except BaseException as error:  # W&B even raises SystemExit
                outcome.set_exception(error)

    def _call(self, call: Callable[[], Any], seconds: float | None = None) -> None:
        if self._ended:
            return
        seconds = self._limits.call if seconds is None else seconds
        outcome: Future = Future()
        self._calls.put((call, outcome))
        wait([outcome], seconds)
        reason = None if outcome.done() else f"no answer for {seconds:g} s"
        if outcome.done() and (error := outcome.exception()) is not None:
            reason = named_summary(error)
        if reason is not None:
            self._end()
            warn_untracked(f"{self._name} failed, and no longer tracks this run: {reason}")
            self._on_failure()

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
        self._call(lambda: self._tracker.finish(), self._limits.finish)
        self._end()


def named_summary(error: BaseException) -> str:
    """Return the type and the message of an error on one line."""
    return f"{type(error).__name__}: {error_summary(error)}"


def warn_untracked(message: str) -> None:
    """Print a warning about metrics or files that are not tracked."""
    warn(f"{message} (the files hold everything)")
