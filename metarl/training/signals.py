"""Stopping at the end of an iteration, when a signal asks to."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that an iteration is finished and saved; a second one kills.

    Yields:
        The signals that came.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        print("\nfinishing the iteration, then saving; once more to stop at once", flush=True)
        for again in previous:
            signal.signal(again, signal.SIG_DFL)

    try:
        previous = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    except ValueError:  # not in the main thread, where Python does not allow handlers
        yield came
        return
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
