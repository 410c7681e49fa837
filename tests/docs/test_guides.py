"""Every command and all Python on the pages of errands works, in the order of the page."""

from __future__ import annotations

import functools
import shutil
import subprocess

import pytest

import metarl
from metarl.cli.main import main
from metarl.config_files import load_config
from metarl.envs.contract import CHECKS
from tests.docs.commands import ROOT, blocks, commands, small

PAGES = ["README.md", "docs/quickstart.md", "docs/training.md", "docs/tuning.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/guides/*.md"))
ELSEWHERE = {"pip", "wandb"}
"""Programs that need a network: tests/examples/test_sweeps.py has the command of a sweep."""
TINY = {"iterations": 2, "num_tasks": 2, "num_episodes": 2, "env.horizon": 6}
TINY |= {"tracking.mode": "disabled"}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with the parts of a clone that pages name, as the current one."""
    shipped = "docs/results/runs"
    shutil.copytree(ROOT / shipped, tmp_path / shipped)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_works(page, clone, monkeypatch):
    for text in blocks(page, "yaml"):  # a file, whose first line has its name
        (clone / text.split()[1]).write_text(text)
    for number, command in enumerate(commands(page), start=1):
        program = command.split()[0]
        if program == "metarl":
            assert main(small(command, number)) == 0, command
        elif program not in ELSEWHERE:
            shown = command.replace("make ", "make --dry-run ")
            subprocess.run(["bash", "-c", shown], check=True, stdout=subprocess.DEVNULL)
    monkeypatch.setattr(metarl, "load_config", functools.partial(load_config, **TINY))
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), {"__name__": page})  # noqa: S102 (it is the test)


def test_readme_counts_the_checks():
    assert f"`metarl check-env` makes {len(CHECKS)} checks" in (ROOT / "README.md").read_text()
