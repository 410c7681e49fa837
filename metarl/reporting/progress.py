"""Display of what evaluate and render are doing: one line on a terminal, otherwise a line on stderr
every half minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from metarl.envs import BatchEnv
from metarl.training.progress import format_count, is_interactive

INTERVAL = 30.0
"""Seconds from one line to the next where there is no terminal."""


class WorkProgress:
    """A line that shows the episodes being played or the frames being drawn, and the time. It
    disappears at the end. Without a terminal, lines are written to stderr from time to time."""

    def __init__(self) -> None:
        console = Console()
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("{task.fields[label]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not is_interactive(console),
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None, label="")

    def __enter__(self) -> WorkProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def playing(self, label: str) -> Callable[[BatchEnv], None]:
        """Return a function to call with the environment at each step that a labelled agent plays.

        The steps shown include those of episodes that have ended.
        """
        steps = 0
        self._bar.reset(self._task, total=None, description=label, label="")

        def on_step(env: BatchEnv) -> None:
            nonlocal steps
            steps += env.num_episodes
            self._show(f"{label}: {format_count(steps)} steps")

        return on_step

    def drawing(self, done: int, total: int) -> None:
        """Show that `done` of `total` frames are drawn."""
        if done == 1:
            self._bar.reset(self._task, total=total, label="ETA")
        self._show(f"drawing frame {done}/{total}", completed=done)

    def _show(self, text: str, **changes: Any) -> None:
        self._bar.update(self._task, description=text, **changes)
        if self._bar.disable and time.monotonic() - self._last_line >= INTERVAL:
            print(text, file=sys.stderr, flush=True)
            self._last_line = time.monotonic()
