"""The measured cost and return of each config, for `metarl list configs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from examples.agents.measure import EXPERIENCE, tasks_text
from examples.agents.scores import common, evaluation, having
from examples.reproduce.figures import means
from examples.reproduce.measure import evaluations, fingerprint
from metarl.config_files import config_names, load_config
from metarl.runs.atomic_io import write_atomically
from metarl.training.many_runs import Job


def measured_configs(results: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured of each config, by its name.

    Configs whose runs had another number of iterations, or other settings, are left out.

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
        key = family, fingerprint(Job(name, {}, Path()))
        method, row = rows.get(key, ("", None))
        if row is None:
            continue
        adaptations = 0 if method.startswith("oracle") else 1
        minutes = [60 * hours for hours in row["hours"]]
        found[name] = entry(minutes, means(evaluations(family, row))[adaptations])
    return found


def measured_agents(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the same of the configs whose agents do not adapt by gradients, after one episode.

    Args:
        stored: the results of examples.agents, whose runs have the settings of these configs.
    """
    found = {}
    for name in config_names():
        config = load_config(name)
        family = tasks_text(config)
        played = having(EXPERIENCE, stored.get(family, {}))
        runs = [*played.get(config.method, {}).values()]
        if config.agent.kind == "maml" or not runs:
            continue
        parts = common([run[EXPERIENCE] for run in runs])
        row = means([evaluation(family, part) for part in parts])[1]
        found[name] = entry([run["core_minutes"] for run in runs], row)
    return found


def entry(core_minutes: list[float], row: np.ndarray) -> dict[str, Any]:
    """Return what was measured of a config, from the minutes of its runs and the mean return with
    its interval, (3,)."""
    mean, low, high = np.round(row, 2).tolist()
    return {
        "seeds": len(core_minutes),
        "core_minutes": [round(minutes) for minutes in core_minutes],
        "return": mean,
        "interval": [low, high],
    }


def write_measured(results: dict[str, Any], agents: dict[str, Any], path: Path) -> None:
    """Write what was measured of each config, one config on each line."""
    rows = measured_configs(results) | measured_agents(agents)
    lines = [f"{json.dumps(name)}: {json.dumps(rows[name])}" for name in sorted(rows)]
    write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
