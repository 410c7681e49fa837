"""Tracking by Weights & Biases (W&B), which can neither stop nor change the training.

All tracked data is in the run's folder too.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import queue
import re
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Protocol

import wandb

from metarl.core.errors import warn
from metarl.core.parsing import error_summary
from metarl.runs.run import Run

# Seconds. The environment variables WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT of W&B override
# START_TIMEOUT and FINISH_TIMEOUT.
START_TIMEOUT, CALL_TIMEOUT, FINISH_TIMEOUT = 15.0, 15.0, 60.0
HANG_TIMEOUT = 20.0  # added to timeouts of W&B itself before a call counts as hanging
EXIT_TIMEOUT = 2.0  # for W&B's process to exit


class Tracker(Protocol):
    """Receives the metrics and the files of a run."""

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Record the metrics of one iteration."""
        ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Record a table."""
        ...

    def image(self, name: str, path: Path) -> None:
        """Record an image file."""
        ...

    def video(self, name: str, path: Path) -> None:
        """Record a video file, .mp4 or .gif."""
        ...

    def artifact(self, name: str, path: Path) -> None:
        """Record a file as a new version of the artifact `name`."""
        ...

    def finish(self) -> None:
        """End the tracking; nothing more is recorded."""
        ...


class NullTracker:
    """Discards everything."""

    def log(self, metrics: Mapping[str, Any]) -> None: ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None: ...

    def image(self, name: str, path: Path) -> None: ...

    def video(self, name: str, path: Path) -> None: ...

    def artifact(self, name: str, path: Path) -> None: ...

    def finish(self) -> None: ...


class WandbTracker:
    """A W&B run whose files are in the run's folder."""

    def __init__(self, run: Run, mode: str, job: str) -> None:
        config = run.config
        self._run = wandb.init(
            dir=str(run.directory),
            mode=mode,  # pyright: ignore[reportArgumentType]
            project=config.tracking.project,
            entity=config.tracking.entity,
            name=run.directory.name,
            group=f"{config.env.name}/{config.method}",
            job_type=job,
            # Offline runs cannot be resumed; offline runs with equal ids are merged at their sync.
            # The agent of a sweep has assigned an id to its run already.
            id=None if "WANDB_SWEEP_ID" in os.environ else _run_id(run, job),
            resume="allow" if mode == "online" else None,
            config=config.to_dict(),
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=timeout_for("INIT", START_TIMEOUT),
                finish_timeout=timeout_for("FINISH", FINISH_TIMEOUT),
                finish_timeout_raises=True,
            ),
        )
        self._run.define_metric("env_steps")
        self._run.define_metric("*", step_metric="env_steps")

    def log(self, metrics: Mapping[str, Any]) -> None:
        self._run.log(dict(metrics))

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        self._run.log({name: wandb.Table(columns=[*columns], data=rows)})

    def image(self, name: str, path: Path) -> None:
        self._run.log({name: wandb.Image(str(path))})

    def video(self, name: str, path: Path) -> None:
        kind = "gif" if path.suffix == ".gif" else "mp4"
        self._run.log({name: wandb.Video(str(path), format=kind)})

    def artifact(self, name: str, path: Path) -> None:
        # W&B allows only these characters in an artifact's name.
        allowed = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{self._run.name}-{name}")
        artifact = wandb.Artifact(allowed, type=name)
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def finish(self) -> None:
        self._run.finish()


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
        run: the run. WANDB_MODE, if set, replaces the mode "auto" of its config.
        job: kind of work, which distinguishes several W&B runs of one folder.
    """
    mode = run.config.tracking.mode
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or mode
    if mode == "disabled":
        return NullTracker()
    return SafeTracker(lambda: _start(run, mode, job))


def _start(run: Run, mode: str, job: str) -> Tracker:
    # W&B would send reports of its errors to its developers, and print every failure to do so.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if mode == "auto":
        mode = "online" if _logged_in() else "offline"
    try:
        return WandbTracker(run, mode, job)
    except Exception as error:
        if mode == "offline":
            raise
        end_service()  # the running service would refuse a second run with the same id
        tracker = WandbTracker(run, "offline", job)
        reason = named_summary(error)
        warn_untracked(f"W&B is out of reach, so this run is tracked offline: {reason}")
        return tracker


def end_service() -> None:
    """End the processes of W&B, which may hang or wait for a server that does not answer."""
    services = _services()
    # `finish` first ends the threads that poll the process, which would otherwise print a traceback
    # when the process ends. It may block afterwards, so `teardown` does not wait for `finish`.
    ending = [_attempt(wandb.finish), _attempt(wandb.teardown)]
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


def named_summary(error: BaseException) -> str:
    """Return the type and the message of an error on one line."""
    return f"{type(error).__name__}: {error_summary(error)}"


def warn_untracked(message: str) -> None:
    """Print a warning about metrics or files that are not sent to W&B."""
    warn(f"{message} (metrics.jsonl and the checkpoints hold everything)")


def _logged_in() -> bool:
    return wandb.login(prompt=False, verify=False)


def _run_id(run: Run, job: str) -> str:
    """Return a W&B id that is equal at all resumptions of a run, and different for other runs."""
    started = (run.directory / "provenance.json").read_bytes()
    key = f"{run.directory.resolve()} {job}".encode() + started
    return hashlib.sha256(key).hexdigest()[:12]
