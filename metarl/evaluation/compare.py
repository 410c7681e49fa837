"""A run and its baselines, evaluated on the same tasks: result files, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table
from torch import Tensor

from metarl.config import Config
from metarl.core.errors import UserError, check_known, nearest
from metarl.evaluation.evaluate import Evaluation
from metarl.evaluation.protocols import PROTOCOLS, Setting, part_label
from metarl.reporting.figures import draw
from metarl.runs.atomic_io import write_atomically
from metarl.runs.provenance import provenance
from metarl.runs.run import Run, encode
from metarl.training.tracking import start_tracker

RANDOM = "random"
"""The baseline that adapts from the parameters that the training began with."""


def evaluate_run(
    directory: Path,
    *,
    protocol: str = "paper",
    checkpoint: str = "latest",
    split: str = "test",
    tasks: int = 40,
    episodes: int = 20,
    steps: int = 3,
    seed: int = 0,
    against: Sequence[str] = (),
    **overrides: Any,
) -> tuple[dict[str, Evaluation], list[Path]]:
    """Evaluate a run and its baselines on the same tasks, and write what came out.

    Args:
        directory: the run's folder.
        protocol: how, one of `metarl.evaluation.protocols`.
        checkpoint: which of its checkpoints.
        split, tasks, episodes, steps, seed: as in `metarl.evaluation.protocols.Setting`.
        against: baselines: `random` adapts from the parameters that the training began with; the
            folder of another run, or the method of a run beside this one, stands for its latest
            checkpoint.
        overrides: values that replace those of the run's config, such as device="cpu".

    Returns:
        The evaluations by method, and by part where the protocol has several; and the files
        written: one with all results, one with the figure.

    Raises:
        UserError: if something asked for does not exist, or the results cannot be written.
        EpisodeDiverged: if an episode fails and the run's `on_failure` is `stop`, or no task is
            left.
    """
    check_known(protocol, PROTOCOLS, "unknown protocol")
    run = Run.open(directory, **overrides)
    config = run.config
    setting = Setting(split, tasks, episodes, steps, seed, config.num_threads, config.on_failure)
    contestants = {config.method: Contestant(config, run.load(checkpoint).agent, checkpoint)}
    for name in against:
        label, contestant = baseline(name, run, overrides)
        if label in contestants:  # two runs of one method
            label = Path(name).name
        contestants[label] = contestant
    agents = {label: each.config.make_agent(each.state) for label, each in contestants.items()}
    folder = run.directory / "evaluation"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error})") from error
    parts = {
        label: PROTOCOLS[protocol](agents[label], contestant.config.env, setting)
        for label, contestant in contestants.items()
    }
    content = {
        "protocol": protocol,
        **{name: value for name, value in asdict(setting).items() if name != "threads"},
        "methods": {
            label: {
                "checkpoint": contestants[label].source,
                "parts": {part: result.to_dict() for part, result in results.items()},
            }
            for label, results in parts.items()
        },
        "provenance": provenance(),
    }
    stem = f"{protocol}-{split}"
    files = [folder / f"{stem}.json", folder / f"{stem}.png"]
    write_atomically(files[0], encode(content))
    results = {
        part_label(label, part): result
        for label, several in parts.items()
        for part, result in several.items()
    }
    draw(protocol, results, files[1])
    track(run, stem, results, files[1])
    return results, files


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison: a config, what was learned (None for nothing), and from where."""

    config: Config
    state: Mapping[str, Tensor] | None
    source: str


