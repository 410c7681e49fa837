"""A tracker that records by Weights & Biases (W&B)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from metarl.runs.run import Run
from metarl.training.tracking_environment import from_environment
from metarl.training.wandb_service import FINISH_TIMEOUT, START_TIMEOUT, timeout_for


class WandbTracker:
    """A W&B run whose files are in the run's folder."""

    def __init__(self, run: Run, mode: str, job: str) -> None:
        config = run.config
        self._run = wandb.init(
            dir=str(run.directory),
            mode=mode,  # pyright: ignore[reportArgumentType]
            # An argument would replace W&B's own environment variables.
            project=from_environment("PROJECT", config.tracking.project),
            entity=from_environment("ENTITY", config.tracking.entity or "") or None,
            name=from_environment("NAME", run.directory.name),
            group=from_environment("RUN_GROUP", f"{config.env.name}/{config.method}"),
            job_type=from_environment("JOB_TYPE", job),
            # Offline runs cannot be resumed; offline runs with equal ids are merged at their sync.
            # The agent of a sweep has assigned an id to its run already.
            id=from_environment("RUN_ID", _run_id(run, job)),
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


def _run_id(run: Run, job: str) -> str:
    """Return a W&B id that is equal at all resumptions of a run, and different for other runs."""
    started = (run.directory / "provenance.json").read_bytes()
    key = f"{run.directory.resolve()} {job}".encode() + started
    return hashlib.sha256(key).hexdigest()[:12]
