"""Every command and all Python on the pages of errands works, in the order of the page."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess

import pytest

import metarl
from metarl.cli.main import main
from metarl.config_files import load_config
from metarl.envs.contract import CHECKS
from tests.docs.commands import ROOT, blocks, commands, small, write_files

PAGES = ["README.md"] + [
    f"docs/{name}.md"
    for name in ("quickstart", "training", "tuning", "tracking", "evaluation", "pretrained")
]
PAGES += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/guides/*.md"))
ELSEWHERE_RUN = {
    "docs/adapted.md": "tests/docs/test_adapted_page.py",
    "docs/comparison.md": "tests/docs/test_numbers.py, tests/examples/test_agents.py",
    "docs/cluster.md": "tests/training/test_cluster_runs.py: Ray takes seconds to start",
    "docs/extending.md": "tests/examples, tests/training/test_trackers.py",
    "docs/external.md": "tests/envs/external, tests/examples: it needs Meta-World",
    "docs/library.md": "tests/test_adaptation.py",
    "docs/python.md": "tests/docs/test_python_page.py",
    "docs/methods.md": "measurements of hours; tests/agents",
    "docs/objectives_measured.md": "measurements of hours; tests/agents",
    "docs/results.md": "tests/docs/test_numbers.py",
}
"""The other pages with commands or Python, and why they are not run here; the commands of all pages
are checked by tests/docs/test_commands.py."""
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
    write_files(page, clone)
    for number, command in enumerate(commands(page), start=1):
        program = command.split()[0]
        if program == "metarl":
            words, _, file = command.partition(" > ")
            with contextlib.ExitStack() as stack:
                if file:
                    stack.enter_context(
                        contextlib.redirect_stdout(stack.enter_context(open(file, "w")))
                    )
                assert main(small(words, number)) == 0, command
        elif program not in ELSEWHERE:
            shown = command.replace("make ", "make --dry-run ")
            subprocess.run(["bash", "-c", shown], check=True, stdout=subprocess.DEVNULL)
    monkeypatch.setattr(metarl, "load_config", functools.partial(load_config, **TINY))
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec", dont_inherit=True), {"__name__": page})  # noqa: S102 (it is the test)


def test_no_page_is_forgotten():
    pages = {str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")}
    shown = {page for page in pages if [*commands(page), *blocks(page, "python")]}
    assert shown - {*PAGES} == {*ELSEWHERE_RUN}


def test_readme_counts_the_checks():
    assert f"`metarl check-env` makes {len(CHECKS)} checks" in (ROOT / "README.md").read_text()
