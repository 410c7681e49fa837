"""Plasticity and forgetting of runs on sequences of tasks, each against those of another method.

    python -m examples.forgetting runs/maml_trpo-seed* runs/continual_maml-seed*

evaluates every run by the protocol `continual` and prints a table. Runs of one method are its
seeds. The method of the first run is the one that the others are compared with.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from metarl.core.statistics import difference_interval, mean_interval
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.continual import forgetting
from metarl.runs.result import part_label
from metarl.runs.run import Run

PART = "sequential"
MEASURES = ("plasticity", "forgetting", "average")


def main() -> None:
    """Evaluate, tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--split", default="test")
    parser.add_argument("--tasks", type=int, default=200, help="a multiple of five")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1, help="adaptations to each task")
    args = parser.parse_args()

    settings = {name: getattr(args, name) for name in ("split", "tasks", "episodes", "steps")}
    scores: dict[str, list[np.ndarray]] = {}
    for folder in args.runs:
        run = Run.open(folder)
        results, _ = evaluate_run(folder, protocol="continual", **settings)
        found = forgetting(results[part_label(run.config.method, PART)])
        by_sequence = np.stack([getattr(found, name) for name in MEASURES])  # (measures, sequences)
        scores.setdefault(run.config.method, []).append(by_sequence)
    print("\n".join(table(scores)))


def table(scores: Mapping[str, Sequence[np.ndarray]]) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        scores: of each method, seed by seed, the measures of each sequence, (M, n).
    """
    lines = [
        f"| Method | {' | '.join(MEASURES)} | change of plasticity | change of forgetting |",
        f"|---{'|---' * (len(MEASURES) + 2)}|",
    ]
    by_method = {name: np.stack(seeds, axis=1) for name, seeds in scores.items()}  # (M, S, n)
    first = next(iter(by_method.values()))
    for name, values in by_method.items():
        number = values.shape[1]
        cells = [f"{name} ({number} seed{'s' * (number > 1)})"]
        for mean, low, high in zip(values.mean(axis=(1, 2)), *mean_interval(values), strict=True):
            cells.append(f"{mean:.1f} ({low:.1f} to {high:.1f})")
        if values is first:
            cells += ["", ""]
        else:
            bounds = difference_interval(values, first)
            changes = (values.mean(axis=1) - first.mean(axis=1)).mean(axis=1)
            shares = changes / np.abs(first.mean(axis=(1, 2)))
            rows = list(zip(changes, *bounds, shares, strict=True))[:2]
            cells += [f"{c:+.1f} ({low:+.1f} to {high:+.1f}), {s:+.0%}" for c, low, high, s in rows]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
