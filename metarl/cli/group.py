"""The group of all commands, and the arguments that several of them take."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from metarl.cli.completion import complete_names
from metarl.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MAX_FILES = 6  # that are listed by name
MAX_WIDTH = 10_000  # of a table, characters


class PathType(click.Path):
    """A path; an empty text, as of a variable of the shell that is not set, is none."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "":
            self.fail("expected a path, got ''", param, ctx)
        return super().convert(value, param, ctx)


FILE = PathType(path_type=Path, readable=False)

config_argument = functools.partial(
    click.argument,
    "config",
    expose_value=False,
    help="A YAML file, or a name of metarl list configs.",
    shell_complete=complete_names("metarl.config_files:config_names", "file"),
)


@click.group(
    invoke_without_command=True,
    epilog="Every command has a --help. Documentation: https://github.com/metarl/metarl",
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="metarl-torch", message="%(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Meta-reinforcement learning."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def given(flag: str) -> bool:
    """Return whether the command line has a flag, by its name in Python."""
    source = click.get_current_context().get_parameter_source(flag)
    return source is ParameterSource.COMMANDLINE


def refuse_flags(flags: Sequence[str], where: str) -> None:
    """Check that none of some flags is given, which would change nothing.

    Raises:
        UserError: if one is; `where` says what it does not influence.
    """
    for flag in filter(given, flags):
        raise UserError(f"--{flag.replace('_', '-')}: has no influence {where}")


def print_files(files: Sequence[Path]) -> None:
    """Print the paths of written files, the first ones of many."""
    shown = files if len(files) <= MAX_FILES + 1 else files[:MAX_FILES]
    for file in shown:
        click.echo(file)
    if more := len(files) - len(shown):
        click.echo(f"and {more} more files in {files[-1].parent}")


def print_table(table: Table) -> None:
    """Print a table, as wide as the terminal, or 160 characters without a terminal. It is wider
    where a name would be cut or a word broken otherwise."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.width = fit_columns(table, console)
    console.print(table)


def fit_columns(table: Table, console: Console) -> int:
    """Set the widths of the columns of a table, so that all of them fit on a console, no word is
    broken, and columns of short texts stay on one line first.

    Returns:
        The width that the table may have: that of the console, or more if it needs more.
    """
    from rich.measure import Measurement

    wide = console.options.update(max_width=MAX_WIDTH)
    least, most = [], []
    for column in table.columns:
        cells = [Measurement.get(console, wide, cell) for cell in (column.header, *column.cells)]
        size = max(column.min_width or 0, *(cell.maximum for cell in cells))
        word = max(column.min_width or 0, *(cell.minimum for cell in cells))
        least.append(size if column.no_wrap else word)
        most.append(size)
    borders = Measurement.get(console, wide, table).maximum - sum(most)
    room = max(0, console.width - borders - sum(least))
    by_need = sorted(range(len(most)), key=lambda place: most[place] - least[place])
    for done, place in enumerate(by_need):
        more = min(most[place] - least[place], room // (len(most) - done))
        table.columns[place].width = least[place] + more
        room -= more
    return max(console.width, borders + sum(least))
