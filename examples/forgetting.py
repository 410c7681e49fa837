"""Plasticity and forgetting of runs on sequences of tasks, each against those of another method.

    python -m examples.forgetting runs/maml_trpo-seed* runs/continual_maml-seed*

evaluates every run by the protocol `continual` and prints a table. Runs of one method are its
seeds. The method of the first run is the one that the others are compared with. Sequences that one
run could not play to their end are left out for all. With --out FILE the measures of each sequence
are added to a file, which holds the methods of one family by seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.agents.measure import SEQUENTIAL
from examples.command import run_script, seeds_by_method
from metarl.core.statistics import difference_interval, mean_interval
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.continual import forgetting
from metarl.reporting.pooling import comparable
from metarl.runs.atomic_io import make_output_folder, write_atomically
from metarl.runs.result import Evaluation, part_label

MEASURES = ("plasticity", "forgetting", "average")


def main() -> None:
    """Evaluate, tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--split", default="test")
    parser.add_argument("--tasks", type=int, default=200, help="a multiple of five")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1, help="adaptations to each task")
    parser.add_argument("--out", type=Path, help="a JSON file that results are added to")
    args = parser.parse_args()

    settings = {name: getattr(args, name) for name in ("split", "tasks", "episodes", "steps")}
    methods = seeds_by_method(args.runs)
    if args.out:
        make_output_folder(args.out.parent)
    results: dict[str, list[Evaluation]] = {}
    for method, seeds in methods.items():
        for each in seeds:
            parts, _ = evaluate_run(each.directory, protocol="continual", **settings)
            results.setdefault(method, []).append(parts[part_label(method, SEQUENTIAL)])
    found = {
        method: [
            {"seed": each.config.seed, **measures(result)}
            for each, result in zip(methods[method], played, strict=True)
        ]
        for method, played in comparable(results).items()
    }
    print("\n".join(table(found)))
    if args.out:
        known = json.loads(args.out.read_text()) if args.out.exists() else {}
        write_atomically(args.out, (json.dumps(merged(known, found)) + "\n").encode())


def measures(result: Evaluation) -> dict[str, list[float]]:
    """Return the `MEASURES` of each sequence."""
    measured = forgetting(result)
    return {name: np.round(getattr(measured, name), 2).tolist() for name in MEASURES}


def merged(known: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return known and new results, by method; a seed that is in both is taken from the new."""
    both: dict[str, Any] = {}
    for method in {**known, **found}:
        seeds = {each["seed"]: each for part in (known, found) for each in part.get(method, ())}
        both[method] = [seeds[seed] for seed in sorted(seeds)]
    return both


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        found: of each method, seed by seed, the `MEASURES` of each sequence.
    """
    lines = [
        f"| Method | {' | '.join(MEASURES)} | change of plasticity | change of forgetting |",
        f"|---{'|---' * (len(MEASURES) + 2)}|",
    ]
    by_method = {  # (M, S, n)
        name: np.array([[seed[measure] for seed in seeds] for measure in MEASURES])
        for name, seeds in found.items()
    }
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
    run_script(main)
