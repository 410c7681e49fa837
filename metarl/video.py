"""Videos of adaptation: one agent on one task, before and after each adaptation step."""

from __future__ import annotations

import contextlib
import math
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image, ImageDraw, ImageFont

from envs import BatchEnv, Scene, TaskFamily
from metarl.agents import MetaAgent
from metarl.checks import MOST_ADAPTATIONS, UserError, check, check_amount
from metarl.rollout import adaptation
from metarl.stopwatch import Stopwatch
from metarl.streams import MAX_SEED, Purpose

MAX_COLUMNS = 4
HOLD = 1.5  # seconds for which the last frame stays
GIF_FPS = 20  # at most: a GIF is large, and players do not keep up with much more
GIF_COLOURS = 128

PAPER, INK, MUTED, RAIL = "#ffffff", "#1d2430", "#5b6470", "#d9dde3"
BEFORE, AFTER = "#5b6470", "#1f5f9f"

font = cache(ImageFont.load_default)  # by size in pixels; the font comes with Pillow

Size: TypeAlias = tuple[int, int]  # width and height, pixels


@dataclass(frozen=True)
class VideoInfo:
    """A file of frames of `width` x `height` pixels, and the mean returns phase by phase."""

    path: Path
    width: int
    height: int
    num_frames: int
    fps: float
    mean_returns: tuple[float, ...]

    def __str__(self) -> str:
        returns = ", ".join(f"{title(i)} {mean:.1f}" for i, mean in enumerate(self.mean_returns))
        return f"{self.path} (mean return {returns})"


@dataclass(frozen=True)
class Panel:
    """A phase: states (steps + 1, k) and reward (steps,) of its first episode; the mean return."""

    states: np.ndarray
    reward: np.ndarray
    terminated: bool
    mean_return: float


