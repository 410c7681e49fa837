"""Rendering of environments that run in worker processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image

from metarl.envs.external.description import Description, Environment
from metarl.envs.external.pool import Pool
from metarl.envs.external.process import WorkerError
from metarl.envs.rendering import RenderingUnavailable, frame_at

BACKGROUND = "#ffffff"
MAX_REPLAYS = 8  # episodes whose environments are kept open, in a worker each


class RenderedFamily(Protocol):
    """The members of `ExternalFamily` that rendering uses."""

    @property
    def environment(self) -> Environment: ...

    @property
    def description(self) -> Description: ...

    @property
    def middle_task(self) -> np.ndarray: ...

    def make_pool(self, num_episodes: int, num_workers: int, *, render: bool = False) -> Pool: ...


@dataclass(eq=False)
class Replay:
    """An episode that is replayed to be rendered.

    Attributes:
        pool: one worker with one episode.
        task: the task of the episode.
        states: the render states replayed so far; none before the first reset.
        image: the last one rendered, (height, width, 3) uint8.
    """

    pool: Pool
    task: np.ndarray = field(default_factory=lambda: np.zeros(0))
    states: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    image: np.ndarray | None = None

    def is_of(self, states: np.ndarray, task: np.ndarray) -> bool:
        """Return whether this may be the episode of the states, (t, k), under a task."""
        both = min(len(self.states), len(states))
        return both == 0 or (
            np.array_equal(self.states[:both], states[:both]) and np.array_equal(self.task, task)
        )


class ExternalRenderer:
    """Renders an episode by replaying it in an environment that can render.

    The render states of an episode are its seed and its actions, (t, 1 + action_dim); the first
    state has no action yet. A later time of the same episode continues its replay. Beyond
    `MAX_REPLAYS` episodes the worker used last takes the new one, so that most of those drawn in
    turn keep theirs.
    """

    def __init__(self, family: RenderedFamily, width: int, height: int) -> None:
        """Open the environment; the size of the images is in pixels.

        Raises:
            RenderingUnavailable: if the environment cannot render, or fails.
        """
        self._family, self._size = family, (width, height)
        self._replays: list[Replay] = []  # the one used last at the end
        name = family.environment.name
        if not family.description.can_render:
            raise RenderingUnavailable(f"{name} cannot draw: it has no render mode rgb_array")
        try:
            self.draw(np.zeros((1, 1 + family.description.action_dim)), family.middle_task)
        except WorkerError as error:
            self.close()
            raise RenderingUnavailable(f"cannot draw: {error}") from error
        self._replays[0].states = np.zeros((0, 0))  # its worker is that of the first episode

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the image of the states, (t, 1 + action_dim), at a time, under a task.

        Args and errors are those of `Renderer.draw`.
        """
        replay, steps = self._replay_of(states, task), frame_at(states, time)[0]
        done = len(replay.states) - 1
        if done == steps and replay.image is not None:
            return replay.image
        replay.states = states[:0]  # until all steps are taken
        if not 0 <= done <= steps:
            replay.pool.reset(task[None], states[:1, 0].astype(np.int64))
            done = 0
        for state in states[done + 1 : steps + 1]:
            replay.pool.step(state[None, 1:], np.ones(1, bool))
        replay.task, replay.states = task.copy(), states[: steps + 1].copy()
        replay.image = self._fit(replay.pool.render(0))
        return replay.image

    def _replay_of(self, states: np.ndarray, task: np.ndarray) -> Replay:
        """Return the replay of an episode, to which it may have to be reset."""
        found = next((each for each in self._replays if each.is_of(states, task)), None)
        if found is None and len(self._replays) < MAX_REPLAYS:
            found = Replay(self._family.make_pool(1, 1, render=True))
            self._replays.append(found)
        if found is None:
            found = self._replays[-1]
            found.states = states[:0]
        self._replays.remove(found)
        self._replays.append(found)
        return found

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        """Scale a frame to the size of the image, with borders if the aspect ratios differ."""
        scaled, (width, height) = Image.fromarray(frame), self._size
        scale = min(width / scaled.width, height / scaled.height)
        size = max(1, int(scale * scaled.width)), max(1, int(scale * scaled.height))
        scaled = scaled.resize(size)
        image = Image.new("RGB", self._size, BACKGROUND)
        image.paste(scaled, ((width - scaled.width) // 2, (height - scaled.height) // 2))
        return np.asarray(image)

    def close(self) -> None:
        """Close the environments and end their workers."""
        for replay in self._replays:
            replay.pool.close()
        self._replays.clear()
