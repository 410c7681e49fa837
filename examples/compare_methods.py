"""Train every method of a family with a few seeds, evaluate it, and print the table.

    python -m examples.compare_methods point_nav

Finished runs are not trained again, so the command can be stopped and repeated at any time.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.reproduce.measure import evaluations
from metarl.config import Config
from metarl.config_files import config_names, load_config
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.result import pooled_interval
from metarl.evaluation.result_file import DEFAULTS, result_stem
from metarl.reporting.summary import read_results
from metarl.runs.atomic_io import write_atomically
from metarl.training.many_runs import Job, finish_all

EVALUATION: dict[str, Any] = {"tasks": 40, "episodes": 20, "steps": 3}
SCHEDULE: dict[str, Any] = {"agent.inner.test_lr_schedule": "constant"}
VARIANTS = ("_tuned", "_gymnasium")  # endings of configs with other settings of a method
REFERENCE = "maml_trpo"  # the method whose initial parameters are the random baseline


def main() -> None:
    """Train, evaluate, tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", help="a folder of configs, such as point_nav")
    parser.add_argument("--iterations", type=int, default=40, help="with one inner step")
    parser.add_argument("--num-tasks", type=int, default=20, help="per meta-batch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"), help="folder of runs")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="of the results")
    args = parser.parse_args()

    names = [name for name in config_names() if name.startswith(f"{args.family}/")]
    methods = [
        name for name in names if not name.endswith(VARIANTS) and is_compared(load_config(name))
    ]
    settings = {name: budget(name, args.iterations, args.num_tasks) for name in methods}
    pairs = [(name, seed) for seed in range(args.seeds) for name in methods]
    folders = {pair: args.out / f"{pair[0].replace('/', '-')}-seed{pair[1]}" for pair in pairs}
    jobs = [
        Job(name, {**settings[name], "seed": seed}, folders[name, seed]) for name, seed in pairs
    ]
    finish_all(jobs, args.jobs, evaluate_job)

    rows = {}
    for name in methods:
        flags = (f"--{key.replace('_', '-')} {value}" for key, value in settings[name].items())
        command = " ".join(["metarl train", name, *flags])
        method = name.split("/")[1]
        rows[method] = row(method, command, [folders[name, seed] for seed in range(args.seeds)])
    rows["random"] = row("random", "", [folders[f"{args.family}/{REFERENCE}", 0]])
    args.results.mkdir(parents=True, exist_ok=True)
    file = args.results / f"methods-{args.family}.json"
    write_atomically(file, json.dumps(rows, allow_nan=False).encode())
    print("\n".join(table(args.family, rows)))


def is_compared(config: Config) -> bool:
    """Return whether a config is of a gradient-based method that is trained on single tasks."""
    return config.agent.kind == "maml" and config.sampling.sequence == 1


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


def row(method: str, command: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Return what is stored of a method: its command, and the returns by seed, task and step."""
    results = [read_results(result_file(folder))[method][""] for folder in folders]
    return {
        "command": command,
        "returns": [np.round(result.by_task, 2).tolist() for result in results],
        "task_hash": results[0].task_hash,
        "tasks": results[0].tasks.tolist(),
        "num_all_tasks": results[0].num_all_tasks,
    }


def table(family: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table, the best return after one step first.

    The cells of adaptations that an agent cannot make are empty, and such agents come last.
    """
    results = {method: evaluations(family, row) for method, row in rows.items()}
    returns = {
        method: np.array([each.mean for each in seeds]) for method, seeds in results.items()
    }  # (S, K + 1) each
    lines = [
        "| Method | 0 | 1 | 95% interval | by seed | 2 | 3 | Command |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def rank(method: str) -> float:
        by_seed = returns[method]
        return -by_seed[:, 1].mean() if by_seed.shape[1] > 1 else np.inf

    for name in sorted(rows, key=rank):
        by_seed, command = returns[name], rows[name]["command"]
        code = f"`{command}`" if command else "untrained"
        if by_seed.shape[1] == 1:
            lines.append(f"| {name} | {by_seed.mean():.1f} | | | | | | {code} |")
            continue
        low, high = pooled_interval(results[name])[1]
        means = [f"{value:.1f}" for value in by_seed.mean(0)]
        seeds = ", ".join(f"{value:.1f}" for value in by_seed[:, 1])
        lines.append(
            f"| {name} | {means[0]} | **{means[1]}** | {low:.1f} to {high:.1f} | {seeds} | "
            f"{means[2]} | {means[3]} | {code} |"
        )
    return lines


if __name__ == "__main__":
    main()
