"""training.progress: the texts of the progress display."""

import re
import sys
from io import StringIO
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest

from metarl.config import Config
from metarl.envs import PointNav
from metarl.training import progress as progress_module
from metarl.training.progress import Progress, format_count, format_return


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.42, "0.42"),
        (7.04, "7"),
        (42.4, "42"),
        (999.4, "999"),
        (1000, "1k"),
        (45_678, "45.7k"),
        (3_600_000, "3.6M"),
        (76_123_456, "76.1M"),
        (999_499, "999k"),
        (999_500, "1M"),
        (4.8e9, "4.8G"),
    ],
)
def test_slow_environments_have_a_rate_too(number, text):
    assert format_count(number) == text


def test_small_returns_differ_too():
    texts = [*map(format_return, (None, 0.0, -0.001, 0.012, 0.038, 0.949, 0.96, -9.07, -0.0))]
    assert texts == ["none", "0.0", "-0.001", "0.012", "0.038", "0.95", "1.0", "-9.1", "0.0"]


def test_the_estimate_follows_the_last_iterations_not_the_warm_up(monkeypatch, capsys):
    warm_up, learning = [1.0] * 5, [50.0] * 3 + [60.0] * 22  # seconds of each iteration
    clock = accumulate([*warm_up, *learning], initial=0.0)
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: next(clock))
    run = SimpleNamespace(
        config=Config(env=PointNav(), iterations=100), directory=Path("runs/pearl")
    )
    returns = {"return_before": -2.0, "return_after": -1.0, "env_steps": 4800}
    with Progress(run, 0) as show:
        for iteration in range(1, 31):
            steps = 0 if iteration <= 5 else 2000
            metrics = {"iteration": iteration, "gradient_steps": steps, **returns}
            show(metrics, {"env_steps_per_second": 80.0})
    estimates = [line.partition("  ETA ")[2] for line in capsys.readouterr().out.splitlines()]
    assert estimates[:5] == ["after the warm-up"] * 5
    # 94 iterations of 50 s; then 91 of (3 * 50 + 60) / 4 s; at last 70 of the last twenty's 60 s
    assert [estimates[5], estimates[8], estimates[-1]] == ["1:18:20", "1:19:38", "1:10:00"]


class Terminal(StringIO):
    """An output that says whether it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.isatty = lambda: terminal


def shown(monkeypatch, *, terminal=True, **variables) -> str:
    """What is shown of iterations 11 and 12 of 300, each of 50 s, with long returns."""
    for name, value in {"TERM": "xterm", "COLUMNS": "80", **variables}.items():
        monkeypatch.setenv(name, value)
    clock = accumulate([50.0] * 1000, initial=0.0)
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr("sys.stdout", Terminal(terminal))
    config = Config(env=PointNav(), iterations=300)
    returns = {"return_before": -123.4, "return_after": -12.3, "env_steps": 4800}
    validation = {f"validation/{name}": value for name, value in returns.items()}
    with Progress(SimpleNamespace(config=config, directory=Path("runs/a")), 10) as show:
        for iteration in (11, 12):
            metrics = {"iteration": iteration, **returns, **validation}
            show(metrics, {"env_steps_per_second": 80.0})
    return sys.stdout.getvalue()


@pytest.mark.parametrize("columns", ["40", "60", "80", "120"])
def test_a_narrow_terminal_cuts_the_returns_and_not_the_numbers(monkeypatch, columns):
    """Also where iterations take longer than 30 s."""
    text = shown(monkeypatch, COLUMNS=columns)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()[-1]
    assert ("return -123.4" if columns != "40" else "return") in last
    assert ("…" in last) == (columns != "120")
    assert re.search(r" 12/300 .*\d:\d\d:\d\d .*ETA 4:00:00", last)
    assert "iteration 12/300" not in text


@pytest.mark.parametrize(
    ("terminal", "variables"),
    [(True, {"TERM": "dumb"}), (False, {}), (False, {"FORCE_COLOR": "1"})],
)
def test_without_a_line_that_can_be_drawn_anew_each_iteration_has_one(
    monkeypatch, terminal, variables
):
    text = shown(monkeypatch, terminal=terminal, **variables)
    lines = text.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["iteration 11/300", "iteration 12/300"]
    assert lines[1].endswith("ETA 4:00:00")
    assert "\x1b" not in text
