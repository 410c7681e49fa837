"""Compare methods by the mean return over all tasks, and over the worst fifth of them.

    python -m examples.worst_tasks RUN [RUN ...] --split test --tasks 200

Runs with one label (`method`) are seeds of one method. The worst tasks are those of each run: after
each number of adaptations, the fifth of the tasks with the lowest mean returns.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from metarl.core.parallel import available_cores
from metarl.core.statistics import mean_interval
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.loaded import load
from metarl.runs.run import Run

SHARE = 0.2


def by_run(runs: list[Run], split: str, tasks: int, steps: int) -> dict[str, list[np.ndarray]]:
    """Return the mean returns on tasks, (tasks, steps + 1), of each run, by method."""
    found: dict[str, list[np.ndarray]] = {}
    for run in runs:
        result = evaluate(
            load(run.directory),
            run.config.env,
            split=split,
            tasks=tasks,
            steps=steps,
            threads=available_cores(),
        )
        found.setdefault(run.config.method, []).append(result.returns.mean(2))
    return found


def worst(returns: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Return the mean over the worst share of tasks, (P,), of returns (tasks, P)."""
    number = max(1, round(share * len(returns)))
    return np.sort(returns, axis=0)[:number].mean(axis=0)


def table(found: dict[str, list[np.ndarray]]) -> list[str]:
    """Return a Markdown table: means over seeds, with intervals, and the value of each seed."""
    lines = [
        "| method | adaptations | mean | by seed | worst fifth | by seed |",
        "|---|---|---|---|---|---|",
    ]
    for method, runs in found.items():
        for step in range(runs[0].shape[1]):
            cells = [method, str(step)]
            for scores in (
                [returns[:, step].mean() for returns in runs],
                [worst(returns)[step] for returns in runs],
            ):
                low, high = mean_interval(np.array(scores)[:, None])
                interval = f" ({low:.1f} to {high:.1f})" if len(runs) > 1 else ""
                seeds = ", ".join(f"{score:.1f}" for score in scores)
                cells += [f"{np.mean(scores):.1f}{interval}", seeds]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare methods on the worst tasks.")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args()
    runs = [Run.open(path) for path in options.runs]
    found = by_run(runs, options.split, options.tasks, options.steps)
    print("\n".join(table(found)))
    if options.out:
        stored = {name: [each.round(3).tolist() for each in runs] for name, runs in found.items()}
        options.out.write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
