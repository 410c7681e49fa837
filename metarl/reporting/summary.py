"""The content of a run's folder, read for a report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.errors import UserError
from metarl.core.parsing import error_summary, printable, read_json
from metarl.core.schema_keys import by_path
from metarl.evaluation.protocols import RENAMED_PARTS, RENAMED_PROTOCOLS
from metarl.evaluation.result import Evaluation, Results
from metarl.runs.logs import columns
from metarl.runs.origin import KEY
from metarl.runs.run import Run

RETURNS = ("return_before", "return_after")
VIDEO_TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}


@dataclass(frozen=True)
class RunSummary:
    """One run, as its folder describes it.

    Attributes:
        run: the run.
        metrics: values by name, (iterations,); NaN where a value is missing.
        failures: the records of failed episodes, skipped updates and warnings of training.
        hours: training time at the end of each iteration, (iterations,), hours.
        evaluations: results of the run's own method, by protocol and split, such as `k_step-test`.
        baselines: results of other methods, by protocol and split, then by label.
        settings: the settings of each evaluation, by its name, as its file holds them.
        videos: the videos in the run's folder.
        provenance: the processor and the versions that made the run.
    """

    run: Run
    metrics: Mapping[str, np.ndarray]
    failures: Sequence[Mapping[str, Any]]
    hours: np.ndarray
    evaluations: Mapping[str, Results]
    baselines: Mapping[str, Mapping[str, Results]]
    settings: Mapping[str, Mapping[str, Any]]
    videos: Sequence[Path]
    provenance: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.run.directory.name or self.run.directory.resolve().name

    @property
    def method(self) -> str:
        """The name of the method, from the config."""
        return self.run.config.method

    @property
    def values(self) -> dict[str, Any]:
        """The values of the config by dotted path, and the origin of a warm start."""
        origin = self.run.origin
        values = by_path(self.run.config.to_dict())
        return values if origin is None else {**values, KEY: str(origin)}

    @property
    def failure_counts(self) -> dict[str, int]:
        """Numbers of failures in training by kind, without the kinds that did not occur."""
        kinds = [each["kind"] for each in self.failures]
        skipped = int(np.nansum(self.metrics.get("skipped_update", np.zeros(1))))
        counts = {
            "episodes left out": kinds.count("episode"),
            "updates skipped": skipped,
            "warnings": kinds.count("warning"),
        }
        return {name: count for name, count in counts.items() if count}


def read_summaries(directories: Iterable[Path]) -> list[RunSummary]:
    """Read several runs of one task family.

    Raises:
        UserError: if the runs are of different families, or one cannot be read.
    """
    summaries = [read_summary(directory) for directory in directories]
    families = {summary.run.config.env.name for summary in summaries}
    if len(families) > 1:
        raise UserError(
            f"runs of different families cannot share a report: {', '.join(sorted(families))}"
        )
    return summaries


def read_summary(directory: Path) -> RunSummary:
    """Read a run's folder.

    Raises:
        UserError: if it is no run's folder, holds no iteration yet, or a file cannot be read.
    """
    run = Run.open(directory)
    if run.packaged:
        raise UserError(f"{directory}: has weights without logs; expected a run that was trained")
    # The two lines of an iteration are written one after the other: timings may lag behind.
    pairs = list(zip(run.metrics(), run.timings(), strict=False))
    lines = [metrics for metrics, _ in pairs]
    if not lines:
        raise UserError(
            f"{directory}: nothing was trained yet (no whole line in metrics.jsonl and "
            "timings.jsonl)"
        )
    seconds = np.array([timings["seconds"] for _, timings in pairs])
    evaluations, baselines, settings = {}, {}, {}
    for name, path in result_files(directory / "evaluation").items():
        if not re.fullmatch(r"[a-z_]+-[\w.-]+", path.stem):  # it names figures and sections
            raise UserError(
                f"{path}: not a result file of metarl evaluate (expected a name like "
                "k_step-test.json)"
            )
        settings[name] = read_settings(path)
        for method, results in read_results(path).items():
            if method == run.config.method:
                evaluations[name] = results
            else:
                baselines.setdefault(name, {})[method] = results
    return RunSummary(
        run=run,
        metrics=columns(lines),
        failures=run.failures(),
        hours=np.cumsum(seconds) / 3600,
        evaluations=evaluations,
        baselines=baselines,
        settings=settings,
        videos=video_files(directory / "videos"),
        provenance=read_provenance(directory / "provenance.json"),
    )


def video_files(folder: Path) -> list[Path]:
    """List the videos in a folder, without links: a report must not reveal other files."""
    files = [path for path in sorted(folder.glob("*")) if path.is_file() and not path.is_symlink()]
    return [path for path in files if path.suffix in VIDEO_TYPES]


def read_provenance(path: Path) -> dict[str, Any]:
    """Read the provenance of a run: its `processor` and `versions`.

    Raises:
        UserError: if one of them is missing.
    """
    found = read_json(path)
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("processor"), str)
        or not isinstance(found.get("versions"), dict)
    ):
        raise UserError(f"{path}: expected a processor and versions")
    versions = {printable(name): printable(str(each)) for name, each in found["versions"].items()}
    return {**found, "processor": printable(found["processor"]), "versions": versions}


def result_files(folder: Path) -> dict[str, Path]:
    """Return the result files in a folder by present name, such as `k_step-test`.

    A file with the earlier name of a protocol counts where there is none with the present name.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.json")):
        protocol, dash, split = path.stem.partition("-")
        name = RENAMED_PROTOCOLS.get(protocol, protocol) + dash + split
        if name == path.stem:
            files[name] = path
        else:
            files.setdefault(name, path)
    return dict(sorted(files.items()))


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings in a result file, with `checkpoint` and `iteration` of its first method; {}
    if there are none, as in a file that is no result file."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("methods"), dict):
        return {}
    own = next(iter(content.pop("methods").values()), None)
    own = own if isinstance(own, dict) else {}
    found = {name: own.get(name) for name in ("checkpoint", "iteration")}
    return content | {name: value for name, value in found.items() if value is not None}


def read_results(path: Path) -> dict[str, Results]:
    """Read a result file: its evaluations by method and part.

    Raises:
        UserError: if it is no result file.
    """
    try:
        methods: dict[str, dict[str, dict[str, Any]]] = read_json(path)["methods"]
        found: dict[str, Results] = {
            method: {
                RENAMED_PARTS.get(part, part): Evaluation.from_dict(each)
                for part, each in entry["parts"].items()
            }
            for method, entry in methods.items()
        }
        if not all(name.isprintable() for parts in (found, *found.values()) for name in parts):
            raise ValueError("expected printable names of methods and parts")
        if not found or not all(found.values()):
            raise ValueError("expected at least one method, and a part of each")
        return found
    except UserError:
        raise
    except Exception as error:  # what is nested differently makes Python raise almost anything
        reason = f"{type(error).__name__}: {error_summary(error)}"
        raise UserError(f"{path}: not a result file of metarl evaluate ({reason})") from error
