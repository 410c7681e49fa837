"""Videos of adaptation: one agent on one task, before and after each adaptation step."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from envs import BatchEnv, Scene, TaskFamily
from envs.mujoco import MujocoFamily
from metarl.agents import MetaAgent
from metarl.checks import UserError, check
from metarl.rollout import adaptation
from metarl.stopwatch import Stopwatch
from metarl.streams import Purpose

MAX_COLUMNS = 4
GIF_FPS = 20  # at most: a GIF is large, and players do not keep up with much more
GIF_COLOURS = 128
HOLD = 1.5  # seconds for which the last frame stays

PAPER, INK, MUTED, RAIL = "#ffffff", "#1d2430", "#5b6470", "#d9dde3"
BEFORE, AFTER = "#5b6470", "#1f5f9f"


@dataclass(frozen=True)
class VideoInfo:
    """What was filmed.

    Attributes:
        path: the file.
        width, height: of the whole frame, pixels.
        num_frames: frames in the file.
        fps: frames per second.
        mean_returns: over all episodes, before adaptation and after each step.
    """

    path: Path
    width: int
    height: int
    num_frames: int
    fps: float
    mean_returns: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One episode, and what is written above it.

    Attributes:
        title: the phase of adaptation.
        colour: of the title's bar.
        states: (steps + 1, k), as a scene draws them.
        reward: (steps,).
        terminated: whether the episode ended before the horizon.
    """

    title: str
    colour: str
    states: np.ndarray
    reward: np.ndarray
    terminated: bool


