"""Videos of adaptation: one agent before and after each adaptation, on one or more tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
from PIL import Image

from metarl.agents import MetaAgent
from metarl.agents.optional import Beliefs, beliefs
from metarl.agents.rollouts import adaptation_rollouts
from metarl.core.errors import (
    MAX_ADAPTATIONS,
    MAX_THREADS,
    UserError,
    as_path,
    check,
    check_amount,
    check_flag,
    check_known,
    check_whole,
)
from metarl.core.parallel import available_cores, single_threaded_math
from metarl.core.rng import MAX_SEED, Purpose
from metarl.core.timer import Timer
from metarl.envs import BatchEnv, TaskFamily
from metarl.evaluation.evaluate import check_played, possible_adaptations
from metarl.evaluation.tasks import own_tasks
from metarl.reporting.video.belief_inset import has_inset, task_belief, task_reading
from metarl.reporting.video.files import complete_file, frame_times, save_gif, save_mp4
from metarl.reporting.video.layout import (
    MAX_SIZE,
    MIN_SIZE,
    AdaptationVideo,
    Layout,
    Panel,
    Size,
    panel_title,
)
from metarl.reporting.video.render_workers import num_processes, render_frames
from metarl.runs.atomic_io import wrap_os_errors

MIN_FPS = 0.1
MAX_FPS = {".mp4": 240, ".gif": 50}  # GIF players show a frame for at least 0.02 s
MAX_FRAME = {".mp4": 16384, ".gif": 65535}  # width and height of a frame, pixels
DEFAULT_MAX_FPS = {".mp4": 60, ".gif": 20}  # GIF files are large


@dataclass(frozen=True)
class Preset:
    """Settings of a video for one purpose.

    Attributes:
        suffix: of the file.
        total: width and height of a frame, pixels; None for the size that the panels need.
        picture: width and height of an image, pixels, if `total` is None.
        fps: frames per second.
    """

    suffix: str
    total: Size | None
    picture: Size
    fps: int


PRESETS = {
    "readme": Preset(".gif", None, (358, 268), 8),  # two panels are 720 pixels wide
    "talk": Preset(".mp4", (1920, 1080), (0, 0), 60),
}


@dataclass(frozen=True)
class VideoInfo:
    """A video file with frames of `width` x `height` pixels.

    Attributes:
        num_frames: frames of the file, which shows the last one for a while.
        fps: frames per second.
        mean_returns: by adaptation step, over tasks and episodes.
        num_drawn: frames that were drawn.
        seconds: time of rendering and encoding.
        processes: number of processes that rendered.
    """

    path: Path
    width: int
    height: int
    num_frames: int
    fps: float
    mean_returns: tuple[float, ...]
    num_drawn: int
    seconds: float
    processes: int

    def __str__(self) -> str:
        returns = ", ".join(
            f"{panel_title(i)} {mean:z.1f}" for i, mean in enumerate(self.mean_returns)
        )
        return f"{self.path} (mean return {returns})"

    @property
    def speed(self) -> str:
        """The time and the speed of rendering, as text."""
        renderers = f"{self.processes} process{'es' * (self.processes > 1)}"
        return (
            f"{self.num_drawn} frames of {self.width} x {self.height} in {self.seconds:.1f} s: "
            f"{self.num_drawn / self.seconds:.1f} frames/s by {renderers}"
        )


def adaptation_video(
    agent: MetaAgent,
    family: TaskFamily,
    task: Sequence[float] | Sequence[Sequence[float]] | np.ndarray,
    *,
    steps: int = 3,
    out: str | Path,
    seed: int = 0,
    episodes: int = 20,
    width: int = 480,
    height: int = 360,
    fps: float | None = None,
    preset: str | None = None,
    cores: int | None = None,
    deterministic: bool = False,
    on_step: Callable[[BatchEnv], None] | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> VideoInfo:
    """Make a video of the first episodes before and after each adaptation, side by side.

    Args:
        agent, family: the agent to show, and the family of the tasks.
        task: a task, (task_dim,), or several, (n, task_dim), one below the other; (n,) where a task
            is one number. Episodes are the same as in an evaluation of these tasks with the same
            seed.
        steps: number of adaptations, shown in `steps` + 1 panels.
        out: the file, .mp4 or .gif. It appears once it is complete; its folder is created.
        seed: of the episodes.
        episodes: number of episodes per adaptation step; the agent adapts to all of them.
        width, height: of the image in a panel, pixels.
        fps: frames per second; by default one per control step, but no more than 60, in a GIF 20.
            The video lasts as long as the episode: between control steps robots are interpolated.
        preset: `readme` for a GIF with 720 pixels for two panels, `talk` for 1920 x 1080 pixels and
            60 frames per second; takes the place of width and height, and of fps if that is not
            given.
        cores: maximum number of rendering processes; by default the number of cores.
        deterministic: whether the episodes shown have deterministic actions, as in an evaluation.
        on_step: called with the environment after each reset and step of the episodes shown.
        on_frame: called with the numbers of drawn and of all frames after each frame.

    Raises:
        UserError: if a setting is out of range or the file cannot be written.
        TaskError: if a task is not one of the family's.
        RenderingUnavailable: if the family cannot be rendered here.
        RendererFailed: if its renderer raises another error.
        StorageError: if the file cannot be written, as on a full disk.
    """
    check_played(agent, family)
    out = as_path("out", out)
    check(out.suffix in MAX_FPS, "out", "a file ending in .mp4 or .gif", str(out))
    check_whole("steps", steps, 0, MAX_ADAPTATIONS)
    check_whole("seed", seed, 0, MAX_SEED)
    check_whole("episodes", episodes, 1)
    check_flag("deterministic", deterministic)
    if cores is not None:
        check_whole("cores", cores, 1, MAX_THREADS)
    size = (width, height)
    for name, pixels in zip(("width", "height"), size, strict=True):
        check_whole(name, pixels, MIN_SIZE, MAX_SIZE)
    steps = possible_adaptations(agent, steps)
    tasks = own_tasks(family, task, "task")
    amounts = {"tasks": len(tasks), "episodes": episodes, "env.horizon": family.horizon}
    check_amount(amounts)
    total = None
    if preset is not None:
        check_known(preset, PRESETS, "preset: unknown")
        chosen = PRESETS[preset]
        check(out.suffix == chosen.suffix, "out", f"a file ending in {chosen.suffix}", str(out))
        total, size = chosen.total, chosen.picture
        fps = chosen.fps if fps is None else fps
    if fps is None:
        fps = min(family.frames_per_second, DEFAULT_MAX_FPS[out.suffix])
    limit = MAX_FPS[out.suffix]
    fits = isinstance(fps, Real) and MIN_FPS <= fps <= limit
    check(fits, "fps", f"between {MIN_FPS} and {limit} in {out.suffix}", fps)
    insets = has_inset(agent, family)
    if total is None:
        layout = Layout.around(size, len(tasks), steps + 1, insets)
    else:
        try:
            layout = Layout.within(total, len(tasks), steps + 1, insets)
        except ValueError as error:
            raise UserError(f"steps: {error}") from error
    side = MAX_FRAME[out.suffix]
    if max(layout.total) > side:
        raise UserError(
            "out: expected fewer tasks or steps, or smaller width and height: a frame of "
            f"{out.suffix} has at most {side} pixels a side, got {layout.total}"
        )
    with complete_file(out) as path:
        with single_threaded_math():  # as in an evaluation, to the bit
            panels = play(agent, family, tasks, steps, seed, episodes, deterministic, on_step)
        video = AdaptationVideo(family, tasks, panels, layout)
        start = time.perf_counter()
        save = save_mp4 if out.suffix == ".mp4" else save_gif
        times, cores = frame_times(video, fps), cores or available_cores()
        frames = render_frames(video, times, cores)
        if on_frame is not None:
            frames = counted(frames, len(times), on_frame)
        with wrap_os_errors(out):
            num_frames = save(video, frames, path, fps)
        seconds = time.perf_counter() - start
    returns = np.mean([[panel.mean_return for panel in row] for row in video.panels], axis=0)
    processes = num_processes(video, len(times), cores)
    shape, returns = (*layout.total, num_frames), tuple(returns)
    return VideoInfo(out, *shape, fps, returns, len(times), seconds, processes)


def counted(
    frames: Iterable[Image.Image], total: int, on_frame: Callable[[int, int], None]
) -> Iterator[Image.Image]:
    """Yield frames, and call `on_frame` with the number so far and `total` after each."""
    for number, frame in enumerate(frames, start=1):
        yield frame
        on_frame(number, total)


def play(
    agent: MetaAgent,
    family: TaskFamily,
    tasks: np.ndarray,
    steps: int,
    seed: int,
    num_episodes: int,
    deterministic: bool = False,
    on_step: Callable[[BatchEnv], None] | None = None,
) -> list[list[Panel]]:
    """Adapt to the tasks, (n, task_dim); return the panels of each task, by adaptation step."""
    states: list[np.ndarray] = []

    def record(env: BatchEnv) -> None:
        states.append(np.stack([env.render_state(i * num_episodes) for i in range(len(tasks))]))
        if on_step is not None:
            on_step(env)

    env, use = family.make_batch(len(tasks) * num_episodes), Purpose.EVALUATION_EPISODES
    rollouts = adaptation_rollouts(
        agent,
        env,
        tasks,
        steps,
        seed=seed,
        purpose=use,
        timer=Timer(),
        on_step=record,
        deterministic=deterministic,
    )
    reading = task_reading(agent, family, steps)
    rows: list[list[Panel]] = [[] for _ in tasks]
    for rollout in rollouts:
        episodes = rollout.episodes
        found = None if reading is None else beliefs(agent, rollout)
        for i, row in enumerate(rows):
            length = int(episodes.mask[i, 0].sum())
            shown = np.stack([each[i] for each in states[: length + 1]])
            reward, ended = episodes.reward[i, 0, :length], bool(episodes.terminated[i, 0])
            belief = None
            if found is not None and reading is not None:
                own = Beliefs(*(value[i, 0, :length] for value in found))
                belief = task_belief(reading, own, family)
            mean_return = float(episodes.returns[i].mean())
            row.append(Panel(shown, reward, ended, mean_return, belief))
        states.clear()
    return rows
