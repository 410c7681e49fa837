"""A tracker that writes the iterations of a training to `metrics.csv` in the run's folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from metarl.runs.atomic_io import write_atomically
from metarl.runs.run import Run
from metarl.training.tracker import NullTracker


class CSVTracker(NullTracker):
    """A row for each iteration, with the names of `metrics.jsonl` and `timings.jsonl` as columns.

    Evaluations are not recorded: they have files of their own.
    """

    def __init__(self, run: Run, job: str) -> None:
        self._file = run.directory / "metrics.csv"
        if job == "train":
            print(f"CSV: {self._file}", flush=True)
        self._columns: dict[str, None] = {}  # in the order in which they were first met
        self._rows: list[Mapping[str, Any]] = []

    def log(self, metrics: Mapping[str, Any]) -> None:
        self._rows.append(metrics)
        if metrics.keys() <= self._columns.keys():
            with self._file.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text([metrics]))
            return
        self._columns |= dict.fromkeys(metrics)
        header = dict(zip(self._columns, self._columns, strict=True))
        write_atomically(self._file, self._text([header, *self._rows]).encode())

    def _text(self, rows: Iterable[Mapping[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, [*self._columns], lineterminator="\n").writerows(rows)
        return text.getvalue()
