"""Rendering of environments that run in worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from metarl.envs.external.description import Description, Environment
from metarl.envs.external.pool import Pool
from metarl.envs.external.process import WorkerError
from metarl.envs.rendering import RenderingUnavailable, frame_at

BACKGROUND = "#ffffff"
MAX_REPLAYS = 8  # episodes whose environments are kept open to be rendered further


class RenderedFamily(Protocol):
    """The members of `ExternalFamily` that rendering uses."""

    @property
    def environment(self) -> Environment: ...

    @property
    def description(self) -> Description: ...

    @property
    def middle_task(self) -> np.ndarray: ...

    def make_pool(self, num_episodes: int, num_workers: int, *, render: bool = False) -> Pool: ...


@dataclass
class Replay:
    """An episode that is replayed to be rendered.

    Attributes:
        pool: one worker with one episode.
        steps: control steps taken so far; -1 before the first reset.
        image: the last one rendered, (height, width, 3) uint8.
    """

    pool: Pool
    steps: int
    image: np.ndarray | None = None


class ExternalRenderer:
    """Renders an episode by replaying it in an environment that can render.

    The render states of an episode are its seed and its actions, (t, 1 + action_dim); the first
    state has no action yet. A later time of the same episode continues its replay.
    """

    def __init__(self, family: RenderedFamily, width: int, height: int) -> None:
        """Open the environment; the size of the images is in pixels.

        Raises:
            RenderingUnavailable: if the environment cannot render, or fails.
        """
        self._family, self._size = family, (width, height)
        self._replays: dict[bytes, Replay] = {}
        name = family.environment.name
        if not family.description.can_render:
            raise RenderingUnavailable(f"{name} cannot draw: it has no render mode rgb_array")
        try:
            self.draw(np.zeros((1, 1 + family.description.action_dim)), family.middle_task)
        except WorkerError as error:
            self.close()
            raise RenderingUnavailable(f"cannot draw: {error}") from error

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the image of the states, (t, 1 + action_dim), at a time, under a task.

        Args and errors are those of `Renderer.draw`.
        """
        key = np.append(states[0, 0], task).tobytes()
        if key not in self._replays:
            if len(self._replays) == MAX_REPLAYS:
                self._replays.pop(next(iter(self._replays))).pool.close()
            self._replays[key] = Replay(self._family.make_pool(1, 1, render=True), -1)
        replay, steps = self._replays[key], frame_at(states, time)[0]
        if replay.steps == steps and replay.image is not None:
            return replay.image
        if not 0 <= replay.steps <= steps:
            replay.pool.reset(task[None], states[:1, 0].astype(np.int64))
            replay.steps = 0
        for state in states[replay.steps + 1 : steps + 1]:
            replay.pool.step(state[None, 1:], np.ones(1, bool))
        replay.steps, replay.image = steps, self._fit(replay.pool.render(0))
        return replay.image

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
        for replay in self._replays.values():
            replay.pool.close()
        self._replays.clear()
