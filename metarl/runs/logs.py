"""The logs of a run: metrics and timings of each iteration, and numerical failures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.parsing import is_number
from metarl.runs.atomic_io import (
    append_line,
    json_lines,
    read,
    whole_lines,
    wrap_os_errors,
    write_atomically,
)

VALIDATION = "validation/"
"""Beginning of the names of the metrics of evaluations while training."""


@dataclass(frozen=True)
class RunLogs:
    """The log files in a run's folder, with one JSON object on each line.

    Attributes:
        directory: the run's folder.
    """

    directory: Path

    @property
    def metrics_file(self) -> Path:
        return self.directory / "metrics.jsonl"

    @property
    def timings_file(self) -> Path:
        return self.directory / "timings.jsonl"

    @property
    def failures_file(self) -> Path:
        return self.directory / "failures.jsonl"

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of all iterations so far, up to the first damaged line."""
        return whole_lines(self.metrics_file, are_metrics)

    def history(self) -> dict[str, np.ndarray]:
        """Return the metrics as columns, (iterations,) each, by name; NaN where one is missing;
        {} if nothing was logged, as before the first iteration, or in a package.

        `pandas.DataFrame(run.history())` is a table with one row for each iteration.
        """
        return columns(self.metrics())

    def timings(self) -> list[dict[str, Any]]:
        """Return the timings of all iterations so far, up to the first damaged line."""
        return whole_lines(self.timings_file, lambda entry: is_number(entry.get("seconds")))

    def failures(self) -> list[dict[str, Any]]:
        """Return all failures and warnings so far, up to the first damaged line, without entries
        that lack a key."""
        return [line for line in json_lines(self.failures_file) if is_failure(line)]

    def log(self, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Append the metrics and the timings of one iteration to the files that `rewind` created.

        Raises:
            StorageError: if a file cannot be written.
        """
        for path, values in ((self.metrics_file, metrics), (self.timings_file, timings)):
            append_line(path, json.dumps(values, allow_nan=False))

    def log_failures(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Append failures and warnings of one iteration.

        Raises:
            StorageError: if the file cannot be written.
        """
        with wrap_os_errors(self.failures_file), self.failures_file.open("ab") as file:
            file.write(encode_lines(entries))

    def rewind(self, iteration: int) -> None:
        """Delete the metrics, timings and failures of iterations after `iteration`, and create
        missing files of metrics and timings.

        Raises:
            StorageError: if a file cannot be written.
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


def are_metrics(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry of a log has valid values of the keys that all readers need."""
    returns = [entry.get(name, "") for name in ("return_before", "return_after")]
    known = [value for value in returns if value is not None]  # null if every episode failed
    return is_number(entry.get("env_steps")) and all(map(is_number, known))


def is_failure(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry of the log of failures has valid values of the keys that all readers
    need."""
    texts = [entry.get(name) for name in ("kind", "reason", "handled")]
    return (
        is_number(entry.get("iteration"))
        and all(isinstance(text, str) for text in texts)
        and isinstance(entry.get("task", []), list)
    )


def columns(entries: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return the numbers of n entries of a log by name, (n,) each; NaN where one is missing."""
    names = {name: None for entry in entries for name in entry}  # in order

    def number_or_nan(value: Any) -> float:
        return value if is_number(value) else np.nan

    return {name: np.array([number_or_nan(entry.get(name)) for entry in entries]) for name in names}


def encode_lines(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """Return entries as JSON, one entry on each line."""
    return "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries).encode()
