"""reporting.tables: the tables of the command `metarl list`."""

import io
import re

import pytest
from rich.console import Console

from metarl import config_files
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


def test_configs_show_steps_time_and_return_where_they_were_measured():
    lines = {line.split()[0]: line for line in rendered(tables.configs(), 80).splitlines() if line}
    tuned, other = lines["point_nav/maml_trpo_tuned"], lines["point_nav/anil"]
    # 120 iterations of 20 tasks x 20 episodes x 2 times x 100 steps
    assert re.fullmatch(r"\S+ +9\.6M +3-4 +-0\.96\d* \(-.* to -.*\) \[3\] *", tuned)
    assert other.split() == ["point_nav/anil", "16M"]
    assert all(len(line) <= 80 for line in lines.values())


def test_a_config_that_is_not_valid_has_a_row_that_says_so(tmp_path, monkeypatch):
    folder = tmp_path / "configs" / "point_nav"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("env: [")
    (folder / "wrong.yaml").write_text("env: {family: point_nav}\niterations: none")
    (folder / "maml_trpo.yaml").write_text("env: {family: point_nav}")
    for module in (config_files, tables):
        monkeypatch.setattr(module, "config_folder", lambda: tmp_path / "configs")
    (folder.parent / config_files.MEASURED).write_text("{}")
    lines = {line.split()[0]: line for line in rendered(tables.configs(), 300).splitlines() if line}
    assert "not valid: " in lines["point_nav/broken"]
    assert "iterations: expected" in lines["point_nav/wrong"]
    assert lines["point_nav/maml_trpo"].split()[1].endswith("M")


def test_cells_of_a_measured_config():
    row = {"seeds": 2, "core_minutes": [7, 3, 5], "return": -1.234, "interval": [-2.0, 0.4567]}
    assert tables.measured_cells(row) == ("3-7", "-1.23 (-2 to 0.457) [2]")
    assert tables.measured_cells({**row, "core_minutes": [7, 7]})[0] == "7"
    large = {**row, "return": 1046.5, "interval": [773.4, 1319.7]}
    assert tables.measured_cells(large)[1] == "1,046 (773 to 1,320) [2]"
    assert tables.measured_cells(None) == ("", "")
