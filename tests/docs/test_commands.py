"""Every command in the docs has the flags, the keys and the config that it names.

tests/docs/test_guides.py runs those of the pages of errands; these take hours on other pages.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest

from metarl.cli.flags import ConfigTarget
from metarl.cli.main import cli
from metarl.runs.run import Run
from tests.docs.commands import ROOT, blocks, write_files

PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"))
    if not path.is_relative_to(ROOT / "docs/results")
)
CONFIG, RUN = "point_nav/maml_trpo", "pretrained/point_nav"
STANDS_FOR = {"CONFIG": CONFIG, "RUN": RUN, "RUN[:CHECKPOINT]": RUN, "NAME": "point_nav"}
STANDS_FOR |= {"FAMILY": "point_nav", "package.module:Class": "point_nav", "$GYMNASIUM": ""}
STANDS_FOR |= {"my_package.tasks:MyFamily": "point_nav", "path/to/config.yaml": CONFIG}
STANDS_FOR |= {**dict.fromkeys("SNJF", "1"), "...": ""}
"""What pages write for words of the reader's."""


def shown_commands(page: str) -> Iterator[str]:
    """Yield the commands of a page, on one line each: of code, and within sentences."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    code = [block.replace("\\\n", " ") for name in ("", "bash") for block in blocks(page, name)]
    for block in code:
        yield from re.findall(r"^(?:metarl|python) .*", block, re.MULTILINE)
    yield from re.findall(r"^ {4}((?:metarl|python) .*)", outside, re.MULTILINE)
    yield from re.findall(r"`((?:metarl|python) [^`:]+)`", outside)


def words_of(command: str) -> list[str]:
    """Return the arguments of a command, with words that exist for those of the reader's."""
    listed = re.sub(r"\$\(.*?\)", CONFIG, command)  # a list that the shell makes
    listed = listed.partition(" > ")[0]
    words = [STANDS_FOR.get(word, word) for word in shlex.split(listed, comments=True)[1:]]
    words = [re.sub(r"^runs/.*\.yaml$", CONFIG, word) for word in words if word]
    return [re.sub(r"^runs/.*", RUN, word) for word in words]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.syspath_prepend(tmp_path)
    write_files(page, tmp_path)
    for command in shown_commands(page):
        if command.startswith("python"):
            check_example(shlex.split(command, comments=True)[1:])
            continue
        name, *words = words_of(command)
        assert name in cli.commands, command
        with contextlib.suppress(click.exceptions.Exit):  # of --help
            try:
                context = cli.commands[name].make_context(name, words)
            except (click.MissingParameter, click.BadOptionUsage):  # `metarl render` in a sentence
                assert f"`{command}`" in (ROOT / page).read_text(encoding="utf-8")
                continue
            check_keys(context.params)


def check_keys(params: dict[str, Any]) -> None:
    """Check that a config has the keys of a command, with values that it allows."""
    overrides, target = params.get("overrides", {}), params.get("target")
    if isinstance(target, ConfigTarget) and target.name is not None:
        target.make(overrides)
    elif overrides and "resume" not in params:
        Run.open(RUN, **overrides)


def check_example(words: list[str]) -> None:
    """Check that the program and its flags exist, without loading it."""
    name = words[1].replace(".", "/") if words[0] == "-m" else words[0].removesuffix(".py")
    files = [path for path in (ROOT / f"{name}.py", *(ROOT / name).glob("*.py")) if path.is_file()]
    assert files, name
    source = "".join(path.read_text() for path in files)
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []
