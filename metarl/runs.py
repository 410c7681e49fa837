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

FOLDERS = ("checkpoints", "evaluation", "report", "videos")
CODE = (("env", "family"), ("env", "env_id"), ("env", "python"), ("inner", "rule"))
"""Keys of a config that may name code."""
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
        """Open an existing run's folder, which may come from a stranger.

        Nothing of it is run, and nothing is written outside it: its config is data, and links that
        lead out of it are refused. One exception is deliberate: a config may name a task family,
        an inner rule or an environment (`package.module:Class`) of your own, and opening it
        imports that module, if it can be imported where you are. So do not open a stranger's run
        from within a folder of the stranger's modules; from within the run's own it is refused.

        Args:
            directory: the folder.
            overrides: values that replace those of its config, such as device="cpu".

        Raises:
            UserError: if there is no run in it, a link leads out of it, or its config names code
                that came with it.
        """
        path = directory / "config.yaml"
        if not path.is_file():
            siblings = directory.parent.iterdir() if directory.parent.is_dir() else []
            known = [other.name for other in siblings if (other / "config.yaml").is_file()]
            raise UserError(
                f"{directory}: not a run's folder (no config.yaml){nearest(directory.name, known)}"
            )
        check_links(directory)
        data = read_config(path)
        check_code(directory, data)
        return cls(directory, make_config(data, str(path), overrides))

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        return self.directory / "metrics.jsonl"

    @property
    def timings_file(self) -> Path:
        return self.directory / "timings.jsonl"

    def latest(self) -> Checkpoint | None:
        """Return the last checkpoint, None if training has not come to one yet."""
        path = self.checkpoints / "latest.pt"
        return checkpoint.load(path) if path.exists() else None

    def load(self, name: str = "latest") -> Checkpoint:
        """Return a checkpoint by name: latest, best, or an iteration's number.

        Raises:
            UserError: if it is missing or damaged.
        """
        stem = f"iteration-{int(name):06d}" if name.isdecimal() and len(name) < 20 else name
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
        """Forget the metrics and timings of iterations that are not in the checkpoint."""
        for path in (self.metrics_file, self.timings_file):
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            write_atomically(path, b"".join(lines[:iteration]))

    def log(self, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Append the metrics and the timings of one iteration."""
        for path, values in ((self.metrics_file, metrics), (self.timings_file, timings)):
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of all iterations so far."""
        if not self.metrics_file.exists():
            return []
        return read_lines(self.metrics_file, ("return_before", "return_after"))


def read_lines(path: Path, needed: Sequence[str]) -> list[dict[str, Any]]:
    """Return the lines of a log: values by name.

    Args:
        path: the file.
        needed: names of finite numbers that every line has.

    Raises:
        UserError: naming the file and the line that is something else.
    """
    found = []
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if (
            not isinstance(line, dict)
            or not all(name.isprintable() for name in line)
            or not all(is_number(line.get(name)) for name in needed)
        ):
            raise UserError(
                f"{path}: line {number}: expected a JSON object with {', '.join(needed)}"
            )
        found.append(line)
    return found


def is_number(value: Any) -> bool:
    """Say whether a value is a finite number, of a size that can be worked with."""
    return type(value) in (int, float) and abs(value) < 1e300


def check_links(directory: Path) -> None:
    """Refuse links in a run's folder that lead out of it: what is written would go there.

    Raises:
        UserError: naming the link.
    """
    inside = directory.resolve()
    folders = [directory, *(directory / name for name in FOLDERS)]
    for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
        if path.is_symlink() and not path.is_char_device():
            target = path.resolve()
            if not target.is_relative_to(inside):
                raise UserError(
                    f"{path}: is a link that leads out of the run's folder, to {target}; put the "
                    "thing itself there"
                )


def check_code(directory: Path, data: Mapping[str, Any]) -> None:
    """Refuse a config that names code in the run's own folder: a stranger may have put it there.

    Raises:
        UserError: naming the key.
    """
    inside = directory.resolve()

    def refuse(section: str, key: str) -> None:
        values = data.get(section)
        value = values.get(key) if isinstance(values, Mapping) else None
        if not isinstance(value, str) or "\0" in value:
            return
        name = value.rpartition(":")[0] or value
        module = name.partition(".")[0] if ":" in value and not name.endswith(".py") else ""
        places = [Path(name).expanduser()]
        # Modules are also looked for in the current folder.
        places += [Path(module), Path(f"{module}.py")] if module else []
        for place in places:
            if place.exists() and place.resolve().is_relative_to(inside):
                raise UserError(
                    f"{directory / 'config.yaml'}: {section}.{key}: names code in the run's own "
                    f"folder, {place.resolve()}, which is not run; if it is yours, move it "
                    "elsewhere"
                )

    for section, key in CODE:
        refuse(section, key)


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
