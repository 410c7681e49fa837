"""Weights & Biases. What it does not get is still in the run's folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import wandb

from metarl.runs import Run


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


class NoTracker:
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
            settings=wandb.Settings(silent=True, console="off"),
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


def start_tracker(run: Run, job: str = "train") -> Tracker:
    """Begin tracking as the run's config says."""
    mode = run.config.tracking.mode
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
    if mode == "disabled":
        return NoTracker()
    try:
        return WandbTracker(run, mode, job)
    except wandb.Error as error:
        if mode == "offline":
            raise
        print(f"W&B is out of reach, so this run is tracked offline: {error}", flush=True)
        return WandbTracker(run, "offline", job)


def _logged_in() -> bool:
    return wandb.login(prompt=False, verify=False)


def _run_id(run: Run, job: str) -> str:
    """The same id at each resumption of a run, another for each other run."""
    started = (run.directory / "provenance.json").read_bytes()
    key = f"{run.directory.resolve()} {job}".encode() + started
    return hashlib.sha256(key).hexdigest()[:12]
