"""The frames of an adaptation video: synchronised panels side by side, with captions."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from metarl.envs import Renderer, TaskFamily
from metarl.envs.rendering import drawing, without_glfw_warnings
from metarl.reporting.video.belief_inset import TaskBelief, draw_belief, font

MAX_COLUMNS = 4  # of the panels of one task
MIN_ASPECT, MAX_ASPECT = 4 / 3, 2.0  # width by height of images that are fitted into a frame
MIN_SIZE, MAX_SIZE = 64, 4096  # width and height of an image, pixels

BACKGROUND, TEXT, MUTED_TEXT, PROGRESS_TRACK = "#ffffff", "#1d2430", "#5b6470", "#d9dde3"
BEFORE_ADAPTATION, ADAPTED = "#5b6470", "#1f5f9f"

Size: TypeAlias = tuple[int, int]  # width and height, pixels


@dataclass(frozen=True)
class Panel:
    """The episodes of one task after some adaptations: the first one, and the mean return of all.

    Attributes:
        states: (steps + 1, k).
        reward: (steps,).
        terminated: whether the episode ended in a terminal state.
        mean_return: of all episodes.
        belief: the agent's belief about the task; None for no inset.
    """

    states: np.ndarray
    reward: np.ndarray
    terminated: bool
    mean_return: float
    belief: TaskBelief | None = None


@dataclass(frozen=True)
class Layout:
    """Positions and sizes in a frame, pixels.

    Attributes:
        picture: size of the image in a panel.
        columns, rows: numbers of panels.
        total: size of the frame; H.264 needs even numbers. Panels are centred in a larger frame.
        insets: whether there is room for the inset of a belief, beside the captions.
    """

    picture: Size
    columns: int
    rows: int
    total: Size
    insets: bool = False

    @classmethod
    def around(
        cls, picture: Size, num_tasks: int, panels_per_task: int, insets: bool = False
    ) -> Layout:
        """Return the layout of images of a given size: a row per task, or several for one task."""
        columns, rows = panels_per_task, num_tasks
        if num_tasks == 1:
            rows = math.ceil(panels_per_task / MAX_COLUMNS)
            columns = math.ceil(panels_per_task / rows)
        width, height = cls(picture, columns, rows, (0, 0), insets).needed
        return cls(picture, columns, rows, (width + width % 2, height + height % 2), insets)

    @classmethod
    def within(
        cls, total: Size, num_tasks: int, panels_per_task: int, insets: bool = False
    ) -> Layout:
        """Return the layout with the largest images in a frame of a given size, even numbers.

        Raises:
            ValueError: if the images would be smaller than MIN_SIZE.
        """
        shapes = [(panels_per_task, num_tasks)]
        if num_tasks == 1:
            shapes = [(math.ceil(panels_per_task / n), n) for n in range(1, panels_per_task + 1)]
        layouts = [cls._largest(total, columns, rows, insets) for columns, rows in shapes]
        best = max(layouts, key=lambda layout: layout.picture[0] * layout.picture[1])
        if min(best.picture) < MIN_SIZE:
            raise ValueError(
                f"{num_tasks} x {panels_per_task} panels are too many to be seen in it"
            )
        return best

    @classmethod
    def _largest(cls, total: Size, columns: int, rows: int, insets: bool) -> Layout:
        """Search for the largest images: the height of captions is rounded to pixels."""
        max_width = total[0] // columns
        max_width -= max(2, max_width // 80)  # the gap
        for height in range(total[1] // rows, 0, -1):
            width = min(int(MAX_ASPECT * height), max_width)
            layout = cls((width, height), columns, rows, total, insets)
            if width >= MIN_ASPECT * height and layout.needed[1] <= total[1]:
                return layout
        return cls((0, 0), columns, rows, total, insets)

    @property
    def line(self) -> int:
        """The height of a line of text."""
        return max(6, round(min(self.picture[0], MIN_ASPECT * self.picture[1]) / 14))

    @property
    def text(self) -> int:
        """The height of title and captions; beside an inset there is one caption a line."""
        return (5 if self.insets else 4) * self.line

    @property
    def inset(self) -> int:
        """The width of the inset of a belief."""
        return round(3.2 * self.line)

    @property
    def gap(self) -> int:
        """The gap between panels."""
        return max(2, self.picture[0] // 80)

    @property
    def strip(self) -> int:
        """The height of the progress bar."""
        return max(4, self.picture[0] // 60)

    @property
    def cell(self) -> Size:
        """A panel with its captions and the gaps after it."""
        return self.picture[0] + self.gap, self.picture[1] + self.text + self.gap

    @property
    def needed(self) -> Size:
        """The size of all panels and the progress bar."""
        width, height = self.cell
        return self.columns * width - self.gap, self.rows * height + self.strip

    def corner(self, index: int) -> Size:
        """Return left and top of panel number `index`."""
        row, column = divmod(index, self.columns)
        left, top = ((self.total[i] - self.needed[i]) // 2 for i in range(2))
        return left + column * self.cell[0], top + row * self.cell[1]


@dataclass(frozen=True)
class AdaptationVideo:
    """The content of a video: tasks, (n, task_dim), and the panels of each, by adaptation step."""

    family: TaskFamily
    tasks: np.ndarray
    panels: list[list[Panel]]
    layout: Layout

    @property
    def num_steps(self) -> int:
        """Control steps of the longest episode."""
        return max(len(panel.reward) for row in self.panels for panel in row)

    @contextlib.contextmanager
    def renderers(self) -> Iterator[list[Renderer]]:
        """Open a renderer for each task.

        Raises:
            RenderingUnavailable: if the family cannot be drawn here.
            RendererFailed: if its renderer raises another error.
        """
        with contextlib.ExitStack() as stack:
            renderers = []
            for _ in self.tasks:
                renderers.append(self._open_renderer())
                stack.callback(self._close, renderers[-1])
            yield renderers

    def _open_renderer(self) -> Renderer:
        with drawing(self.family.name), without_glfw_warnings():
            return self.family.make_renderer(*self.layout.picture)

    def _close(self, renderer: Renderer) -> None:
        with drawing(self.family.name):
            renderer.close()

    def frame(self, renderers: list[Renderer], time: float) -> Image.Image:
        """Return the frame after `time` control steps, not necessarily whole."""
        frame, index = Image.new("RGB", self.layout.total, BACKGROUND), 0
        for task, row, renderer in zip(self.tasks, self.panels, renderers, strict=True):
            for adaptation_step, panel in enumerate(row):
                picture = self._draw(renderer, task, adaptation_step, panel, time)
                frame.paste(picture, self.layout.corner(index))
                index += 1
        (width, height), canvas = self.layout.total, ImageDraw.Draw(frame)
        for right, colour in ((width, PROGRESS_TRACK), (width * time / self.num_steps, ADAPTED)):
            canvas.rectangle((0, height - self.layout.strip, right, height), colour)
        return frame

    def _draw(
        self, renderer: Renderer, task: np.ndarray, adaptation_step: int, panel: Panel, time: float
    ) -> Image.Image:
        """Return one panel: title, image, and the state of the episode."""
        (width, height), line = self.layout.picture, self.layout.line
        time = min(time, len(panel.reward))
        now, bar = int(time), round(1.35 * line)
        image = Image.new("RGB", (width, height + self.layout.text), BACKGROUND)
        canvas = ImageDraw.Draw(image)
        left, middle, right = 0.35 * line, width / 2, width - 0.35 * line
        room = right - left

        def write(text: str, x: float, y: float, fill: str, max_width: float = room) -> None:
            size = 0.8 * line
            size *= min(1.0, max_width / font(round(size)).getlength(text))
            anchor = {left: "lm", middle: "mm", right: "rm"}[x]
            canvas.text((x, y), text, fill, font(max(4, int(size))), anchor)

        canvas.rectangle((0, 0, width, bar), ADAPTED if adaptation_step else BEFORE_ADAPTATION)
        write(panel_title(adaptation_step), middle, bar / 2, BACKGROUND)
        with drawing(self.family.name):
            picture = Image.fromarray(renderer.draw(panel.states, task, time))
            caption = self.family.caption(panel.states[now], task)
        image.paste(picture, (0, bar))
        if panel.terminated and now == len(panel.reward):
            canvas.rectangle((0, bar, width, bar + 1.2 * line), TEXT)
            write(f"ended at step {now}", middle, bar + 0.6 * line, BACKGROUND)
        rows = [bar + height + (0.7 + 1.15 * row) * line for row in range(3)]
        step = f"step {now} / {self.family.horizon}"
        returned = f"return {panel.reward[:now].sum():z.1f}"
        if panel.belief is None:
            write(caption, left, rows[0], TEXT)
            write(step, left, rows[1], MUTED_TEXT, 0.45 * width)
            write(returned, right, rows[1], TEXT, 0.45 * width)
            return image
        # The inset is below the picture, whose goal and robot it would hide, right of the captions.
        size, gap = self.layout.inset, round(0.2 * line)
        draw_belief(image, (width - gap, image.height - gap), size, panel.belief, now, task)
        for row, (text, fill) in enumerate([(caption, TEXT), (step, MUTED_TEXT), (returned, TEXT)]):
            write(text, left, rows[row], fill, room - size)
        return image


def panel_title(adaptation_step: int) -> str:
    """Return the title of the panel after a number of adaptations."""
    if not adaptation_step:
        return "before adaptation"
    return f"after {adaptation_step} adaptation{'s' * (adaptation_step > 1)}"
