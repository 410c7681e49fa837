"""Display of the progress of a training run: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from metarl.runs.atomic_io import wrap_os_errors
from metarl.runs.logs import VALIDATION
from metarl.runs.run import Run


def is_interactive(console: Console) -> bool:
    """Return whether a console is a terminal on which a line can be drawn anew. A file is none,
    even if `FORCE_COLOR` is set."""
    return console.file.isatty() and not console.is_dumb_terminal


class CutColumn(TextColumn):
    """The description of a task, cut where there is no room for it."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class Progress:
    """Shows the returns of each iteration and the estimated remaining time."""

    def __init__(self, run: Run, start: int) -> None:
        """Set up for a run of which `start` iterations are done."""
        self._total = run.config.iterations
        self._console = Console()
        self._draws = is_interactive(self._console)
        self._bar = Bar(
            CutColumn("", table_column=Column(no_wrap=False)),  # the first to become narrower
            BarColumn(bar_width=None, table_column=Column(ratio=1)),  # takes the rest
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("ETA {task.fields[eta]}"),
            console=self._console,
            disable=not self._draws,
            expand=True,
        )
        # Seconds of the last iterations, which tell more of the next ones than all since the start
        self._seconds: deque[float] = deque(maxlen=20)
        name = run.directory.name
        self._task = self._bar.add_task(name, total=self._total, completed=start, eta="-:--:--")

    def __enter__(self) -> Progress:
        self._bar.start()
        self._last = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Show the metrics and timings of one iteration.

        Raises:
            StorageError: if standard output cannot be written (a full disk, a closed pipe).
        """
        done = metrics["iteration"]
        before, after = (format_return(metrics[f"return_{when}"]) for when in ("before", "after"))
        returns = f"return {before} -> {after}{problem_summary(metrics)}{validation_text(metrics)}"
        rate = f"{format_count(timings['env_steps_per_second'])} steps/s"
        eta = self._eta(metrics, self._total - done)
        self._bar.update(self._task, completed=done, description=f"{returns}, {rate}", eta=eta)
        if not self._draws:
            divergence = f"  kl {metrics['outer_kl']:z.4f}" if "outer_kl" in metrics else ""
            with wrap_os_errors("standard output"):
                print(
                    f"iteration {done}/{self._total}  {returns}{divergence}  {rate}  "
                    f"{format_count(metrics['env_steps'])} steps  ETA {eta}",
                    flush=True,
                )

    def _eta(self, metrics: Mapping[str, Any], iterations_left: int) -> str:
        """Return the estimated time of the iterations left, after one with these metrics."""
        now = time.perf_counter()
        self._seconds.append(now - self._last)
        self._last = now
        if metrics.get("gradient_steps") == 0:  # those that only collect episodes are much shorter
            self._seconds.clear()
            return "after the warm-up"
        return clock_time(sum(self._seconds) / len(self._seconds) * iterations_left)


def announce(run: Run, start: int) -> None:
    """Print the folder of a run, of which `start` iterations are done, and its origin.

    Raises:
        StorageError: if standard output cannot be written.
    """
    with wrap_os_errors("standard output"):
        print(f"run: {run.directory} ({start} of {run.config.iterations} iterations)", flush=True)
        if (origin := run.origin) is not None:
            print(f"begun from: {origin}: {origin.remark}", flush=True)


def validation_text(metrics: Mapping[str, Any]) -> str:
    """Return the returns of an iteration's evaluation, such as ', validation -9.1 -> -3.2'; '' if
    it has none."""
    names = [f"{VALIDATION}return_{when}" for when in ("before", "after")]
    if not any(name in metrics for name in names):
        return ""
    return ", validation " + " -> ".join(format_return(metrics[name]) for name in names)


def format_return(value: float | None) -> str:
    """Return the text of a mean return, such as -9.1 or, where rewards are rare, 0.038; "none" for
    None, if every episode failed."""
    if value is None:
        return "none"
    return f"{value:.2g}" if 0 < abs(value) < 0.95 else f"{value:z.1f}"


def format_count(number: float) -> str:
    """Return a number of steps with three digits that mean something: 0.42, 42, 4.2k, 4.2M."""
    number = float(f"{number:.3g}")  # 999,500 is 1M, not 1000k
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def problem_summary(metrics: Mapping[str, Any]) -> str:
    """Return the counts of the problems of an iteration, such as ' (2 warnings)'; '' if none."""
    kinds = {
        "dropped_episodes": ("episode dropped", "episodes dropped"),
        "skipped_update": ("update skipped", "updates skipped"),
        "warnings": ("warning", "warnings"),
    }
    counts = {name: metrics[name] for name in kinds if metrics.get(name)}
    found = [f"{count} {kinds[name][count != 1]}" for name, count in counts.items()]
    return f" ({', '.join(found)})" if found else ""


def clock_time(seconds: float) -> str:
    """Return a duration in seconds as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
