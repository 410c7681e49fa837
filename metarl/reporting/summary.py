"""What is known of runs from their folders: the material of a report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.errors import UserError
from metarl.core.parsing import error_summary, is_number, printable, read_json
from metarl.core.schema_keys import flat
from metarl.evaluation.evaluate import Evaluation
from metarl.evaluation.protocols import part_label
from metarl.runs.run import Run

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
    # Those of an iteration are written one after the other: it may have metrics alone so far.
    pairs = list(zip(run.metrics(), run.timings(), strict=False))
    lines = [metrics for metrics, _ in pairs]
    if not lines:
        raise UserError(
            f"{directory}: nothing was trained yet (no whole line in metrics.jsonl and "
            "timings.jsonl)"
        )
    names = {name: None for line in lines for name in line}  # in order
    # What is null, missing or no number becomes NaN.
    metrics = {name: np.array([number(line.get(name)) for line in lines]) for name in names}
    seconds = np.array([timings["seconds"] for _, timings in pairs])
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
    failures = run.failures()
    return Story(run, metrics, failures, hours, evaluations, baselines, videos, provenance)


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
        reason = f"{type(error).__name__}: {error_summary(error)}"
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


def gathered(stories: Sequence[Story], name: str) -> dict[str, list[Evaluation]]:
    """Return the results of each method, and part, in evaluations of one name, seed by seed.

    Runs of one method are its seeds. Baselines that no run stands for come from the first run that
    was compared with them.

    Raises:
        UserError: if some were evaluated on other tasks, or after other amounts of experience.
    """
    found: dict[str, list[Evaluation]] = {}
    first: dict[str, tuple[Story, Evaluation]] = {}  # by part

    def add(story: Story, method: str, part: str, result: Evaluation) -> None:
        other, expected = first.setdefault(part, (story, result))
        if (result.task_hash, result.points) != (expected.task_hash, expected.points):
            raise UserError(
                f"{name}: {other.name} was evaluated on {extent(expected)}, {story.name} on "
                f"{extent(result)}; evaluate both alike to put them together (metarl evaluate)"
            )
        found.setdefault(part_label(method, part), []).append(result)

    for story in stories:
        for part, result in story.evaluations.get(name, {}).items():
            add(story, story.method, part, result)
    for story in stories:
        for method, parts in story.baselines.get(name, {}).items():
            for part, result in parts.items():
                if part_label(method, part) not in found:
                    add(story, method, part, result)
    return found


def extent(result: Evaluation) -> str:
    """Say what was evaluated, to tell it from others."""
    last = result.points[-1]
    return f"{len(result.tasks)} tasks (hash {result.task_hash}), {last} {result.axis}"


def pooled(results: Mapping[str, Sequence[Evaluation]]) -> dict[str, np.ndarray]:
    """Return the scores (S, B, P) of the seeds' results.

    Tasks that one of them could not play to the end are left out of all that share the tasks.

    Raises:
        UserError: if no task is left.
    """
    complete: dict[str, np.ndarray] = {}  # by the hash of the tasks
    for each in (each for seeds in results.values() for each in seeds):
        complete[each.task_hash] = complete.get(each.task_hash, each.complete) & each.complete
    scores = {}
    for name, seeds in results.items():
        kept = complete[seeds[0].task_hash]
        if not kept.any():
            raise UserError(f"{name}: no task is left that every method has played to its end")
        scores[name] = np.stack([each.by_task[kept] for each in seeds])
    return scores