def adaptation_video(
    agent: MetaAgent,
    family: TaskFamily,
    task: Sequence[float] | np.ndarray,
    *,
    steps: int,
    out: str | Path,
    seed: int = 0,
    num_episodes: int = 20,
    width: int = 480,
    height: int = 360,
    fps: float | None = None,
) -> VideoInfo:
    """Film the first episode of each phase of adaptation, side by side and in step.

    Args:
        agent, family, task: who is filmed, and where; a task is (task_dim,).
        steps: how many times to adapt, for `steps` + 1 panels.
        out: the file, .mp4 or .gif. It appears when it is complete; its folder is made.
        seed: of the episodes.
        num_episodes: episodes per phase, on all of which the agent adapts.
        width, height: of the picture in a panel, pixels.
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
    check(0 <= seed <= MAX_SEED, "seed", f"between 0 and {MAX_SEED}", seed)
    check(num_episodes >= 1, "num_episodes", "at least 1", num_episodes)
    size = width, height
    check(min(size) >= 96 and max(size) <= 4096, "width and height", "96 to 4096", size)
    check_amount(num_episodes, family.horizon)
    check(steps <= MOST_ADAPTATIONS, "steps", f"at most {MOST_ADAPTATIONS}", steps)
    if fps is None:
        fps = family.frames_per_second
    check(fps > 0, "fps", "more than 0", fps)
    task = family.check_task(task)
    with complete_file(out) as path, contextlib.closing(family.make_scene(width, height)) as scene:
        panels = play(agent, family, task, steps, seed, num_episodes)
        film = Film(family, task, scene, panels, (width, height))
        save = save_mp4 if out.suffix == ".mp4" else save_gif
        num_frames, fps = save(film, path, fps)
    return VideoInfo(out, *film.size, num_frames, fps, tuple(p.mean_return for p in panels))


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` when the block has ended without an error."""
    check(not path.is_dir(), "out", "a file", f"the folder {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=".video-", dir=path.parent)
    except OSError as error:
        raise UserError(f"out: cannot write {path}: {error}") from error
    with folder:
        partial_file = Path(folder.name) / path.name
        yield partial_file
        partial_file.replace(path)


def play(
    agent: MetaAgent, family: TaskFamily, task: np.ndarray, steps: int, seed: int, num_episodes: int
) -> list[Panel]:
    """Adapt to the task, and return the panel of each phase."""
    states: list[np.ndarray] = []

    def watch(env: BatchEnv) -> None:
        states.append(env.drawn_state(0))

    env, use = family.make_batch(num_episodes), Purpose.EVALUATION_EPISODES
    phases = adaptation(
        agent, env, task[None], steps, seed=seed, purpose=use, clock=Stopwatch(), watch=watch
    )
    panels = []
    for _, episodes in phases:
        length = int(episodes.mask[0, 0].sum())
        shown, reward = np.stack(states[: length + 1]), episodes.reward[0, 0, :length]
        ended, mean = bool(episodes.terminated[0, 0]), float(episodes.returns.mean())
        panels.append(Panel(shown, reward, ended, mean))
        states.clear()
    return panels


def title(phase: int) -> str:
    """Name the phase after this many adaptation steps."""
    return f"after {phase} step{'s' * (phase > 1)}" if phase else "before adaptation"


class Film:
    """The frames of a video, by number.

    Attributes:
        num_frames: one more than the steps of the longest episode.
        size: width and height of a frame, even as H.264 wants them.
    """

    def __init__(
        self, family: TaskFamily, task: np.ndarray, scene: Scene, panels: list[Panel], picture: Size
    ) -> None:
        self._family, self._task, self._scene, self._panels = family, task, scene, panels
        self._picture = width, height = picture
        self._line = width // 14  # height of a line of text
        gap, self._strip = max(2, width // 80), max(4, width // 60)
        self._cell = width + gap, height + 4 * self._line + gap
        rows = math.ceil(len(panels) / MAX_COLUMNS)
        self._columns = math.ceil(len(panels) / rows)
        total = self._columns * self._cell[0] - gap, rows * self._cell[1] + self._strip
        self.size = total[0] + total[0] % 2, total[1] + total[1] % 2
        self.num_frames = max(len(panel.states) for panel in panels)

    def frame(self, step: int) -> Image.Image:
        """Draw all panels as they stand after `step` control steps."""
        frame = Image.new("RGB", self.size, PAPER)
        for i, panel in enumerate(self._panels):
            row, column = divmod(i, self._columns)
            corner = column * self._cell[0], row * self._cell[1]
            frame.paste(self._draw(i, panel, step), corner)
        (width, height), canvas = self.size, ImageDraw.Draw(frame)
        for right, colour in ((width, RAIL), (width * step / (self.num_frames - 1), AFTER)):
            canvas.rectangle((0, height - self._strip, right, height), colour)
        return frame

    def _draw(self, phase: int, panel: Panel, step: int) -> Image.Image:
        """Draw one panel: title, picture, and how the episode stands."""
        (width, height), line = self._picture, self._line
        now, bar = min(step, len(panel.states) - 1), round(1.35 * line)
        states = panel.states[: now + 1]
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
        image.paste(Image.fromarray(self._scene.draw(states, self._task)), (0, bar))
        if panel.terminated and now == len(panel.states) - 1:
            canvas.rectangle((0, bar, width, bar + 1.2 * line), INK)
            write(f"ended at step {now}", middle, bar + 0.6 * line, PAPER)
        upper, lower, half = bar + height + 0.7 * line, bar + height + 1.85 * line, 0.45 * width
        write(self._family.describe(states[-1], self._task), left, upper, INK)
        write(f"step {now} / {self._family.horizon}", left, lower, MUTED, half)
        write(f"return {panel.reward[:now].sum():.1f}", right, lower, INK, half)
        return image


def save_mp4(film: Film, path: Path, fps: float) -> tuple[int, float]:
    """Encode as H.264 that browsers play; return the number of frames and their rate."""
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*film.size)]
    target = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart"]
    source += ["-r", str(fps), "-i", "-"]
    command = [get_ffmpeg_exe(), "-v", "error", *source, *target, str(path)]
    frame, held = b"", round(HOLD * fps)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for step in range(film.num_frames):
            frame = film.frame(step).tobytes()
            process.stdin.write(frame)
        process.stdin.writelines([frame] * held)
    if process.returncode:
        raise RuntimeError(f"ffmpeg could not encode the video (exit code {process.returncode})")
    return film.num_frames + held, fps


def save_gif(film: Film, path: Path, fps: float) -> tuple[int, float]:
    """Write a GIF of every n-th step; return the number of frames and their rate."""
    stride, last = math.ceil(fps / GIF_FPS - 1e-6), film.num_frames - 1
    steps = [*range(0, last, stride), last]
    sample = np.vstack([np.asarray(film.frame(step)) for step in (0, last // 2, last)])
    palette = Image.fromarray(sample).quantize(GIF_COLOURS)
    images = (film.frame(i).quantize(palette=palette, dither=Image.Dither.NONE) for i in steps)
    # A GIF counts in hundredths of a second; the errors of rounding do not add up.
    times = [round(100 * step / fps) for step in [*steps, last + HOLD * fps]]
    duration = [10 * (end - start) for start, end in pairwise(times)]
    next(images).save(path, save_all=True, append_images=images, duration=duration, loop=0)
    return len(steps), fps / stride
