"""Pictures of environments that run in worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from metarl.envs.external.pool import Pool
from metarl.envs.external.process import WorkerError
from metarl.envs.mujoco.rendering import RenderingUnavailable
from metarl.envs.rendering import moment

if TYPE_CHECKING:
    from metarl.envs.external.family import ExternalFamily

PAPER = "#ffffff"
MAX_PLAYERS = 8  # episodes that are kept ready to be drawn further


@dataclass
class Player:
    """An episode played again for its pictures, after `steps` steps."""

    pool: Pool
    steps: int
    picture: np.ndarray | None = None


class ExternalScene:
    """Draws an episode by playing it again, in an environment that can draw.

    The states of an episode are its seed and its actions, (t, 1 + action_dim): the first has no
    action yet. An episode that goes on is played on, not from the beginning.
    """

    def __init__(self, family: ExternalFamily, width: int, height: int) -> None:
        self._family, self._size = family, (width, height)
        self._players: dict[bytes, Player] = {}
        name = family.environment.name
        if not family.description.draws:
            raise RenderingUnavailable(f"{name} cannot draw: it has no render mode rgb_array")
        try:
            self.draw(np.zeros((1, 1 + family.description.action_dim)), family.middle_task)
        except WorkerError as error:
            self.close()
            raise RenderingUnavailable(f"cannot draw: {error}") from error

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the picture of the states, (t, 1 + action_dim), at a moment, under the task."""
        key = np.append(states[0, 0], task).tobytes()
        if key not in self._players:
            if len(self._players) == MAX_PLAYERS:
                self._players.pop(next(iter(self._players))).pool.close()
            self._players[key] = Player(self._family.make_pool(1, 1, render=True), -1)
        player, steps = self._players[key], moment(states, time)[0]
        if player.steps == steps and player.picture is not None:
            return player.picture
        if not 0 <= player.steps <= steps:
            player.pool.reset(task[None], states[:1, 0].astype(np.int64))
            player.steps = 0
        for state in states[player.steps + 1 : steps + 1]:
            player.pool.step(state[None, 1:], np.ones(1, bool))
        player.steps, player.picture = steps, self._fit(player.pool.picture(0))
        return player.picture

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        """Scale a frame to the size of the picture, with borders where the shapes differ."""
        image, (width, height) = Image.fromarray(frame), self._size
        scale = min(width / image.width, height / image.height)
        image = image.resize((max(1, int(scale * image.width)), max(1, int(scale * image.height))))
        picture = Image.new("RGB", self._size, PAPER)
        picture.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return np.asarray(picture)

    def close(self) -> None:
        """End the environments."""
        for player in self._players.values():
            player.pool.close()
        self._players.clear()
