"""What is made of a run afterwards: result files, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from metarl.agents import MetaAgent, make_agent
from metarl.checkpoint import write_atomically
from metarl.checks import UserError, check_known
from metarl.evaluation import Evaluation, evaluate, step_sizes
from metarl.figures import adaptation_curve
from metarl.runs import Run, encode
from metarl.tracking import start_tracker

BASELINES = ("random",)


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
        against: baselines; `random` adapts from the parameters that the training began with.
        overrides: values that replace those of the run's config, such as device="cpu".

    Returns:
        The evaluations by label, and the files written.

    Raises:
        UserError: if something asked for does not exist, or the results cannot be written.
    """
    for name in against:
        check_known(name, BASELINES, "--against: unknown baseline")
    run = Run.open(directory, **overrides)
    config = run.config
    lrs = step_sizes(schedule, config.inner.lr, max(steps, 0))
    agents: dict[str, MetaAgent] = {
        config.method: make_agent(config, run.load(checkpoint).agent),
        **{name: make_agent(config) for name in against},
    }
    folder = run.directory / "evaluation"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error})") from error
    results = {
        label: evaluate(
            agent,
            config.env,
            split=split,
            tasks=tasks,
            episodes=episodes,
            steps=steps,
            lrs=lrs,
            seed=seed,
            threads=config.num_threads,
            method=label,
        )
        for label, agent in agents.items()
    }
    files = []
    for label, result in results.items():
        suffix = "" if label == config.method else f"-{label}"
        files.append(folder / f"{split}{suffix}.json")
        source = "untrained" if label in against else checkpoint
        write_atomically(files[-1], encode({**result.to_dict(), "checkpoint": source}))
    files.append(folder / f"{split}.png")
    adaptation_curve(results, files[-1])
    track(run, split, results, files[-1])
    return results, files


def track(run: Run, split: str, results: Mapping[str, Evaluation], figure: Path) -> None:
    """Send the table and the figure to W&B, if the run is tracked."""
    tracker = start_tracker(run, job="evaluate")
    columns = ["method", "step", "mean", "low", "high", "iqm", "worse"]
    tracker.table(f"evaluation/{split}", columns, rows(results))
    tracker.image(f"evaluation/{split} curve", figure)
    tracker.finish()


def rows(results: Mapping[str, Evaluation]) -> list[list]:
    """Return method, step, mean, interval, IQM and share of tasks made worse, line by line."""
    return [
        [label, step, float(mean), float(low), float(high), float(iqm), float(worse)]
        for label, result in results.items()
        for step, (mean, (low, high), iqm, worse) in enumerate(
            zip(result.mean, result.interval, result.iqm, result.worse, strict=True)
        )
    ]


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
    for column in ("method", "steps", "return", "95% interval", "IQM", "tasks made worse"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for label, step, mean, low, high, iqm, worse in rows(results):
        table.add_row(
            label if step == 0 else "",
            str(step),
            f"{mean:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{iqm:.1f}",
            f"{worse:.0%}" if step else "",
        )
    return table
