"""What the scripts in this folder have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from examples.agents.measure import tasks_text
from metarl.cli.parser import print_error
from metarl.core.errors import StorageError, UserError
from metarl.runs.run import Run


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Call a script's main function and exit with the code that it returns; errors of the user's
    input and of the disk are printed on one line, as those of `metarl` are."""
    try:
        code = main() or 0
    except UserError as error:
        code = print_error(error, 2)
    except StorageError as error:
        code = print_error(error, 1)
    sys.exit(code)


def seeds_by_method(folders: Iterable[Path]) -> dict[str, list[Run]]:
    """Return runs by method, each of which has one run of each of its seeds.

    Raises:
        UserError: if runs are of different families, or of families with different settings; or if
            a method has a seed twice.
    """
    found: dict[str, list[Run]] = {}
    expected = ""
    for folder in folders:
        run = Run.open(folder)
        played = tasks_text(run.config)
        expected = expected or played
        if played != expected:
            raise UserError(f"{folder}: expected a run on {expected}, got one on {played}")
        seeds = found.setdefault(run.config.method, [])
        for other in seeds:
            if other.config.seed == run.config.seed:
                raise UserError(
                    f"{folder}: {run.config.method} has seed {run.config.seed} already, in "
                    f"{other.directory}; label one of the methods (`method` in its config.yaml)"
                )
        seeds.append(run)
    return found
