"""The content of a run's folder, read for a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.errors import UserError, warn
from metarl.core.parsing import printable, read_json
from metarl.core.schema_keys import by_path
from metarl.evaluation.result_file import influential
from metarl.runs.logs import columns
from metarl.runs.origin import KEY
from metarl.runs.result import Results
from metarl.runs.result_files import check_named, read_results, read_settings, result_files
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


def read_summaries(directories: Iterable[Path], required: str | None = None) -> list[RunSummary]:
    """Read several runs of one task family.

    Args:
        directories: the runs' folders.
        required: as for `read_summary`.

    Raises:
        UserError: if the runs are of different families, or one cannot be read.
    """
    summaries = [read_summary(directory, required) for directory in directories]
    families = {summary.run.config.env.name: summary.run.directory for summary in summaries}
    if len(families) > 1:
        runs = ", ".join(f"{folder} of {name}" for name, folder in sorted(families.items()))
        raise UserError(f"runs of different families cannot share a report: {runs}")
    return summaries


def read_summary(directory: Path, required: str | None = None) -> RunSummary:
    """Read a run's folder.

    Args:
        directory: the folder.
        required: the name of the only evaluation that is needed; others that cannot be read are
            left out, with a warning. By default all are needed.

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
        try:
            found = read_settings(path)
            check_named(name, found, path)
            methods = read_results(path)
        except UserError as error:
            if required in (None, name):
                raise
            warn(f"{error}; left out")
            continue
        settings[name] = found
        for method, results in methods.items():
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


def evaluation_names(summaries: Sequence[RunSummary]) -> list[str]:
    """List the evaluations that any of the runs has: `k_step` first, on test tasks before others,
    of what was trained before other checkpoints and other settings, and those of most runs."""
    counts = Counter(name for summary in summaries for name in summary.evaluations)
    changed = {
        name
        for summary in summaries
        for name, settings in summary.settings.items()
        if settings.get("checkpoint", "latest") != "latest"
        or influential(settings.get("overrides") or {})
    }

    def place(name: str) -> tuple[bool, bool, bool, int, str]:
        protocol, split, *_ = f"{name}-".split("-")
        return protocol != "k_step", split != "test", name in changed, -counts[name], name

    return sorted(counts, key=place)