def baseline(name: str, run: Run, overrides: Mapping[str, Any]) -> tuple[str, Contestant]:
    """Return the label of a baseline of a run, and the baseline.

    Raises:
        UserError: if there is none of that name, or it was trained on other tasks.
    """
    if name == RANDOM:
        return RANDOM, Contestant(run.config, None, "untrained")
    folder = Path(name) if Path(name).is_dir() else beside(run, name)
    other = Run.open(folder, **overrides)
    hashes = [each.env.task_hash(each.env.tasks("test", 1)) for each in (run.config, other.config)]
    if hashes[0] != hashes[1]:
        raise UserError(
            f"--against: {name}: its tasks ({describe(other.config)}) are not those of "
            f"{run.directory} ({describe(run.config)})"
        )
    return other.config.method, Contestant(other.config, other.load().agent, f"{folder} latest")


def beside(run: Run, method: str) -> Path:
    """Find the run of a method, such as `oracle`, among those in the folder that a run is in.

    Of several the one with the same seed, or else the first.

    Raises:
        UserError: if there is none.
    """
    others = [Run.open(path.parent) for path in sorted(run.directory.parent.glob("*/config.yaml"))]
    others = [other for other in others if other.config.env.name == run.config.env.name]
    found = [other for other in others if other.config.method == method]
    if not found:
        known = {RANDOM, *(other.config.method for other in others)}
        raise UserError(
            f"--against: {method}: expected {RANDOM}, the folder of a run, or the method of a run "
            f"beside {run.directory}{nearest(method, known)}"
        )
    same = [other for other in found if other.config.seed == run.config.seed]
    return (same or found)[0].directory


def describe(config: Config) -> str:
    """Say which family of tasks a config has, with its settings."""
    settings = (f"{key} {value}" for key, value in config.to_dict()["env"].items())
    return ", ".join(settings)


def track(run: Run, name: str, results: Mapping[str, Evaluation], figure: Path) -> None:
    """Send the table and the figure to W&B, if the run is tracked."""
    tracker = start_tracker(run, job="evaluate")
    columns = ["method", "step", "mean", "low", "high", "iqm", "worse", "success"]
    known = any(result.success is not None for result in results.values())
    columns = columns if known else columns[:-1]
    lines = [line[: len(columns)] for line in rows(results)]
    tracker.table(f"evaluation/{name}", columns, lines)
    tracker.image(f"evaluation/{name} curve", figure)
    tracker.finish()


def rows(results: Mapping[str, Evaluation]) -> list[list]:
    """Return method, point, mean, interval, IQM, share of tasks made worse and success rate (None
    where unknown), line by line."""
    lines = []
    for label, result in results.items():
        columns = (result.mean, *result.interval.T, result.iqm, result.worse)
        rate = result.success_rate
        for place, (point, *values) in enumerate(zip(result.points, *columns, strict=True)):
            success = None if rate is None else float(rate[place])
            lines.append([label, point, *map(float, values), success])
    return lines


def evaluation_title(results: Mapping[str, Evaluation]) -> str:
    """Say what was evaluated."""
    first = next(iter(results.values()))
    return (
        f"{first.family}: {len(first.tasks)} {first.split} tasks (hash {first.task_hash}), "
        f"{first.returns.shape[2]} episodes each"
    )


def evaluation_remarks(results: Mapping[str, Evaluation]) -> list[str]:
    """Say of each method what was left out of its figures, if anything was."""
    return [f"{label}: {each.remark}" for label, each in results.items() if each.remark]


def evaluation_table(results: Mapping[str, Evaluation]) -> Table:
    """Return the evaluations as a table for the terminal."""
    table = Table()
    axis = next(iter(results.values())).axis
    columns = ["method", axis, "return", "95% interval", "IQM", "tasks made worse"]
    succeeds = any(result.success is not None for result in results.values())
    for column in [*columns, *["success"] * succeeds]:
        table.add_column(column, justify="left" if column == "method" else "right")
    for label, point, mean, low, high, iqm, worse, success in rows(results):
        table.add_row(
            escape(label) if point == 0 else "",
            str(point),
            f"{mean:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{iqm:.1f}",
            f"{worse:.0%}" if point else "",
            *([] if success is None else [f"{success:.0%}"]),
        )
    return table
