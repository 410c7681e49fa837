"""Display of what evaluate and render are doing: a line on a terminal, nothing otherwise."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from metarl.envs import BatchEnv
from metarl.training.progress import format_count


class WorkProgress:
    """A line that shows the episodes being played or the frames being drawn, and the time. It
    disappears at the end."""

    def __init__(self) -> None:
        console = Console()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None)

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
        self._bar.reset(self._task, total=None, description=label)

        def on_step(env: BatchEnv) -> None:
            nonlocal steps
            steps += env.num_episodes
            self._bar.update(self._task, description=f"{label}: {format_count(steps)} steps")

        return on_step

    def drawing(self, done: int, total: int) -> None:
        """Show that `done` of `total` frames are drawn."""
        if done == 1:
            self._bar.reset(self._task, total=total)
        text = f"drawing frame {done}/{total}"
        self._bar.update(self._task, completed=done, description=text)
