"""A run's folder: config, metrics, timings, checkpoints and provenance."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from metarl import checkpoint
from metarl.checkpoint import Checkpoint, write_atomically
from metarl.checks import UserError, nearest
from metarl.config import Config, make_config, read_config
from metarl.failures import Failure, lines_of

PACKAGES = ("metarl-torch", "torch", "mujoco", "gymnasium", "numpy", "scipy", "wandb")


@dataclass(frozen=True)
class Run:
    """A training run on disk.

    Attributes:
        directory: the run's folder.
        config: its resolved config.
    """

    directory: Path
    config: Config = field(repr=False)

    @classmethod
    def create(cls, config: Config, directory: Path) -> Run:
        """Make a new run's folder.

        Raises:
            UserError: if it exists or cannot be made.
        """
        if directory.exists():
            raise UserError(
                f"{directory}: exists already; choose another folder with --out, or go on with "
                f"metarl train --resume {directory}"
            )
        run = cls(directory, config)
        try:
            run.checkpoints.mkdir(parents=True)
            write_atomically(directory / "config.yaml", config.to_yaml().encode())
            write_atomically(directory / "provenance.json", encode(provenance()))
        except OSError as error:
            raise UserError(f"{directory}: cannot be written ({error})") from error
        return run

    @classmethod
    def open(cls, directory: Path, **overrides: Any) -> Run:
        """Open an existing run's folder.

        Args:
            directory: the folder.
            overrides: values that replace those of its config, such as device="cpu".

        Raises:
            UserError: if there is no run in it.
        """
        path = directory / "config.yaml"
        if not path.is_file():
            siblings = directory.parent.iterdir() if directory.parent.is_dir() else []
            known = [other.name for other in siblings if (other / "config.yaml").is_file()]
            raise UserError(
                f"{directory}: not a run's folder (no config.yaml){nearest(directory.name, known)}"
            )
        return cls(directory, make_config(read_config(path), str(path), overrides))

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        return self.directory / "metrics.jsonl"

    @property
    def timings_file(self) -> Path:
        return self.directory / "timings.jsonl"

    @property
    def failures_file(self) -> Path:
        return self.directory / "failures.jsonl"

    def latest(self) -> Checkpoint | None:
        """Return the last checkpoint, None if training has not come to one yet."""
        path = self.checkpoints / "latest.pt"
        return checkpoint.load(path) if path.exists() else None

    def load(self, name: str = "latest") -> Checkpoint:
        """Return a checkpoint by name: latest, best, or an iteration's number.

        Raises:
            UserError: if it is missing or damaged.
        """
        stem = f"iteration-{int(name):06d}" if name.isdigit() else name
        path = self.checkpoints / f"{stem}.pt"
        if not path.exists():
            known = [file.stem for file in sorted(self.checkpoints.glob("*.pt"))]
            listed = ", ".join(known) or "none yet"
            raise UserError(f"{path}: there is no such checkpoint (there are: {listed})")
        return checkpoint.load(path)

    def save(self, state: Checkpoint, *, best: bool, keep: bool) -> None:
        """Write `latest`, and, if asked for, `best` and a copy that is kept."""
        names = ["latest"] + ["best"] * best + [f"iteration-{state.iteration:06d}"] * keep
        for name in reversed(names):  # `latest` last: it is what a resumed run goes by
            checkpoint.save(self.checkpoints / f"{name}.pt", state)

    def rewind(self, iteration: int) -> None:
        """Forget metrics, timings and failures of iterations that are not in the checkpoint."""
        for path in (self.metrics_file, self.timings_file):
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            write_atomically(path, b"".join(lines[:iteration]))
        if self.failures_file.exists():
            lines = self.failures_file.read_bytes().splitlines(keepends=True)
            # A process that was killed may have written half a line.
            whole = [line for line in lines if line.endswith(b"\n")]
            kept = [line for line in whole if json.loads(line)["iteration"] <= iteration]
            if kept:
                write_atomically(self.failures_file, b"".join(kept))
            else:
                self.failures_file.unlink()

    def record(self, iteration: int, failures: Sequence[Failure]) -> None:
        """Append what went wrong in an iteration."""
        if failures:
            lines = lines_of(failures, iteration, self.config.on_failure)
            with self.failures_file.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))

    def failures(self) -> list[dict[str, Any]]:
        """Return all that went wrong so far, event by event."""
        if not self.failures_file.exists():
            return []
        return [json.loads(line) for line in self.failures_file.read_text().splitlines()]

    def log(self, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Append the metrics and the timings of one iteration."""
        for path, values in ((self.metrics_file, metrics), (self.timings_file, timings)):
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of all iterations so far."""
        if not self.metrics_file.exists():
            return []
        return [json.loads(line) for line in self.metrics_file.read_text().splitlines()]


def encode(content: Any) -> bytes:
    """Return JSON for people and programs."""
    return (json.dumps(content, indent=2) + "\n").encode()


def provenance() -> dict[str, Any]:
    """Say what made a result: versions, command, code and hardware."""
    return {
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "processor": _processor(),
        "git": _git(),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def _git() -> dict[str, str] | None:
    """The commit of the clone that runs, and what differs from it; None if it is not a clone."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "diff": git("diff", "HEAD")}
    except OSError:
        return None
