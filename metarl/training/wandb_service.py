"""The process that Weights & Biases (W&B) works in: its timeouts and its end."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import wandb

# Seconds. The environment variables WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT of W&B override
# START_TIMEOUT and FINISH_TIMEOUT.
START_TIMEOUT, CALL_TIMEOUT, FINISH_TIMEOUT = 15.0, 15.0, 60.0
HANG_TIMEOUT = 20.0  # added to timeouts of W&B itself before a call counts as hanging
EXIT_TIMEOUT = 2.0  # for W&B's process to exit
OPEN: list[wandb.Run] = []
"""The W&B runs of this process that trackers have begun and not ended."""


def timeout_for(step: str, default: float) -> float:
    """Return the timeout of W&B for a step, in seconds: WANDB_<step>_TIMEOUT if set, or `default`.

    Args:
        step: "INIT" or "FINISH".
        default: the timeout if the environment variable is not set, or is not a usable number.
    """
    with contextlib.suppress(KeyError, ValueError):
        seconds = float(os.environ[f"WANDB_{step}_TIMEOUT"])
        if 0 < seconds < threading.TIMEOUT_MAX - HANG_TIMEOUT:
            return seconds
    return default


def end_service() -> None:
    """End the processes of W&B, which may hang or wait for a server that does not answer."""
    services = _services()
    # `finish` first ends the threads that poll the process, which would otherwise print a traceback
    # when the process ends. It may block afterwards, so `teardown` does not wait for `finish`.
    ending = [_attempt(run.finish) for run in OPEN]
    OPEN.clear()
    ending += [_attempt(wandb.finish), _attempt(wandb.teardown)]
    for service in services:
        service.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.wait(EXIT_TIMEOUT)
    for thread in ending:
        thread.join(EXIT_TIMEOUT)


def _attempt(call: Callable[[], Any]) -> threading.Thread:
    """Make a call in a new thread, and return the thread after at most `EXIT_TIMEOUT` seconds."""

    def attempt() -> None:
        with contextlib.suppress(BaseException):
            call()

    thread = threading.Thread(target=attempt, name="metarl-tracking-end", daemon=True)
    thread.start()
    thread.join(EXIT_TIMEOUT)
    return thread


def _services() -> list[subprocess.Popen]:
    """Return the running child processes that W&B has started.

    W&B has no public attribute for these processes, and does not wait for a process that was killed
    from outside, so they are found among all Python objects.
    """
    processes = [each for each in gc.get_objects() if type(each) is subprocess.Popen]
    return [each for each in processes if "wandb-core" in str(each.args) and each.poll() is None]