def adaptation_video(
    agent: MetaAgent,
    family: TaskFamily,
    task: Sequence[float] | np.ndarray,
    *,
    steps: int,
    out: str | os.PathLike[str],
    seed: int = 0,
    num_episodes: int = 20,
    width: int = 480,
    height: int = 360,
    fps: float | None = None,
) -> VideoInfo:
    """Film the first episode of each phase of adaptation, side by side and in step.

    Args:
        agent: a meta-agent of the family.
        family: the task family.
        task: (task_dim,).
        steps: how many times to adapt; there are `steps` + 1 panels.
        out: the file, .mp4 or .gif. It appears when it is complete; its folder is made.
        seed: of the episodes.
        num_episodes: episodes per phase, on all of which the agent adapts.
        width, height: of one panel's picture, pixels.
        fps: control steps per second; by default the simulation's own time, or 20 without physics.
            A GIF leaves steps out where there are too many for it.

    Raises:
        UserError: if a setting is out of range or the file cannot be written.
        TaskError: if the task is not one of the family's.
        RenderingUnavailable: if a MuJoCo family cannot be drawn here.
    """
    out = Path(out)
    check(out.suffix in (".mp4", ".gif"), "out", "a file ending in .mp4 or .gif", str(out))
    check(steps >= 0, "steps", "at least 0", steps)
    check(num_episodes >= 1, "num_episodes", "at least 1", num_episodes)
    check(min(width, height) >= 64, "width and height", "at least 64", (width, height))
    if fps is None:
        fps = 1 / family.dt if isinstance(family, MujocoFamily) else 20.0
    check(fps > 0, "fps", "more than 0", fps)
    task = family.check_task(task)
    with complete_file(out) as path, contextlib.closing(family.make_scene(width, height)) as scene:
        panels, mean_returns = play(agent, family, task, steps, seed, num_episodes)
        film = Film(family, task, scene, panels, width, height)
        save = save_mp4 if out.suffix == ".mp4" else save_gif
        num_frames, fps = save(film, path, fps)
    return VideoInfo(out, *film.size, num_frames, fps, mean_returns)


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` at the end of the block, if that comes.

    Raises:
        UserError: if the folder cannot be written.
    """
    # The suffix stays, for it says the format.
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"out: cannot write {path}: {error}") from error
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def play(
    agent: MetaAgent, family: TaskFamily, task: np.ndarray, steps: int, seed: int, num_episodes: int
) -> tuple[list[Panel], tuple[float, ...]]:
    """Adapt to the task, and return each phase's first episode and mean return."""
    states: list[np.ndarray] = []

    def watch(env: BatchEnv) -> None:
        states.append(env.drawn_state(0))

    panels, mean_returns = [], []
    phases = adaptation(
        agent,
        family.make_batch(num_episodes),
        task[None],
        steps,
        seed=seed,
        purpose=Purpose.EVALUATION_EPISODES,
        clock=Stopwatch(),
        watch=watch,
    )
    for phase, (_, episodes) in enumerate(phases):
        length = int(episodes.mask[0, 0].sum())
        title = f"after {phase} step{'s' * (phase > 1)}" if phase else "before adaptation"
        panels.append(
            Panel(
                title,
                AFTER if phase else BEFORE,
                np.stack(states[: length + 1]),
                episodes.reward[0, 0, :length],
                bool(episodes.terminated[0, 0]),
            )
        )
        mean_returns.append(float(episodes.returns.mean()))
        states.clear()
    return panels, tuple(mean_returns)


@dataclass(frozen=True)
class Film:
    """The frames of a video, by number. Pictures are `width` x `height`, with text around them."""

    family: TaskFamily
    task: np.ndarray
    scene: Scene
    panels: Sequence[Panel]
    width: int
    height: int

    @property
    def num_frames(self) -> int:
        """One more than the steps of the longest episode."""
        return max(len(panel.states) for panel in self.panels)

    @property
    def line(self) -> int:
        """Height of a line of text, pixels."""
        return self.width // 14

    @property
    def columns(self) -> int:
        """Panels per row, rows being as even as can be."""
        return math.ceil(len(self.panels) / math.ceil(len(self.panels) / MAX_COLUMNS))

    @property
    def cell(self) -> tuple[int, int]:
        """Width and height of a panel with the gap beside and below it."""
        gap = max(2, self.width // 80)
        return self.width + gap, self.height + 4 * self.line + gap

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frame, even as H.264 wants them."""
        (width, height), rows = self.cell, math.ceil(len(self.panels) / self.columns)
        strip = self.width // 60
        # The gap beside the last column goes, and at most one pixel more comes.
        return (self.columns * width - (width - self.width)) // 2 * 2, (rows * height + strip) // 2 * 2

    def frame(self, step: int) -> Image.Image:
        """Draw all panels as they stand after `step` control steps."""
        frame = Image.new("RGB", self.size, PAPER)
        for i, panel in enumerate(self.panels):
            row, column = divmod(i, self.columns)
            frame.paste(self.draw(panel, step), (column * self.cell[0], row * self.cell[1]))
        (width, height), canvas = self.size, ImageDraw.Draw(frame)
        top, done = height - max(4, self.width // 60), step / max(1, self.num_frames - 1)
        canvas.rectangle((0, top, width, height), RAIL)
        canvas.rectangle((0, top, width * done, height), AFTER)
        return frame

    def draw(self, panel: Panel, step: int) -> Image.Image:
        """Draw one panel: title, picture, and how the episode stands."""
        now, line, width = min(step, len(panel.states) - 1), self.line, self.width
        states, bar = panel.states[: now + 1], round(1.35 * line)
        image = Image.new("RGB", (width, self.height + 4 * line), PAPER)
        canvas = ImageDraw.Draw(image)
        canvas.rectangle((0, 0, width, bar), panel.colour)
        write(canvas, panel.title, (width / 2, bar / 2), PAPER, "mm", width)
        image.paste(Image.fromarray(self.scene.draw(states, self.task)), (0, bar))
        if panel.terminated and len(states) == len(panel.states):
            canvas.rectangle((0, bar, width, bar + 1.2 * line), INK)
            write(canvas, f"ended at step {now}", (width / 2, bar + 0.6 * line), PAPER, "mm", width)
        left, right = line / 3, width - line / 3
        first, second = bar + self.height + 0.7 * line, bar + self.height + 1.85 * line
        write(canvas, self.family.describe(states[-1], self.task), (left, first), INK, "lm", width)
        count = f"step {now} / {self.family.horizon}"
        write(canvas, count, (left, second), MUTED, "lm", width, share=0.5)
        total = f"return {panel.reward[:now].sum():.1f}"
        write(canvas, total, (right, second), INK, "rm", width, share=0.5)
        return image


def save_mp4(film: Film, path: Path, fps: float) -> tuple[int, float]:
    """Encode as H.264 that browsers play; return the number of frames and their rate."""
    writer = imageio_ffmpeg.write_frames(
        str(path),
        film.size,
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        quality=None,
        output_params=["-crf", "20", "-movflags", "+faststart"],
    )
    held = round(HOLD * fps)
    with contextlib.closing(writer):
        writer.send(None)
        for step in range(film.num_frames):
            frame = film.frame(step).tobytes()
            writer.send(frame)
        for _ in range(held):
            writer.send(frame)
    return film.num_frames + held, fps


def save_gif(film: Film, path: Path, fps: float) -> tuple[int, float]:
    """Write a GIF of every n-th step; return the number of frames and their rate."""
    stride, last = math.ceil(fps / GIF_FPS), film.num_frames - 1
    steps = [*range(0, last, stride), last]
    sample = np.vstack([film.frame(step) for step in (0, last // 2, last)])
    palette = Image.fromarray(sample).quantize(GIF_COLOURS)

    def frames() -> Iterator[Image.Image]:
        for step in steps:
            yield film.frame(step).quantize(palette=palette, dither=Image.Dither.NONE)

    # A GIF counts in hundredths of a second; rounding the times does not add up.
    times = [round(100 * step / fps) for step in [*steps, last + HOLD * fps]]
    images = frames()
    next(images).save(
        path,
        save_all=True,
        append_images=images,
        duration=[10 * (b - a) for a, b in pairwise(times)],
        loop=0,
    )
    return len(steps), fps / stride
