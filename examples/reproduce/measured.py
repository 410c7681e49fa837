"""The measured cost and return of each config, for `metarl list configs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from examples.reproduce.figures import means
from examples.reproduce.measure import evaluations, fingerprint
from examples.reproduce.solver import solver
from metarl.config_files import config_names
from metarl.runs.atomic_io import write_atomically
from metarl.training.many_runs import Job


def measured_configs(results: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured of each config, by its name.

    Configs whose runs had another number of iterations, or settings other than those of the
    config and of `solver`, are left out.

    Args:
        results: the rows of the reproduction by family and method, as in its results file.

    Returns:
        `seeds`, the number of runs; `core_minutes` of each; and the `return` on the test tasks
        after one adaptation (before adaptation for an oracle), with its 95% `interval`.
    """
    rows = {
        (family, row["config"]): (method, row)
        for family, methods in results.items()
        for method, row in methods.items()
        # Not the untrained agent, other step sizes or other checkpoints.
        if row["hours"] and method.partition(",")[2] in ("", " whole budget")
    }
    found = {}
    for name in config_names():
        family = name.partition("/")[0]
        key = family, fingerprint(Job(name, solver(name), Path()))
        method, row = rows.get(key, ("", None))
        if row is None:
            continue
        adaptations = 0 if method.startswith("oracle") else 1
        mean, low, high = np.round(means(evaluations(family, row))[adaptations], 2).tolist()
        found[name] = {
            "seeds": len(row["seeds"]),
            "core_minutes": [round(60 * hours) for hours in row["hours"]],
            "return": mean,
            "interval": [low, high],
        }
    return found


def write_measured(results: dict[str, Any], path: Path) -> None:
    """Write what was measured of each config, one config on each line."""
    rows = measured_configs(results).items()
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows]
    write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
