"""Handling of SIGINT and SIGTERM: training stops at the end of an iteration."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals(
    notice: str = "finishing the iteration, then saving; once more to stop at once",
) -> Iterator[list[int]]:
    """Record SIGINT and SIGTERM in the block; a second signal ends the process.

    Outside the main thread no signals are recorded.

    Args:
        notice: printed at the first signal.

    Yields:
        The list of received signals, which grows.
    """
    received: list[int] = []

    def record(number: int, frame: FrameType | None) -> None:
        received.append(number)
        print(f"\n{notice}", flush=True)
        for again in previous:
            signal.signal(again, signal.SIG_DFL)

    try:
        previous = {number: signal.signal(number, record) for number in STOP_SIGNALS}
    except ValueError:  # Python allows signal handlers in the main thread only
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
