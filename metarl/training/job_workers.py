"""Processes that work for this one: they stop when they are told to, and do not outlive it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from metarl.training.signals import obeyed

_at_work = threading.Lock()


class Worker:
    """A process that makes calls one after another.

    A signal at the keyboard reaches it too, where only its parent counts, which says when to stop.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        orders, self._orders = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, follow, (orders,))
        self._received, self._told = orders, False

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Begin a call.

        Raises:
            BrokenProcessPool: if the process was lost since its last call.
        """
        return self._pool.submit(work, function, *args)

    def stop(self, number: int) -> None:
        """Say that a signal came. The blocks of `stop_signals` in the process have it then."""
        if not self._told:
            self._told = True
            with contextlib.suppress(OSError):  # it was lost
                self._orders.send(number)

    def close(self) -> None:
        """Wait for the end of the call under way, and end the process."""
        self._pool.shutdown(cancel_futures=True)
        self._orders.close()
        self._received.close()


def follow(orders: Connection) -> None:
    """Set up a process whose signals come through a pipe."""
    threading.Thread(target=obey, args=(orders, obeyed()), daemon=True).start()


def obey(orders: Connection, received: list[int]) -> None:
    """Record the signals in a pipe. At its end, which is that of the parent, end the process: after
    the call under way, which is told to stop, or at once if it has been told before."""
    try:
        while True:
            received.append(orders.recv())
    except (EOFError, OSError):
        if received:
            os._exit(1)
        received.append(signal.SIGTERM)
        with _at_work:
            os._exit(1)


def work(function: Callable[..., Any], *args: Any) -> Any:
    """Make a call, before whose end the process does not follow its parent's."""
    with _at_work:
        return function(*args)
