"""The frames of a film: panels side by side and in step, with captions. It knows no agents."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from metarl.envs import Scene, TaskFamily

MAX_COLUMNS = 4  # of the panels of one task
FLAT, WIDE = 4 / 3, 2.0  # the shapes, width by height, between which pictures are fitted
SMALLEST, LARGEST = 64, 4096  # width and height of a picture, pixels

PAPER, INK, MUTED, RAIL = "#ffffff", "#1d2430", "#5b6470", "#d9dde3"
BEFORE, AFTER = "#5b6470", "#1f5f9f"

font = cache(ImageFont.load_default)  # by size in pixels; the font comes with Pillow

Size: TypeAlias = tuple[int, int]  # width and height, pixels


@dataclass(frozen=True)
class Panel:
    """One phase of one task: its first episode, and the mean return of all.

    Attributes:
        states: (steps + 1, k).
        reward: (steps,).
        terminated: whether the episode ended in a terminal state.
        mean_return: of the phase's episodes.
    """

    states: np.ndarray
    reward: np.ndarray
    terminated: bool
    mean_return: float


@dataclass(frozen=True)
class Layout:
    """Where things are in a frame, pixels.

    Attributes:
        picture: of a panel.
        columns, rows: of panels.
        total: the frame, even as H.264 wants it; where it is more than the panels need, they are in
            its middle.
    """

    picture: Size
    columns: int
    rows: int
    total: Size

    @classmethod
    def around(cls, picture: Size, num_tasks: int, num_phases: int) -> Layout:
        """Make a frame for pictures of a size: one row per task, or one task in several rows."""
        columns, rows = num_phases, num_tasks
        if num_tasks == 1:
            rows = math.ceil(num_phases / MAX_COLUMNS)
            columns = math.ceil(num_phases / rows)
        needed = cls(picture, columns, rows, (0, 0)).needed
        return cls(picture, columns, rows, (needed[0] + needed[0] % 2, needed[1] + needed[1] % 2))

    @classmethod
    def within(cls, total: Size, num_tasks: int, num_phases: int) -> Layout:
        """Make the layout with the largest pictures in a frame of a size, even numbers of pixels.

        Raises:
            ValueError: if there are too many panels to be seen.
        """
        shapes = [(num_phases, num_tasks)]
        if num_tasks == 1:
            shapes = [(math.ceil(num_phases / n), n) for n in range(1, num_phases + 1)]
        layouts = [cls._largest(total, columns, rows) for columns, rows in shapes]
        best = max(layouts, key=lambda layout: layout.picture[0] * layout.picture[1])
        if min(best.picture) < SMALLEST:
            raise ValueError(f"{num_tasks} x {num_phases} panels are too many to be seen in it")
        return best

    @classmethod
    def _largest(cls, total: Size, columns: int, rows: int) -> Layout:
        """Try heights from the top: how much the captions take is rounded to pixels."""
        room = total[0] // columns
        room -= max(2, room // 80)  # the gap
        for height in range(total[1] // rows, 0, -1):
            width = min(int(WIDE * height), room)
            layout = cls((width, height), columns, rows, total)
            if width >= FLAT * height and layout.needed[1] <= total[1]:
                return layout
        return cls((0, 0), columns, rows, total)

    @property
    def line(self) -> int:
        """The height of a line of text."""
        return max(6, round(min(self.picture[0], FLAT * self.picture[1]) / 14))

    @property
    def gap(self) -> int:
        """Between panels."""
        return max(2, self.picture[0] // 80)

    @property
    def strip(self) -> int:
        """The height of the strip of progress."""
        return max(4, self.picture[0] // 60)

    @property
    def cell(self) -> Size:
        """A panel with its captions and the gaps after it."""
        return self.picture[0] + self.gap, self.picture[1] + 4 * self.line + self.gap

    @property
    def needed(self) -> Size:
        """What the panels and the strip take."""
        width, height = self.cell
        return self.columns * width - self.gap, self.rows * height + self.strip

    def corner(self, index: int) -> Size:
        """Where panel number `index` begins."""
        row, column = divmod(index, self.columns)
        left, top = ((self.total[i] - self.needed[i]) // 2 for i in range(2))
        return left + column * self.cell[0], top + row * self.cell[1]


@dataclass(frozen=True)
class Film:
    """What is filmed: tasks, (n, task_dim), and the panels of each, phase by phase."""

    family: TaskFamily
    tasks: np.ndarray
    panels: list[list[Panel]]
    layout: Layout

    @property
    def last(self) -> int:
        """How many control steps the longest episode has."""
        return max(len(panel.reward) for row in self.panels for panel in row)

    @contextlib.contextmanager
    def scenes(self) -> Iterator[list[Scene]]:
        """Open a scene for each task.

        Raises:
            RenderingUnavailable: if the family cannot be drawn here.
        """
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(
                    contextlib.closing(self.family.make_scene(*self.layout.picture))
                )
                for _ in self.tasks
            ]

    def frame(self, scenes: list[Scene], time: float) -> Image.Image:
        """Draw all panels as they stand after `time` control steps, whole or not."""
        frame, index = Image.new("RGB", self.layout.total, PAPER), 0
        for task, row, scene in zip(self.tasks, self.panels, scenes, strict=True):
            for phase, panel in enumerate(row):
                picture = self._draw(scene, task, phase, panel, time)
                frame.paste(picture, self.layout.corner(index))
                index += 1
        (width, height), canvas = self.layout.total, ImageDraw.Draw(frame)
        for right, colour in ((width, RAIL), (width * time / self.last, AFTER)):
            canvas.rectangle((0, height - self.layout.strip, right, height), colour)
        return frame

    def _draw(
        self, scene: Scene, task: np.ndarray, phase: int, panel: Panel, time: float
    ) -> Image.Image:
        """Draw one panel: title, picture, and how the episode stands."""
        (width, height), line = self.layout.picture, self.layout.line
        time = min(time, len(panel.reward))
        now, bar = int(time), round(1.35 * line)
        image = Image.new("RGB", (width, height + 4 * line), PAPER)
        canvas = ImageDraw.Draw(image)
        left, middle, right = 0.35 * line, width / 2, width - 0.35 * line

        def write(text: str, x: float, y: float, fill: str, room: float = right - left) -> None:
            size = 0.8 * line
            size *= min(1.0, room / font(round(size)).getlength(text))
            anchor = {left: "lm", middle: "mm", right: "rm"}[x]
            canvas.text((x, y), text, fill, font(max(4, int(size))), anchor)

        canvas.rectangle((0, 0, width, bar), AFTER if phase else BEFORE)
        write(title(phase), middle, bar / 2, PAPER)
        image.paste(Image.fromarray(scene.draw(panel.states, task, time)), (0, bar))
        if panel.terminated and now == len(panel.reward):
            canvas.rectangle((0, bar, width, bar + 1.2 * line), INK)
            write(f"ended at step {now}", middle, bar + 0.6 * line, PAPER)
        upper, lower, half = bar + height + 0.7 * line, bar + height + 1.85 * line, 0.45 * width
        write(self.family.describe(panel.states[now], task), left, upper, INK)
        write(f"step {now} / {self.family.horizon}", left, lower, MUTED, half)
        write(f"return {panel.reward[:now].sum():.1f}", right, lower, INK, half)
        return image


def title(phase: int) -> str:
    """Name the phase after this many adaptation steps."""
    return f"after {phase} step{'s' * (phase > 1)}" if phase else "before adaptation"
