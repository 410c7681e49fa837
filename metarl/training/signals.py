"""Handling of SIGINT, SIGTERM and SIGHUP: training stops at the end of an iteration."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
HANGUP = getattr(signal, "SIGHUP", None)  # the terminal was closed; not on Windows
NOTICE = "finishing the iteration, then saving; once more to stop at once"
STDERR = 2

_received: list[int] | None = None
"""The list of the block that records signals now; None outside all of them."""


@contextmanager
def stop_signals(
    notice: str = NOTICE,
) -> Iterator[list[int]]:
    """Record SIGINT, SIGTERM and SIGHUP in the block; a second signal ends the process, unless it
    is SIGHUP. Where SIGHUP is ignored, as with nohup, it stays so.

    A block in another one has its list. Outside the main thread no signals are recorded.

    Args:
        notice: written to stderr at the first signal.

    Yields:
        The list of received signals, which grows.
    """
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield []  # Python allows signal handlers in the main thread only
        return
    if _received is not None:
        yield _received
        return
    received = _received = []

    def record(number: int, frame: FrameType | None) -> None:
        received.append(number)
        tell(notice)
        for again in previous:
            signal.signal(again, signal.SIG_IGN if again == HANGUP else signal.SIG_DFL)

    previous = {number: signal.signal(number, record) for number in heeded()}
    try:
        yield received
    finally:
        _received = None
        for number, handler in previous.items():
            signal.signal(number, handler)


def obeyed() -> list[int]:
    """Return the list of the signals for all blocks of this process, which another process fills:
    from now on, those that come directly have no effect here."""
    global _received
    for number in heeded():
        signal.signal(number, lambda *_: None)  # processes that this one starts do not inherit it
    _received = []
    return _received


def heeded() -> list[signal.Signals]:
    """Return the signals that stop a training here."""
    hangup = [HANGUP] if HANGUP and signal.getsignal(HANGUP) != signal.SIG_IGN else []
    return [*STOP_SIGNALS, *hangup]


def tell(notice: str) -> None:
    """Write a line to stderr, whose reader may have ended by the same signal."""
    with contextlib.suppress(OSError):
        os.write(STDERR, f"\n{notice}\n".encode())
