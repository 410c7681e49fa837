"""A run's folder: config, metrics, timings, checkpoints and provenance."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from metarl.config import Config, make_config, read_config
from metarl.config_upgrade import upgrade
from metarl.core.errors import StorageError, UserError, nearest, warn
from metarl.core.parsing import is_number
from metarl.rollout.failures import Failure, lines_of
from metarl.runs import checkpoint
from metarl.runs.atomic_io import (
    append_line,
    json_lines,
    naming,
    read,
    sync,
    whole_lines,
    write_atomically,
)
from metarl.runs.checkpoint import Checkpoint, DamagedCheckpoint
from metarl.runs.provenance import provenance
from metarl.runs.untrusted import check_code, check_links

LATEST = "latest.pt"
AVERAGED = 0.25  # of the checkpoints that are kept, the last ones, in `average`
# What a run's folder holds before it has a config.
BEGINNINGS = {".lock", "checkpoints", "provenance.json"} | {
    f".{name}.partial" for name in ("provenance.json", "config.yaml")
}


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
        """Make a new run's folder. Of several processes that try at once, one succeeds.

        Raises:
            UserError: if it exists or cannot be made.
        """
        check_vacant(directory)
        run = cls(directory, config)
        try:
            with naming(directory):
                run.checkpoints.mkdir(parents=True, exist_ok=True)
            with run.lock():
                check_vacant(directory)
                write_atomically(directory / "provenance.json", encode(provenance()))
                # Last: it is what makes a folder a run's.
                write_atomically(directory / "config.yaml", config.to_yaml().encode())
        except StorageError as error:
            raise UserError(str(error)) from error
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
        data = upgrade(read_config(path))
        check_code(directory, data)
        return cls(directory, make_config(data, str(path), overrides))

    def with_iterations(self, iterations: int) -> Run:
        """Return the same run with another number of iterations in its config.

        Raises:
            UserError: if another process is training it.
            StorageError: if the config cannot be written.
        """
        other = self.config.replace(iterations=iterations)
        with self.lock():
            write_atomically(self.directory / "config.yaml", other.to_yaml().encode())
        return Run(self.directory, other)

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        return self.directory / "metrics.jsonl"

    @property
    def timings_file(self) -> Path:
        return self.directory / "timings.jsonl"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only process that trains this run. One that dies is rid of its lock at once.

        Raises:
            UserError: if another process is training it; says which.
            StorageError: if the folder cannot be written.
        """
        path = self.directory / ".lock"
        lock = FileLock(path, timeout=0)
        with naming(path):
            try:
                lock.acquire()
            except Timeout:
                raise UserError(
                    f"{self.directory}: {holder(path)} is training here; wait for it, stop it, or "
                    "choose another folder with --out"
                ) from None
        try:
            with naming(path):
                path.write_text(f"{os.getpid()} on {socket.gethostname()}\n")
            yield
        finally:
            lock.release()

    @property
    def failures_file(self) -> Path:
        return self.directory / "failures.jsonl"

    def latest(self) -> Checkpoint | None:
        """Return the newest whole checkpoint, None if training has not come to one yet.

        That is `latest.pt`. If it is missing or damaged, a warning names what is used instead.

        Raises:
            UserError: if none is whole, or it was written by a newer metarl.
        """
        found = self._newest(sys.maxsize)
        return found[1] if found else None

    def resumable(self) -> Checkpoint | None:
        """Return the newest whole checkpoint whose iterations are all in metrics and timings, which
        a power cut may have left shorter, and make it `latest.pt`. None as with `latest`.

        Raises:
            UserError: if there are checkpoints, but none like that, or there must have been some.
            StorageError: if `latest.pt` cannot be written.
        """
        played = len(self.metrics())
        found = self._newest(min(played, len(self.timings())))
        if found is None:
            if played > self.config.checkpoint_every:  # one was written before the last of these
                raise UserError(
                    f"{self.checkpoints}: no checkpoint, but {self.metrics_file.name} has "
                    f"{played} iterations; bring them back, or begin anew with --out"
                )
            return None
        path, state = found
        if path.name != LATEST:
            checkpoint.save(self.checkpoints / LATEST, state)
        return state

    def _newest(self, recorded: int) -> tuple[Path, Checkpoint] | None:
        """Return the newest whole checkpoint of an iteration up to `recorded`, and its file."""
        latest = self.checkpoints / LATEST
        kept = self._kept()
        if not kept and not latest.exists():
            return None
        problems, reached = [], 0
        for path in (latest, *reversed(kept)):
            try:
                state = checkpoint.load(path)
            except DamagedCheckpoint as error:
                problems.append(str(error))
                continue
            if state.iteration > recorded:
                problems.append(
                    f"{path}: of iteration {state.iteration}, but {self.metrics_file.name} or "
                    f"{self.timings_file.name} has only {recorded} whole lines"
                )
                reached = max(reached, state.iteration)
                continue
            if problems:
                lost = max(reached, len(self.metrics())) - state.iteration
                warn(f"{'; '.join(problems)}; {path} is used instead (iterations lost: {lost})")
            return path, state
        raise UserError(f"{'; '.join(problems)}; there is no other checkpoint to go by")

    def _kept(self) -> list[Path]:
        """Return the checkpoints that are kept on the way, the oldest first."""
        return sorted(self.checkpoints.glob("iteration-*.pt"), key=number_in)

    def load(self, name: str = "latest") -> Checkpoint:
        """Return a checkpoint by name: latest, best, an iteration's number, or average.

        The average is that of the last quarter of those that are kept.

        Raises:
            UserError: if it is missing or damaged.
        """
        if name == "latest" and (state := self.latest()) is not None:
            return state
        if name == "average" and (kept := self._kept()):
            count = math.ceil(AVERAGED * len(kept))
            states = [checkpoint.load(path) for path in kept[-count:]]
            return checkpoint.average(states, self.config.agent.may_average)
        stem = f"iteration-{int(name):06d}" if name.isdecimal() and len(name) < 20 else name
        path = self.checkpoints / f"{stem}.pt"
        if not path.exists():
            known = [file.stem for file in sorted(self.checkpoints.glob("*.pt"))]
            listed = ", ".join(known) or "none yet"
            raise UserError(f"{path}: there is no such checkpoint (there are: {listed})")
        return checkpoint.load(path)

    def save(self, state: Checkpoint, *, best: bool, keep: bool) -> None:
        """Write `latest`, and, if asked for, `best` and a copy that is kept.

        Raises:
            StorageError: if one cannot be written; the last `latest` is then whole.
        """
        # A checkpoint must not be on the disk before the lines that it goes with.
        for path in (self.metrics_file, self.timings_file):
            sync(path)
        # `latest` last, as a resumed run goes by it; `best` first, as without a `latest` it goes by
        # the copy, and would not write `best` again.
        names = ["best"] * best + [f"iteration-{state.iteration:06d}"] * keep + ["latest"]
        for name in names:
            checkpoint.save(self.checkpoints / f"{name}.pt", state)

    def rewind(self, iteration: int) -> None:
        """Forget metrics, timings and failures of iterations that are not in the checkpoint.

        Raises:
            StorageError: if they cannot be written.
        """
        for path in (self.metrics_file, self.timings_file):
            content = read(path)
            kept = b"".join(content.splitlines(keepends=True)[:iteration])
            if kept != content or not path.exists():
                write_atomically(path, kept)
        if self.failures_file.exists():
            lines = [line for line in self.failures() if line["iteration"] <= iteration]
            if lines:
                write_atomically(self.failures_file, encode_lines(lines))
            else:
                self.failures_file.unlink()

    def record(self, iteration: int, failures: Sequence[Failure]) -> None:
        """Append what went wrong in an iteration.

        Raises:
            StorageError: if it cannot be written.
        """
        if failures:
            lines = lines_of(failures, iteration, self.config.on_failure)
            with naming(self.failures_file), self.failures_file.open("ab") as file:
                file.write(encode_lines(lines))

    def failures(self) -> list[dict[str, Any]]:
        """Return all that went wrong so far, event by event, up to a line that is not whole."""
        return [line for line in json_lines(self.failures_file) if is_number(line.get("iteration"))]

    def log(self, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Append the metrics and the timings of one iteration to what `rewind` has left.

        Raises:
            StorageError: if they cannot be written.
        """
        for path, values in ((self.metrics_file, metrics), (self.timings_file, timings)):
            append_line(path, json.dumps(values, allow_nan=False))

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of all iterations so far, up to a line that is not whole."""
        return whole_lines(self.metrics_file, are_metrics)

    def timings(self) -> list[dict[str, Any]]:
        """Return the timings of all iterations so far, up to a line that is not whole."""
        return whole_lines(self.timings_file, lambda entry: is_number(entry.get("seconds")))


def are_metrics(entry: Mapping[str, Any]) -> bool:
    """Say whether a line of a log has what every reader of metrics needs."""
    returns = [entry.get(name, "") for name in ("return_before", "return_after")]
    known = [value for value in returns if value is not None]  # null if every episode failed
    return is_number(entry.get("env_steps")) and all(map(is_number, known))


def is_vacant(directory: Path) -> bool:
    """Return whether a new run may have a folder: none is there, or an empty one, or one whose
    making was cut short."""
    try:
        found = {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return not directory.exists()  # below a file nothing can be made, which is found out then
    return found <= BEGINNINGS and not any((directory / "checkpoints").glob("*"))


def check_vacant(directory: Path) -> None:
    """Refuse a folder that a new run may not have.

    Raises:
        UserError: naming it.
    """
    if not is_vacant(directory):
        raise UserError(
            f"{directory}: exists already; choose another folder with --out, or go on with "
            f"metarl train --resume {directory}"
        )


def holder(lock: Path) -> str:
    """Name the process that holds a lock, as far as it has said."""
    try:
        return f"process {lock.read_text().strip() or '(of unknown number)'}"
    except (OSError, ValueError):
        return "another process"


def number_in(path: Path) -> int:
    """Return the number that a file's name ends with, -1 if there is none."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def encode_lines(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """Return JSON with one entry on each line."""
    return "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries).encode()


def encode(content: Any) -> bytes:
    """Return JSON for people and programs."""
    return (json.dumps(content, indent=2) + "\n").encode()
