"""What is known of runs from their folders: the material of a report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.checks import UserError
from metarl.evaluation import Evaluation
from metarl.protocols import part_label
from metarl.runs import Run
from metarl.schema import flat

RETURNS = ("return_before", "return_after")
VIDEO_TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}


@dataclass(frozen=True)
class Story:
    """One run.

    Attributes:
        run: the run.
        metrics: by name, (iterations,); NaN where there is none.
        failures: what went wrong in training, event by event.
        hours: since the beginning, iteration by iteration, (iterations,), in training time.
        evaluations: by protocol and split, such as `paper-test`; of the run's own method by part.
        baselines: the same of other methods, by label and part.
        videos: films in the run's folder.
        provenance: what made it.
    """

    run: Run
    metrics: Mapping[str, np.ndarray]
    failures: Sequence[Mapping[str, Any]]
    hours: np.ndarray
    evaluations: Mapping[str, Mapping[str, Evaluation]]
    baselines: Mapping[str, Mapping[str, Mapping[str, Evaluation]]]
    videos: Sequence[Path]
    provenance: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.run.directory.name

    @property
    def trouble(self) -> dict[str, int]:
        """How often what went wrong, by name: only what did."""
        kinds = [each["kind"] for each in self.failures]
        skipped = int(np.nansum(self.metrics.get("skipped_update", np.zeros(1))))
        counts = {
            "episodes left out": kinds.count("episode"),
            "updates skipped": skipped,
            "warnings": kinds.count("warning"),
        }
        return {name: count for name, count in counts.items() if count}

    @property
    def method(self) -> str:
        return self.run.config.method


def read_story(directory: Path) -> Story:
    """Read all that a run's folder tells.

    Raises:
        UserError: if it is no run's folder, nothing was trained yet, or a file cannot be read.
    """
    run = Run.open(directory)
    lines = run.metrics()
    if not lines:
        raise UserError(f"{directory}: nothing was trained yet (no line in metrics.jsonl)")
    names = {name: None for line in lines for name in line}  # in order
    # What is null or missing becomes NaN.
    metrics = {name: np.array([line.get(name) for line in lines], np.float64) for name in names}
    timings = [json.loads(line) for line in run.timings_file.read_text().splitlines()]
    seconds = np.array([line["seconds"] for line in timings])
    evaluations, baselines = {}, {}
    for path in sorted((directory / "evaluation").glob("*.json")):
        for method, parts in read_results(path).items():
            if method == run.config.method:
                evaluations[path.stem] = parts
            else:
                baselines.setdefault(path.stem, {})[method] = parts
    folder = directory / "videos"
    videos = [path for path in sorted(folder.glob("*")) if path.suffix in VIDEO_TYPES]
    provenance = json.loads((directory / "provenance.json").read_text())
    hours = np.cumsum(seconds) / 3600
    failures = run.failures()
    return Story(run, metrics, failures, hours, evaluations, baselines, videos, provenance)


def read_results(path: Path) -> dict[str, dict[str, Evaluation]]:
    """Read a result file: its evaluations by method and part.

    Raises:
        UserError: if it is not one.
    """
    try:
        methods = json.loads(path.read_text())["methods"]
        return {
            method: {part: Evaluation.from_dict(each) for part, each in found["parts"].items()}
            for method, found in methods.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a result file of metarl evaluate ({error!r})") from error


def read_stories(directories: Iterable[Path]) -> list[Story]:
    """Read several runs, which must be of one family's tasks.

    Raises:
        UserError: if they are not, or one cannot be read.
    """
    stories = [read_story(directory) for directory in directories]
    families = {story.run.config.env.name for story in stories}
    if len(families) > 1:
        raise UserError(
            f"runs of different families cannot share a report: {', '.join(sorted(families))}"
        )
    return stories


def by_method(stories: Sequence[Story]) -> dict[str, list[Story]]:
    """Group runs by method: the seeds of each."""
    groups: dict[str, list[Story]] = {}
    for story in stories:
        groups.setdefault(story.method, []).append(story)
    return groups


def differences(stories: Sequence[Story]) -> dict[str, list[Any]]:
    """Return the keys of the configs that differ between runs, with the value of each run."""
    configs = [flat(story.run.config.to_dict()) for story in stories]
    keys = {key: None for config in configs for key in config}
    values = {key: [config.get(key) for config in configs] for key in keys}
    return {key: row for key, row in values.items() if any(each != row[0] for each in row)}


def pooled(stories: Sequence[Story], name: str) -> dict[str, np.ndarray]:
    """Return the scores (S, B, P) of each method, and part, in evaluations of one name.

    Runs of one method are its seeds. Baselines that no run stands for come from the first run that
    was compared with them. Only what was played on the tasks of the first is pooled, without those
    that one of the runs could not play to the end: all that share their tasks have the same B.

    Raises:
        UserError: if no task is left.
    """
    found: dict[str, list[Evaluation]] = {}
    for story in stories:
        for part, result in story.evaluations.get(name, {}).items():
            found.setdefault(part_label(story.method, part), []).append(result)
    for story in stories:
        for method, parts in story.baselines.get(name, {}).items():
            for part, result in parts.items():
                found.setdefault(part_label(method, part), [result])
    complete: dict[str, np.ndarray] = {}
    for each in (each for results in found.values() for each in results):
        complete[each.task_hash] = complete.get(each.task_hash, each.complete) & each.complete
    scores = {}
    for key, results in found.items():
        hashed = results[0].task_hash
        if not complete[hashed].any():
            raise UserError(f"{name}: no task is left that every method has played to its end")
        same = [each for each in results if each.task_hash == hashed]
        same = [each for each in same if each.points == results[0].points]
        scores[key] = np.stack([each.by_task[complete[hashed]] for each in same])
    return scores
