"""Weights & Biases. What it does not get is still in the run's folder."""

from __future__ import annotations

import contextlib
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
from wandb.sdk import wandb_setup

from metarl.core.errors import warn
from metarl.runs.run import Run

# Seconds that W&B may take. Variables of its own override those for the start and the end.
START, CALL, END = 15.0, 15.0, 60.0
GRACE = 20.0  # beyond its own limits, until it counts as hanging
FAREWELL = 2.0  # for its process to end


class Tracker(Protocol):
    """What receives a run's metrics and files."""

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Take the metrics of one iteration."""
        ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Take a table."""
        ...

    def image(self, name: str, path: Path) -> None:
        """Take a picture."""
        ...

    def video(self, name: str, path: Path) -> None:
        """Take a film, .mp4 or .gif."""
        ...

    def artifact(self, name: str, path: Path) -> None:
        """Take a file, as a version of the artifact of that name."""
        ...

    def finish(self) -> None:
        """Say that nothing more will come."""
        ...


class NullTracker:
    """Receives nothing."""

    def log(self, metrics: Mapping[str, Any]) -> None: ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None: ...

    def image(self, name: str, path: Path) -> None: ...

    def video(self, name: str, path: Path) -> None: ...

    def artifact(self, name: str, path: Path) -> None: ...

    def finish(self) -> None: ...


class WandbTracker:
    """A W&B run whose files lie in the run's folder."""

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
            # Offline runs cannot be resumed; those of one id are merged when they are synced.
            # A sweep's agent has given its run an id already.
            id=None if "WANDB_SWEEP_ID" in os.environ else _run_id(run, job),
            resume="allow" if mode == "online" else None,
            config=config.to_dict(),
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=patience("INIT", START),
                finish_timeout=patience("FINISH", END),
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


class Guarded:
    """A tracker that can harm nothing: neither by an exception nor by never coming back.

    Another thread makes its calls. After the first that fails, or takes longer than it may, there
    is one warning and no further call.
    """

    def __init__(self, start: Callable[[], Tracker]) -> None:
        """Begin: `start` makes the tracker."""
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future] | None]
        self._calls = queue.SimpleQueue()
        self._tracker: Tracker = NullTracker()
        self._ended = False
        # A daemon, which does not keep the process alive: a call may never come back.
        threading.Thread(target=self._work, name="metarl-tracking", daemon=True).start()

        def begin() -> None:
            self._tracker = start()

        self._call(begin, patience("INIT", START) + GRACE)

    def _work(self) -> None:
        while item := self._calls.get():
            call, outcome = item
            try:
                outcome.set_result(call())
            except BaseException as error:  # W&B may even raise SystemExit
                outcome.set_exception(error)

    def _call(self, call: Callable[[], Any], seconds: float = CALL) -> None:
        if self._ended:
            return
        outcome: Future = Future()
        self._calls.put((call, outcome))
        wait([outcome], seconds)
        error = outcome.exception() if outcome.done() else f"no answer for {seconds:g} s"
        if error is not None:
            self._end()
            lost(f"W&B failed, and this run is no longer tracked: {brief(error)}")
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
        self._call(lambda: self._tracker.finish(), patience("FINISH", END) + GRACE)
        self._end()


def start_tracker(run: Run, job: str = "train") -> Tracker:
    """Begin tracking as the run's config says.

    Nothing of it raises: what W&B cannot do is said in one warning, and the run goes on without.
    """
    mode = run.config.tracking.mode
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or mode
    if mode == "disabled":
        return NullTracker()
    return Guarded(lambda: _start(run, mode, job))


def _start(run: Run, mode: str, job: str) -> Tracker:
    # W&B reports its own errors home, and where that fails prints each failure.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if mode == "auto":
        mode = "online" if _logged_in() else "offline"
    try:
        return WandbTracker(run, mode, job)
    except Exception as error:
        if mode == "offline":
            raise
        end_service()  # which would refuse a second run of this id
        tracker = WandbTracker(run, "offline", job)
        lost(f"W&B is out of reach, so this run is tracked offline: {brief(error)}")
        return tracker


def end_service() -> None:
    """End W&B's own process: it may hang, or wait at our end for a server that never answers."""
    connection = getattr(wandb_setup.singleton(), "_connection", None)
    process = getattr(getattr(connection, "_proc", None), "_process", None)
    checker = getattr(wandb.run, "_run_status_checker", None)

    def end() -> None:
        with contextlib.suppress(BaseException):
            if checker is not None:  # a thread, which would miss the process with a traceback
                checker.stop()
        with contextlib.suppress(BaseException):
            wandb.teardown()

    ending = threading.Thread(target=end, name="metarl-tracking-end", daemon=True)
    ending.start()
    ending.join(FAREWELL)
    if process is not None and process.poll() is None:
        process.kill()
        ending.join(FAREWELL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(FAREWELL)


def patience(what: str, usual: float) -> float:
    """Return the seconds that W&B may take: those of its variable WANDB_..._TIMEOUT, if set."""
    with contextlib.suppress(KeyError, ValueError):
        seconds = float(os.environ[f"WANDB_{what}_TIMEOUT"])
        if 0 < seconds < threading.TIMEOUT_MAX - GRACE:
            return seconds
    return usual


def brief(error: object) -> str:
    """Return what an error says, on one line."""
    name = f"{type(error).__name__}: " if isinstance(error, BaseException) else ""
    return " ".join(f"{name}{error}".split())[:300]


def lost(what: str) -> None:
    """Warn of what training goes on without."""
    warn(f"{what} (metrics.jsonl and the checkpoints hold everything)")


def _logged_in() -> bool:
    return wandb.login(prompt=False, verify=False)


def _run_id(run: Run, job: str) -> str:
    """The same id at each resumption of a run, another for each other run."""
    started = (run.directory / "provenance.json").read_bytes()
    key = f"{run.directory.resolve()} {job}".encode() + started
    return hashlib.sha256(key).hexdigest()[:12]
