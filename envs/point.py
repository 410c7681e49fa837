"""2D navigation: a point walks to a goal that it cannot see. No physics engine needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box
from PIL import Image, ImageDraw

from envs.base import BatchEnv, SimulationDiverged, TaskFamily

MAX_STEP = 0.1  # how far the point moves in one step, per axis
GOAL_RADIUS = 0.01  # the goal is reached when both axes are this close

RECENT = 15  # positions whose trail is drawn strongly
PAPER, GRID, START = "#f7f7f5", "#e4e4e0", "#888888"
TRAIL, OLD_TRAIL, GOAL, REACHED = "#2a6fbb", "#a9c5e3", "#c0392b", "#2e8b57"


@dataclass(frozen=True)
class PointNav(TaskFamily):
    """Walk to a goal (x, y): reward -|position - goal|; ends at the goal."""

    horizon: int = 100
    """Length of an episode in control steps."""
    goal_range: float = 0.5
    """Goals are uniform in the square of this half width around the start."""
    action_scale: float = 1.0
    """The policy action that moves the point by the largest step, 0.1 per axis. MAML's code
    normalises actions so that it is 1; with 0.1, as in some others, an initial policy of standard
    deviation 1 hardly ever makes a smaller step."""

    name: ClassVar[str] = "point_nav"
    source: ClassVar[str] = "Finn et al. 2017 (MAML)"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("goal_range", "action_scale"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field}: expected more than 0, got {getattr(self, field)}")

    @property
    def observation_space(self) -> Box:
        limit = (self.horizon + 1) * MAX_STEP  # a step more than can be walked, for rounding
        return Box(-limit, limit, (2,), np.float64)

    @property
    def action_space(self) -> Box:
        return Box(-self.action_scale, self.action_scale, (2,), np.float32)

    @property
    def task_space(self) -> Box:
        return Box(-self.goal_range, self.goal_range, (2,), np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return rng.uniform(-self.goal_range, self.goal_range, (num_tasks, 2))

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> PointBatchEnv:
        return PointBatchEnv(self, num_episodes, num_threads)

    def make_scene(self, width: int, height: int) -> PointScene:
        return PointScene(width, height, extent=1.6 * self.goal_range)

    def describe(self, state: np.ndarray, task: np.ndarray) -> str:
        return f"distance {np.linalg.norm(state - task):.2f}"


class PointBatchEnv(BatchEnv):
    """N points."""

    family: PointNav

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        self.tasks = np.asarray(tasks, np.float64)
        self.position = np.zeros((self.num_episodes, 2))
        return self.position.copy()

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        start = time.perf_counter()
        rows = slice(None) if ids is None else ids
        share = np.asarray(action, np.float64)[rows] / self.family.action_scale
        self.position[rows] += MAX_STEP * np.clip(share, -1.0, 1.0)
        self.physics_seconds += time.perf_counter() - start

    def step(
        self, action: np.ndarray, ids: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.advance(action, ids)
        offset = self.position - self.tasks
        lost = np.flatnonzero(~np.isfinite(offset).all(axis=1))
        if lost.size:
            raise SimulationDiverged(lost, "the position is not finite")
        reward: np.ndarray = -np.linalg.norm(offset, axis=1)
        reached: np.ndarray = np.all(np.abs(offset) < GOAL_RADIUS, axis=1)
        return self.position.copy(), reward, reached

    def drawn_state(self, episode: int) -> np.ndarray:
        return self.position[episode].copy()


class PointScene:
    """Draws the trajectory of a point, and its goal. A state is a position, (2,).

    The goal turns green when reached. A point that has left the picture is a ring at its edge.
    """

    def __init__(self, width: int, height: int, extent: float) -> None:
        self._size = width, height
        self._scale = min(width, height) / (2 * extent)

    def _pixel(self, position: np.ndarray) -> tuple[float, float]:
        width, height = self._size
        return width / 2 + self._scale * position[0], height / 2 - self._scale * position[1]

    def draw(self, states: np.ndarray, task: np.ndarray) -> np.ndarray:
        """Return the picture of the positions so far, (t, 2), and the goal, (2,)."""
        picture = Image.new("RGB", self._size, PAPER)
        canvas = ImageDraw.Draw(picture)
        for line in np.linspace(-1.0, 1.0, 9):
            x, y = self._pixel(np.array([line, line]))
            canvas.line([(x, 0), (x, self._size[1])], fill=GRID)
            canvas.line([(0, y), (self._size[0], y)], fill=GRID)
        path = [self._pixel(state) for state in states]
        if len(path) > 1:
            canvas.line(path, fill=OLD_TRAIL, width=3, joint="curve")
            canvas.line(path[-RECENT:], fill=TRAIL, width=3, joint="curve")
        canvas.circle(self._pixel(np.zeros(2)), 5, fill=START)
        reached = (np.abs(states[-1] - task) < GOAL_RADIUS).all()
        canvas.circle(self._pixel(task), 12, outline=REACHED if reached else GOAL, width=4)
        inside = np.clip(path[-1], 9, np.array(self._size) - 10)
        visible = np.array_equal(inside, path[-1])
        canvas.circle(tuple(inside), 8, fill=TRAIL if visible else PAPER, outline=TRAIL, width=3)
        return np.asarray(picture)

    def close(self) -> None:
        """Nothing to free."""
