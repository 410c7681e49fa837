"""What is measured of a run, and how it is stored.

The file of results has, for each family (with its settings), method and seed, the cost of the
training and the mean returns of all test tasks, by measurement: see `measure`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from metarl.config import Config
from metarl.core.errors import UserError
from metarl.envs import FAMILIES
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.loaded import load
from metarl.evaluation.protocols import perturbed_families
from metarl.runs.result import Evaluation, part_label
from metarl.runs.run import Run

EXPERIENCE = "few_episode"
DISTURBED, UNADAPTED = "disturbed", "unadapted"
MEASUREMENTS = (EXPERIENCE, DISTURBED, "continual")
"""What is measured by default. UNADAPTED is DISTURBED without adaptation, in a row of its own."""
SETTINGS: dict[str, dict[str, Any]] = {
    EXPERIENCE: {"experience": (1, 2, 3, 5, 10, 20, 60)},
    DISTURBED: {"steps": 2, "episodes": 5},
    UNADAPTED: {"steps": 0, "episodes": 5},
    "continual": {"steps": 1, "episodes": 5, "tasks": 100},
}
"""Settings of measurements, where not the defaults."""
NOMINAL, NEW_TASKS = "nominal", "out of distribution"
SHOCKS = {
    NOMINAL: "undisturbed",
    "observation_noise 0.1": "noise 0.1",
    "action_delay 2": "delay of 2",
    "motor_strength 0.6": "60% strength",
    NEW_TASKS: "new tasks",
}
"""Of the parts of `robust` and `ood`, those in the table, with the titles of its columns."""
SEQUENTIAL = "sequential"
OWN_SETTINGS = ("action_scale", "observe_task")
"""Settings of a family that belong to the agent: the unit of its actions, what an oracle sees."""


def read(file: Path) -> dict[str, Any]:
    """Return the results in a file; none if there is no file."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def read_complete(file: Path) -> dict[str, Any]:
    """Return the results in a file on the tasks that every seed of every method on a family has
    played to their end, by measurement."""
    return {family: complete(family, methods) for family, methods in read(file).items()}


def complete(family: str, methods: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of the methods on a family without the tasks that one of their seeds has
    not played to their end.

    Raises:
        UserError: if no task is left, or seeds have different numbers of tasks.
    """
    seeds = [parts for seeds in methods.values() for parts in seeds.values()]
    names = {name for parts in seeds for name, part in parts.items() if isinstance(part, dict)}
    kept: dict[str, np.ndarray] = {}
    for name in names:
        rows = [parts[name]["returns"] for parts in seeds if name in parts]
        if len(numbers := {len(each) for each in rows}) > 1:
            raise UserError(f"{family}: {name}: seeds with {min(numbers)} and {max(numbers)} tasks")
        kept[name] = np.all([[None not in row for row in each] for each in rows], axis=0)
        if not kept[name].any():
            raise UserError(f"{family}: {name}: no task that every seed has played to its end")

    def of_kept(name: str, part: Any) -> Any:
        if name not in names:
            return part
        rows = [key for key in ("returns", "tasks") if key in part]
        return part | {key: list(compress(part[key], kept[name])) for key in rows}

    return {
        method: {
            seed: {name: of_kept(name, part) for name, part in parts.items()}
            for seed, parts in seeds.items()
        }
        for method, seeds in methods.items()
    }


def tasks_text(config: Config) -> str:
    """Return a family and its settings, as far as they are not the defaults, as text."""
    family: Any = FAMILIES[config.env.name]
    default = family()
    changed = (
        f"{key}: {value}"
        for key, value in config.to_dict()["env"].items()
        if key not in ("family", *OWN_SETTINGS) and value != getattr(default, key)
    )
    return ", ".join([config.env.name, *changed])


def measure(folder: Path, name: str, deterministic: bool, against: Sequence[str]) -> dict[str, Any]:
    """Return the results of a measurement of a run, and of its baselines by experience, by row of
    the tables.

    Args:
        folder: the run's.
        name: one of `MEASUREMENTS`, or `UNADAPTED`.
        deterministic: whether measured episodes have deterministic actions.
        against: the baselines.

    Returns:
        The cost of the training, `env_steps` and `core_minutes`, which is the number of iterations
        times the median of their minutes times the run's threads; and for each part that is
        measured `x`, `num_all_tasks`, and `returns`, (B, P), means over episodes. Of disturbances P
        is 1: the returns after the last adaptation. If tasks repeat, as the distribution is finite,
        there are `tasks` too, (B, task_dim). Returns are None of tasks that could not be played to
        their end.
    """
    run = Run.open(folder)
    seconds = [line["seconds"] for line in run.timings()]
    cost = {
        "env_steps": run.metrics()[-1]["env_steps"],
        "core_minutes": round(
            len(seconds) * float(np.median(seconds)) / 60 * run.config.num_threads, 1
        ),
        "deterministic": deterministic,
    }
    settings = {**SETTINGS.get(name, {}), "deterministic": deterministic}
    own = f"{run.config.method}, not adapting" if name == UNADAPTED else run.config.method
    found: dict[str, Any] = {own: cost}
    if name in (DISTURBED, UNADAPTED):
        under = under_disturbances(run, **settings)
        results = {part_label(own, part): result for part, result in under.items()}
    else:
        baselines = against if name == EXPERIENCE else []
        found |= {label: {} for label in baselines}
        with TemporaryDirectory() as out:
            results, _ = evaluate_run(
                folder, protocol=name, against=baselines, out=Path(out), **settings
            )
    for method, parts in found.items():
        for part in (name, *SHOCKS, SEQUENTIAL):
            result = results.get(part_label(method, part if part != name else ""))
            if result is not None:
                returns = np.round(result.by_task, 2).astype(object)
                returns[~result.complete_tasks] = None
                first = len(result.x) - 1 if part in SHOCKS else 0
                parts[part] = {
                    "x": list(result.x[first:]),
                    "num_all_tasks": result.num_all_tasks,
                    "returns": returns[:, first:].tolist(),
                }
                if result.num_all_tasks is not None:
                    parts[part]["tasks"] = np.round(result.tasks, 6).tolist()
    return found


def under_disturbances(run: Run, **settings: Any) -> dict[str, Evaluation]:
    """Return what a run reaches under each of the `SHOCKS` that its family can have."""
    agent, config, family = load(run.directory), run.config, run.config.env
    settings |= {"threads": config.num_threads, "on_failure": config.on_failure}
    played = {part: (env, "test") for part, env in perturbed_families(family).items()}
    if "ood" in family.splits:
        played[NEW_TASKS] = family, "ood"
    return {
        part: evaluate(agent, env, split=split, **settings)
        for part, (env, split) in played.items()
        if part in SHOCKS
    }
