"""Handling of SIGINT, SIGTERM and SIGHUP: training stops at the end of an iteration."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
HANGUP = getattr(signal, "SIGHUP", None)  # the terminal was closed; not on Windows
STDERR = 2


@contextmanager
def stop_signals(
    notice: str = "finishing the iteration, then saving; once more to stop at once",
) -> Iterator[list[int]]:
    """Record SIGINT, SIGTERM and SIGHUP in the block; a second signal ends the process, unless it
    is SIGHUP. Where SIGHUP is ignored, as with nohup, it stays so.

    Outside the main thread no signals are recorded.

    Args:
        notice: written to stderr at the first signal.

    Yields:
        The list of received signals, which grows.
    """
    received: list[int] = []

    def record(number: int, frame: FrameType | None) -> None:
        received.append(number)
        tell(notice)
        for again in previous:
            signal.signal(again, signal.SIG_IGN if again == HANGUP else signal.SIG_DFL)

    try:
        previous = {number: signal.signal(number, record) for number in heeded()}
    except ValueError:  # Python allows signal handlers in the main thread only
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def heeded() -> list[signal.Signals]:
    """Return the signals that stop a training here."""
    hangup = [HANGUP] if HANGUP and signal.getsignal(HANGUP) != signal.SIG_IGN else []
    return [*STOP_SIGNALS, *hangup]


def tell(notice: str) -> None:
    """Write a line to stderr, whose reader may have ended by the same signal."""
    with contextlib.suppress(OSError):
        os.write(STDERR, f"\n{notice}\n".encode())
