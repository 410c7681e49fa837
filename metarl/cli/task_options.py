"""The flags of tasks of one's own, which evaluate and render share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metarl.cli.group import FILE
from metarl.cli.parser import Numbers
from metarl.core.errors import UserError
from metarl.core.parsing import read_numbers

if TYPE_CHECKING:
    import numpy as np

    from metarl.envs import TaskFamily

task_option = click.option(
    "--task",
    cls=Numbers,
    multiple=True,
    metavar="NUMBERS",
    help="A task of your own, such as `0.5`, or `1 2` for one of two numbers. Can be repeated.",
)
task_file_option = click.option(
    "--task-file",
    type=FILE,
    metavar="FILE",
    help="Tasks of your own: .txt or .csv with a task on each line, or an array in .json or .npy.",
)


def given_tasks(
    family: TaskFamily,
    task: Sequence[str],
    task_file: Path | None,
    others: Mapping[str, Any],
) -> np.ndarray | None:
    """Return the tasks of one's own of `--task` or `--task-file`, (B, task_dim); None without.

    Args:
        family: the family of the tasks.
        task: the values of `--task`.
        task_file: the value of `--task-file`.
        others: the values of the flags that these exclude, by flag; None where one is not given.

    Raises:
        UserError: if the tasks cannot be read or are not the family's, or a flag is given that
            these exclude; names the flag or the file.
    """
    from metarl.evaluation.tasks import own_tasks, read_tasks

    own = {"--task": task or None, "--task-file": task_file}
    given = [flag for flag, value in (own | {**others}).items() if value is not None]
    if not own.keys() & given:
        return None
    if len(given) > 1:
        raise UserError(f"{given[0]}: not allowed with argument {given[1]}")
    if task_file is not None:
        return own_tasks(family, read_tasks(task_file), str(task_file))
    return own_tasks(family, [read_numbers(text) for text in task], "--task")
