"""What `metarl list` shows."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from gymnasium.spaces import Discrete
from rich.markup import escape
from rich.table import Table

from envs import FAMILIES, TaskFamily, WorkerError, make_family
from metarl.checks import UserError
from metarl.config import config_names, load_config
from metarl.runs import Run


def table(*columns: str) -> Table:
    """Return an empty table in the style of all of them."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column)
    return made


def families() -> Table:
    """List the task families."""
    made = table("family", "task", "horizon", "obs", "action", "source", "what to do")
    for name, cls in FAMILIES.items():
        family = make_family(name)
        obs, action = spaces(family)
        low, high = (
            np.array2string(bound, separator=", ", threshold=6, edgeitems=1)
            for bound in (family.task_space.low, family.task_space.high)
        )
        made.add_row(
            name,
            escape(f"{low} to {high}"),
            str(family.horizon),
            obs,
            action,
            family.source,
            (cls.__doc__ or "").splitlines()[0],
        )
    return made


def spaces(family: TaskFamily) -> tuple[str, str]:
    """Write the sizes of observation and action, or ? where the environment is not there."""
    try:
        obs, action = family.observation_space, family.action_space
    except WorkerError:
        return "?", "?"
    is_index = isinstance(action, Discrete)
    return str(obs.shape[0]), f"1 of {action.n}" if is_index else str(action.shape[0])


def configs() -> Table:
    """List the configs that come with the package."""
    made = table("config", "family", "method", "tasks x episodes", "iterations")
    for name in config_names():
        config = load_config(name)
        made.add_row(
            name,
            config.env.name,
            config.method,
            f"{config.num_tasks} x {config.num_episodes}",
            str(config.iterations),
        )
    return made


def runs(folder: Path) -> Table:
    """List the runs in a folder."""
    made = table("run", "family", "method", "seed", "iterations", "before -> after", "age", "size")
    for path in sorted(folder.glob("*/config.yaml")):
        try:
            run = Run.open(path.parent)
            lines = run.metrics()
        except (UserError, ValueError) as error:
            made.add_row(path.parent.name, f"not readable: {error}")
            continue
        last = lines[-1] if lines else None
        made.add_row(
            path.parent.name,
            run.config.env.name,
            run.config.method,
            str(run.config.seed),
            f"{len(lines)}/{run.config.iterations}",
            f"{last['return_before']:.1f} -> {last['return_after']:.1f}" if last else "",
            age(time.time() - path.stat().st_mtime),
            f"{size(path.parent) / 1e6:.1f} MB",
        )
    return made


def age(seconds: float) -> str:
    """Write a duration in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
