"""What is made of a run afterwards: result files, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

from metarl.agents import make_agent
from metarl.checkpoint import write_atomically
from metarl.checks import UserError
from metarl.config import Config
from metarl.evaluation import Evaluation, evaluate, step_scales
from metarl.figures import adaptation_curve
from metarl.runs import Run, encode
from metarl.tracking import start_tracker

RANDOM = "random"
"""The baseline that adapts from the parameters that the training began with."""


def evaluate_run(
    directory: Path,
    *,
    checkpoint: str = "latest",
    split: str = "test",
    tasks: int = 40,
    episodes: int = 20,
    steps: int = 3,
    schedule: str = "constant",
    seed: int = 0,
    against: Sequence[str] = (),
    **overrides: Any,
) -> tuple[dict[str, Evaluation], list[Path]]:
    """Evaluate a run and its baselines on the same tasks, and write what came out.

    Args:
        directory: the run's folder.
        checkpoint: which of its checkpoints.
        split, tasks, episodes, steps, seed: as in `evaluate`.
        schedule: of the step sizes, `constant` or `halving`.
        against: baselines: `random` adapts from the parameters that the training began with; the
            folder of another run stands for its latest checkpoint.
        overrides: values that replace those of the run's config, such as device="cpu".

    Returns:
        The evaluations by label, and the files written.

    Raises:
        UserError: if something asked for does not exist, or the results cannot be written.
    """
    run = Run.open(directory, **overrides)
    config = run.config
    scales = step_scales(schedule, max(steps, 0))
    contestants = {config.method: Contestant(config, run.load(checkpoint).agent, checkpoint)}
    for name in against:
        label, contestant = baseline(name, run, overrides)
        if label in contestants:  # two runs of one method
            label = Path(name).name
        contestants[label] = contestant
    agents = {label: make_agent(each.config, each.state) for label, each in contestants.items()}
    folder = run.directory / "evaluation"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error})") from error
    results = {
        label: evaluate(
            agents[label],
            contestant.config.env,
            split=split,
            tasks=tasks,
            episodes=episodes,
            steps=steps,
            scales=scales,
            seed=seed,
            threads=config.num_threads,
            method=label,
        )
        for label, contestant in contestants.items()
    }
    files = []
    for label, result in results.items():
        suffix = "" if label == config.method else f"-{label}"
        files.append(folder / f"{split}{suffix}.json")
        source = {"checkpoint": contestants[label].source}
        write_atomically(files[-1], encode({**result.to_dict(), **source}))
    files.append(folder / f"{split}.png")
    adaptation_curve(results, files[-1])
    track(run, split, results, files[-1])
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
    if not Path(name).is_dir():
        raise UserError(f"--against: {name}: expected {RANDOM} or the folder of a run")
    other = Run.open(Path(name), **overrides)
    hashes = [each.env.task_hash(each.env.tasks("test", 1)) for each in (run.config, other.config)]
    if hashes[0] != hashes[1]:
        raise UserError(
            f"--against: {name}: its tasks ({describe(other.config)}) are not those of "
            f"{run.directory} ({describe(run.config)})"
        )
    return other.config.method, Contestant(other.config, other.load().agent, f"{name} latest")


def describe(config: Config) -> str:
    """Say which family of tasks a config has, with its settings."""
    settings = (f"{key} {value}" for key, value in config.to_dict()["env"].items())
    return ", ".join(settings)


def track(run: Run, split: str, results: Mapping[str, Evaluation], figure: Path) -> None:
    """Send the table and the figure to W&B, if the run is tracked."""
    tracker = start_tracker(run, job="evaluate")
    columns = ["method", "step", "mean", "low", "high", "iqm", "worse", "success"]
    known = any(result.success is not None for result in results.values())
    columns = columns if known else columns[:-1]
    lines = [line[: len(columns)] for line in rows(results)]
    tracker.table(f"evaluation/{split}", columns, lines)
    tracker.image(f"evaluation/{split} curve", figure)
    tracker.finish()


def rows(results: Mapping[str, Evaluation]) -> list[list]:
    """Return method, step, mean, interval, IQM, share of tasks made worse and success rate (None
    where unknown), line by line."""
    lines = []
    for label, result in results.items():
        columns = (result.mean, *result.interval.T, result.iqm, result.worse)
        rate = result.success_rate
        for step, values in enumerate(zip(*columns, strict=True)):
            success = None if rate is None else float(rate[step])
            lines.append([label, step, *map(float, values), success])
    return lines


def evaluation_title(results: Mapping[str, Evaluation]) -> str:
    """Say what was evaluated."""
    first = next(iter(results.values()))
    return (
        f"{first.family}: {len(first.tasks)} {first.split} tasks (hash {first.task_hash}), "
        f"{first.returns.shape[2]} episodes per step"
    )


def evaluation_table(results: Mapping[str, Evaluation]) -> Table:
    """Return the evaluations as a table for the terminal."""
    table = Table()
    columns = ["method", "steps", "return", "95% interval", "IQM", "tasks made worse"]
    succeeds = any(result.success is not None for result in results.values())
    for column in [*columns, *["success"] * succeeds]:
        table.add_column(column, justify="left" if column == "method" else "right")
    for label, step, mean, low, high, iqm, worse, success in rows(results):
        table.add_row(
            label if step == 0 else "",
            str(step),
            f"{mean:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{iqm:.1f}",
            f"{worse:.0%}" if step else "",
            *([] if success is None else [f"{success:.0%}"]),
        )
    return table
