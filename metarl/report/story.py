"""What is known of runs from their folders: the material of a report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.checks import UserError
from metarl.evaluation import Evaluation
from metarl.protocols import part_label
from metarl.reading import brief, printable, read_json
from metarl.runs import Run, is_number, read_lines
from metarl.schema import flat

RETURNS = ("return_before", "return_after")
VIDEO_TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}


@dataclass(frozen=True)
class Story:
    """One run.

    Attributes:
        run: the run.
        metrics: by name, (iterations,).
        hours: since the beginning, iteration by iteration, (iterations,), in training time.
        evaluations: by protocol and split, such as `paper-test`; of the run's own method by part.
        baselines: the same of other methods, by label and part.
        videos: films in the run's folder.
        provenance: what made it.
    """

    run: Run
    metrics: Mapping[str, np.ndarray]
    hours: np.ndarray
    evaluations: Mapping[str, Mapping[str, Evaluation]]
    baselines: Mapping[str, Mapping[str, Mapping[str, Evaluation]]]
    videos: Sequence[Path]
    provenance: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.run.directory.name

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
    metrics = {name: np.array([number(line.get(name)) for line in lines]) for name in names}
    timings = read_lines(run.timings_file, ("seconds",))
    if len(timings) != len(lines) or not all(is_number(line.get("env_steps")) for line in lines):
        raise UserError(f"{directory}: metrics.jsonl and timings.jsonl do not go together")
    seconds = np.array([line["seconds"] for line in timings])
    evaluations, baselines = {}, {}
    for path in sorted((directory / "evaluation").glob("*.json")):
        for method, parts in read_results(path).items():
            if method == run.config.method:
                evaluations[path.stem] = parts
            else:
                baselines.setdefault(path.stem, {})[method] = parts
    folder = directory / "videos"
    # Not what a link leads to: the page would give it away.
    files = [path for path in sorted(folder.glob("*")) if path.is_file() and not path.is_symlink()]
    videos = [path for path in files if path.suffix in VIDEO_TYPES]
    provenance = read_provenance(directory / "provenance.json")
    hours = np.cumsum(seconds) / 3600
    return Story(run, metrics, hours, evaluations, baselines, videos, provenance)


def number(value: Any) -> float:
    """Return a value of a log to draw, NaN where it is no number."""
    return value if is_number(value) else np.nan


def read_provenance(path: Path) -> dict[str, Any]:
    """Read what made a run: its `processor` and `versions`.

    Raises:
        UserError: if they are not there.
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


def read_results(path: Path) -> dict[str, dict[str, Evaluation]]:
    """Read a result file: its evaluations by method and part.

    Raises:
        UserError: if it is not one.
    """
    try:
        if not re.fullmatch(r"[a-z_]+-[\w.-]+", path.stem):
            raise ValueError("expected a name like paper-test.json")
        methods = read_json(path)["methods"]
        found = {
            method: {part: Evaluation.from_dict(each) for part, each in found["parts"].items()}
            for method, found in methods.items()
        }
        if not all(name.isprintable() for parts in (found, *found.values()) for name in parts):
            raise ValueError("expected printable names of methods and parts")
        if not found or not all(found.values()):
            raise ValueError("expected at least one method, and a part of each")
        return found
    except UserError:
        raise
    except Exception as error:  # what is nested differently makes Python raise almost anything
        reason = f"{type(error).__name__}: {brief(error)}"
        raise UserError(f"{path}: not a result file of metarl evaluate ({reason})") from error


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
    was compared with them. Only what was played on the tasks of the first is pooled.
    """
    found: dict[str, list[Evaluation]] = {}
    for story in stories:
        for part, result in story.evaluations.get(name, {}).items():
            found.setdefault(part_label(story.method, part), []).append(result)
    for story in stories:
        for method, parts in story.baselines.get(name, {}).items():
            for part, result in parts.items():
                found.setdefault(part_label(method, part), [result])
    scores = {}
    for key, results in found.items():
        same = [each for each in results if each.task_hash == results[0].task_hash]
        same = [each for each in same if each.points == results[0].points]
        scores[key] = np.stack([each.by_task for each in same])
    return scores
