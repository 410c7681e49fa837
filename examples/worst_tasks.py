"""Compare methods by the mean return over all tasks, and over the worst fifth of them.

    python -m examples.worst_tasks RUN [RUN ...] --split test --tasks 200

Runs with one label (`method`) are seeds of one method. The worst tasks are those of each run: after
each number of adaptations, the fifth of the distinct tasks with the lowest mean returns.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from examples.command import run_script, seeds_by_method
from metarl.core.parallel import available_cores
from metarl.core.statistics import mean_interval
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.loaded import load
from metarl.runs.atomic_io import make_output_folder, write_atomically
from metarl.runs.run import Run

SHARE = 0.2


def returns_on_tasks(played: Run, split: str, tasks: int, steps: int) -> np.ndarray:
    """Return the mean returns of a run on distinct tasks, (tasks, steps + 1)."""
    result = evaluate(
        load(played.directory),
        played.config.env,
        split=split,
        tasks=tasks,
        steps=steps,
        threads=available_cores(),
        on_failure=played.config.on_failure,
    )
    return result.scores


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
    methods = seeds_by_method(options.runs)
    if options.out:
        make_output_folder(options.out.parent)
    settings = options.split, options.tasks, options.steps
    found = {
        method: [returns_on_tasks(each, *settings) for each in seeds]
        for method, seeds in methods.items()
    }
    print("\n".join(table(found)))
    if options.out:
        stored = {name: [each.round(3).tolist() for each in runs] for name, runs in found.items()}
        write_atomically(options.out, (json.dumps(stored) + "\n").encode())


if __name__ == "__main__":
    run_script(main)
