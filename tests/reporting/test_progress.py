"""The line of evaluate and render on a terminal, and its absence without one."""

from __future__ import annotations

import re
import sys

import pytest

from metarl.cli.main import main
from metarl.envs import PointNav
from metarl.reporting.progress import WorkProgress
from tests.cli.conftest import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "point_nav/maml_trpo", *TINY, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("evaluate --tasks=2 --against=random", r"random: [\d.k]+ steps"),
        ("render --steps=1 --width=64 --height=64 --out=a.gif", "drawing frame 9/9"),
    ],
)
def test_a_terminal_shows_what_is_done_and_other_files_do_not(
    run, tmp_path, monkeypatch, capsys, command, shown
):
    monkeypatch.chdir(tmp_path)
    name, *words = command.split()
    monkeypatch.setenv("TERM", "xterm")
    for terminal in (True, False):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        assert main([name, str(run), "--episodes=2", *words]) == 0
        text, errors = capsys.readouterr()
        assert errors == ""
        assert bool(re.search(shown, text)) == terminal
        assert ("ETA" in text) == (terminal and name == "render")
        assert ("\x1b" in text) == terminal


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("evaluate --tasks=2 --steps=0", ["maml_trpo: 4 steps", "maml_trpo: 8 steps"]),
        ("render --steps=0 --width=64 --height=64 --fps=5 --out=a.gif", ["drawing frame 1/"]),
    ],
)
def test_without_a_terminal_a_line_tells_from_time_to_time(
    run, tmp_path, monkeypatch, capsys, command, lines
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metarl.reporting.progress.INTERVAL", 0.0)
    name, *words = command.split()
    assert main([name, str(run), "--episodes=2", *words]) == 0
    found = capsys.readouterr().err
    assert [line for line in lines if f"{line}" not in found] == []


def test_the_steps_of_all_episodes_are_counted(monkeypatch):
    env = PointNav().make_batch(6)
    with WorkProgress() as progress:
        described = []
        monkeypatch.setattr(
            progress._bar, "update", lambda task, description: described.append(description)
        )
        on_step = progress.playing("maml_trpo")
        for _ in range(3):
            on_step(env)
    assert described == [f"maml_trpo: {number} steps" for number in ("6", "12", "18")]
