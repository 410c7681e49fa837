"""reporting.tables: the tables of the command `metarl list`."""

import io

import pytest
from rich.console import Console

from metarl.config_files import config_names
from metarl.envs import FAMILIES
from metarl.reporting import tables


def rendered(table, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize(
    ("table", "names"), [(tables.configs, config_names()), (tables.families, FAMILIES)]
)
def test_no_name_is_cut(table, names, width):
    text = rendered(table(), width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    first_words = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert first_words >= names.keys()
