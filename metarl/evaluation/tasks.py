"""The tasks of an evaluation: the first tasks of a named set, or tasks of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np

from metarl.core.errors import ConfigError, UserError, check, check_known, check_whole, shown
from metarl.core.parsing import error_summary, read_json, read_numbers
from metarl.envs import SPLITS, TaskError, TaskFamily

CUSTOM = "custom"
"""The split of results on tasks of one's own."""

Tasks: TypeAlias = int | Sequence[float] | Sequence[Sequence[float]] | np.ndarray
"""A number of tasks of a set; or tasks of one's own, (B, task_dim), see `own_tasks`."""


class WrongTask(UserError, TaskError):
    """A task of one's own is not one of the family's."""


def is_number_of_tasks(tasks: Tasks) -> TypeGuard[int]:
    """Return whether `tasks` is a number of tasks of a set, rather than tasks of one's own."""
    return isinstance(tasks, int | np.integer)


def chosen_tasks(family: TaskFamily, split: str, tasks: Tasks) -> np.ndarray:
    """Return the first tasks of a task set, or the tasks of one's own, (B, task_dim).

    Raises:
        ConfigError: if the number of tasks is below 1.
        UserError: if the task set is unknown, not defined for the family, or has fewer tasks.
        ConfigError, WrongTask: as `own_tasks`.
    """
    if not is_number_of_tasks(tasks):
        return own_tasks(family, tasks)
    check_whole("tasks", tasks, 1)
    check_known(split, SPLITS, "unknown split")
    try:
        return family.tasks(split, tasks)
    except ValueError as error:
        raise UserError(f"split: {error}") from error


def split_of(split: str, tasks: Tasks) -> str:
    """Return the split of the results on tasks: `custom` if they are one's own.

    Raises:
        ConfigError: if a split other than the default is given with tasks of one's own.
    """
    if is_number_of_tasks(tasks):
        return split
    check(split in ("test", CUSTOM), "split", "none beside tasks of your own", split)
    return CUSTOM


def own_tasks(family: TaskFamily, tasks: Any, source: str = "tasks") -> np.ndarray:
    """Return tasks of one's own as rows, (B, task_dim) float64.

    Args:
        family: the family of the tasks.
        tasks: (B, task_dim). One axis, (n,), is n tasks where a task is one number, and one task
            otherwise.
        source: the argument, flag or file that gave the tasks, for error messages.

    Raises:
        ConfigError: if `tasks` are not numbers in one or two axes.
        WrongTask: if a task has another size or lies outside the spaces of the family; gives its
            place if there are several.
    """
    size = family.task_space.shape[0]
    expected = f"tasks of {size} number{'s' * (size > 1)} each"
    try:
        rows = np.asarray(tasks, np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{source}: expected {expected}, got {shown(tasks)}") from None
    check(rows.ndim in (1, 2) and rows.size > 0, source, expected, tasks)
    if rows.ndim == 1:
        rows = rows[:, None] if size == 1 else rows[None]
    checked = []
    for number, row in enumerate(rows, start=1):
        try:
            checked.append(family.check_task(row))
        except TaskError as error:
            place = f"task {number}: " if len(rows) > 1 else ""
            raise WrongTask(f"{source}: {place}{error}") from error
    return np.stack(checked)


def read_tasks(path: Path) -> Any:
    """Read tasks from a file: .npy or .json, an array; .txt or .csv, a task on each line.

    In text, numbers are separated by spaces or commas; empty lines, and lines that begin with #,
    are left out.

    Raises:
        UserError: if the file cannot be read; names the line that has something else than numbers.
    """
    if path.suffix == ".json":
        return read_json(path)
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix not in (".txt", ".csv"):
            raise ValueError("expected a file that ends in .npy, .json, .txt or .csv")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        return [
            numbers_of(line, at) for at, line in enumerate(lines, 1) if line[:1] not in ("", "#")
        ]
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: no tasks can be read from it: {error_summary(error)}") from error


def numbers_of(line: str, number: int) -> list[float]:
    """Return the numbers of a line of a file.

    Raises:
        ValueError: if it has something else; gives the number of the line.
    """
    try:
        return read_numbers(line)
    except ValueError:
        raise ValueError(f"line {number}: expected numbers, got {shown(line)}") from None
