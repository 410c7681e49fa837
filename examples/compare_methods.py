"""Train every method of a family with a few seeds, evaluate it, and print the table.

    python -m examples.compare_methods point_nav

Finished runs are not trained again, so the command can be stopped and repeated at any time.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from examples.many_runs import Job, finish_all
from metarl.config_files import config_names, load_config
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.result import Evaluation, pooled_interval
from metarl.evaluation.result_file import DEFAULTS, result_stem
from metarl.reporting.summary import read_results

EVALUATION: dict[str, Any] = {"tasks": 40, "episodes": 20, "steps": 3}
SCHEDULE: dict[str, Any] = {"agent.inner.test_lr_schedule": "constant"}
VARIANTS = ("_tuned", "_gymnasium")  # endings of configs with other settings of a method
REFERENCE = "maml_trpo"  # the method whose initial parameters are the random baseline


@dataclass(frozen=True)
class Row:
    """A method of the table: its name, its result of each seed, and the command that trains it."""

    name: str
    results: Sequence[Evaluation]
    command: str

    @property
    def by_seed(self) -> np.ndarray:
        """Mean return of each seed after each of K steps, (S, K + 1)."""
        return np.array([result.mean for result in self.results])


def main() -> None:
    """Train, evaluate, tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", help="a folder of configs, such as point_nav")
    parser.add_argument("--iterations", type=int, default=40, help="with one inner step")
    parser.add_argument("--num-tasks", type=int, default=20, help="per meta-batch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"), help="folder of runs")
    args = parser.parse_args()

    names = [name for name in config_names() if name.startswith(f"{args.family}/")]
    methods = [
        name
        for name in names
        if not name.endswith(VARIANTS) and load_config(name).agent.kind == "maml"
    ]
    settings = {name: budget(name, args.iterations, args.num_tasks) for name in methods}
    pairs = [(name, seed) for seed in range(args.seeds) for name in methods]
    folders = {pair: args.out / f"{pair[0].replace('/', '-')}-seed{pair[1]}" for pair in pairs}
    jobs = [
        Job(name, {**settings[name], "seed": seed}, folders[name, seed]) for name, seed in pairs
    ]
    finish_all(jobs, args.jobs, evaluate_job)

    rows = []
    for name in methods:
        flags = (f"--{key.replace('_', '-')} {value}" for key, value in settings[name].items())
        command = " ".join(["metarl train", name, *flags])
        rows.append(row(name, command, [folders[name, seed] for seed in range(args.seeds)]))
    reference = folders[f"{args.family}/{REFERENCE}", 0]
    rows.append(row("/random", "", [reference]))
    print("\n".join(table(rows)))


def budget(name: str, iterations: int, num_tasks: int) -> dict[str, int]:
    """Return the settings of a training that takes as many env steps as that of any method."""
    # Without adaptation an iteration plays half of the episodes.
    factor = 1 if load_config(name).sampling.adaptation_steps else 2
    return {"num_tasks": num_tasks, "iterations": factor * iterations}


def evaluate_job(job: Job) -> None:
    """Evaluate a run; the reference's also before it had learned anything."""
    against = ["random"] if job.name.endswith(f"/{REFERENCE}") else []
    evaluate_run(job.folder, against=against, **EVALUATION, **SCHEDULE)


def result_file(folder: Path) -> Path:
    """Return the result file of the evaluation of a run."""
    numbers = {**DEFAULTS, **EVALUATION}
    stem = result_stem("k_step", "test", "latest", numbers, SCHEDULE)
    return folder / "evaluation" / f"{stem}.json"


def row(name: str, command: str, folders: Sequence[Path]) -> Row:
    """Return name, results by seed, and command of a method."""
    method = name.split("/")[1]
    return Row(method, [read_results(result_file(each))[method][""] for each in folders], command)


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a Markdown table, the best return after one step first.

    The cells of adaptations that an agent cannot make are empty, and such agents come last.
    """
    lines = [
        "| Method | 0 | 1 | 95% interval | by seed | 2 | 3 | Command |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def rank(row: Row) -> float:
        returns = row.by_seed
        return -returns[:, 1].mean() if returns.shape[1] > 1 else np.inf

    for row in sorted(rows, key=rank):
        name, by_seed, command = row.name, row.by_seed, row.command
        code = f"`{command}`" if command else "untrained"
        if by_seed.shape[1] == 1:
            lines.append(f"| {name} | {by_seed.mean():.1f} | | | | | | {code} |")
            continue
        low, high = pooled_interval(row.results)[1]
        means = [f"{value:.1f}" for value in by_seed.mean(0)]
        seeds = ", ".join(f"{value:.1f}" for value in by_seed[:, 1])
        lines.append(
            f"| {name} | {means[0]} | **{means[1]}** | {low:.1f} to {high:.1f} | {seeds} | "
            f"{means[2]} | {means[3]} | {code} |"
        )
    return lines


if __name__ == "__main__":
    main()
