"""A grid with a goal that is not observed: exploration in its simplest form. No physics engine
needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete
from PIL import Image, ImageDraw

from metarl.envs.base import BatchEnv, StepResult, TaskFamily
from metarl.envs.errors import TaskError
from metarl.envs.rendering import frame_at

MOVES = np.array([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]])
"""The change of (x, y) by each action: stay, up, right, down, left, in VariBAD's order."""
ON_GOAL, ELSEWHERE = 1.0, -0.1
"""The rewards of a step that leads to the goal or leaves the agent there, and of any other."""
MAX_SIZE = 100

BACKGROUND, CELL, NO_GOAL, VISITED = "#f7f7f5", "#ffffff", "#e4e4e0", "#a9c5e3"
AGENT, GOAL, REACHED = "#2a6fbb", "#c0392b", "#2e8b57"


@dataclass(frozen=True)
class GridWorld(TaskFamily):
    """Find a goal that is not observed, a cell (x, y) of a grid: reward 1 on it, -0.1 elsewhere.

    Every episode begins in the cell (0, 0) and lasts until the horizon. The actions are stay, up
    (y + 1), right (x + 1), down and left; a move off the grid leads nowhere. The goal is any cell
    but (0, 0), (0, 1), (1, 0) and (1, 1); `tasks` goes through all of them column by column.
    VariBAD plays four episodes per goal. `metarl.envs.references.gridworld` computes what a
    Bayes-optimal agent, posterior sampling and an oracle reach.
    """

    horizon: int = 15
    """Length of an episode in control steps."""
    size: int = 5
    """Number of columns and of rows."""
    observation: Literal["one_hot", "coordinates"] = "one_hot"
    """The position as size x size numbers of which one is 1, so that a policy can treat every cell
    on its own; or as x and y, from 0 to size - 1, which is VariBAD's observation."""

    name: ClassVar[str] = "gridworld"
    source: ClassVar[str] = "Zintgraf et al. 2020 (VariBAD)"
    no_ood_reason: ClassVar[str] = "its tasks are all goals there are"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 3 <= self.size <= MAX_SIZE:
            raise ValueError(f"size: expected from 3 to {MAX_SIZE}, got {self.size}")

    @property
    def observation_space(self) -> Box:
        if self.observation == "coordinates":
            return Box(0.0, self.size - 1, (2,), np.float64)
        return Box(0.0, 1.0, (self.size**2,), np.float64)

    @property
    def action_space(self) -> Discrete:
        return Discrete(len(MOVES))

    @property
    def frames_per_second(self) -> float:
        return 5.0

    @property
    def task_space(self) -> Box:
        return Box(0.0, self.size - 1, (2,), np.float64)

    @property
    def all_tasks(self) -> np.ndarray:
        cells = np.argwhere(np.ones((self.size, self.size)))
        return cells[cells.max(axis=1) > 1].astype(np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return rng.choice(self.all_tasks, num_tasks)

    def check_task(self, task: Sequence[float] | np.ndarray) -> np.ndarray:
        row = super().check_task(task)
        if not self.in_distribution(row):
            nearest = self.all_tasks[np.abs(self.all_tasks - row).sum(axis=1).argmin()]
            raise TaskError(
                f"a task of {self.name} is a cell (x, y), in whole numbers of which one is more "
                f"than 1, got {row.tolist()} (nearest: {nearest.tolist()})"
            )
        return row

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> GridWorldBatchEnv:
        return GridWorldBatchEnv(self, num_episodes, num_threads)

    def make_renderer(self, width: int, height: int) -> GridWorldRenderer:
        return GridWorldRenderer(self, width, height)

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        at = "at the goal " if np.array_equal(state, task) else "at "
        return f"{at}({state[0]:.0f}, {state[1]:.0f})"


class GridWorldBatchEnv(BatchEnv):
    """N agents, each on its own grid. Episodes in which the goal was reached have succeeded."""

    family: GridWorld

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        self.tasks = np.array(tasks, np.float64)
        self.position = np.zeros((self.num_episodes, 2), np.int64)
        self.success = np.zeros(self.num_episodes, bool)
        return self._observe()

    def _observe(self) -> np.ndarray:
        if self.family.observation == "coordinates":
            return self.position.astype(np.float64)
        cell = self.position @ [self.family.size, 1]
        obs = np.zeros((self.num_episodes, self.family.size**2))
        obs[np.arange(self.num_episodes), cell] = 1.0
        return obs

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        start = time.perf_counter()
        rows = slice(None) if ids is None else ids
        moved = self.position[rows] + MOVES[self.action_indices(action, ids)]
        self.position[rows] = moved.clip(0, self.family.size - 1)
        self.physics_seconds += time.perf_counter() - start

    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        self.advance(action, ids)
        reached = (self.position == self.tasks).all(axis=1)
        # An episode that is not stepped is where it was, so `reached` is no news about it.
        self.success = self.success | reached
        reward = np.where(reached, ON_GOAL, ELSEWHERE)
        return self._observe(), reward, np.zeros(self.num_episodes, bool)

    def render_state(self, episode: int) -> np.ndarray:
        return self.position[episode].astype(np.float64)


class GridWorldRenderer:
    """Renders the grid with the cells that the agent has visited. A render state is its cell, (2,).

    The goal, a ring, turns green when reached. Cells that are never the goal are grey.
    """

    def __init__(self, family: GridWorld, width: int, height: int) -> None:
        self._family, self._image_size = family, (width, height)
        self._cell = min(width, height) / (family.size + 1)

    def _centre(self, cell: np.ndarray) -> tuple[float, float]:
        """Return the pixel of the middle of a cell, (2,), or of a point between cells."""
        width, height = self._image_size
        x, y = self._cell * (np.asarray(cell) - (self._family.size - 1) / 2)
        return width / 2 + x, height / 2 - y

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the image of the cells, (t, 2), up to a time, and the goal, (2,).

        Args and errors are those of `Renderer.draw`.
        """
        step, fraction = frame_at(states, time)
        position, visited = states[step], {tuple(state) for state in states[: step + 1]}
        if fraction:
            position = position + fraction * (states[step + 1] - position)
        goals = {tuple(goal) for goal in self._family.all_tasks}
        image = Image.new("RGB", self._image_size, BACKGROUND)
        canvas = ImageDraw.Draw(image)
        for cell in np.ndindex(self._family.size, self._family.size):
            colour = VISITED if cell in visited else CELL if cell in goals else NO_GOAL
            x, y = self._centre(np.array(cell))
            half = self._cell / 2
            box = (x - half, y - half, x + half, y + half)
            canvas.rectangle(box, colour, BACKGROUND, max(1, round(self._cell / 20)))
        ring = REACHED if tuple(task) in visited else GOAL
        line = max(2, round(self._cell / 12))
        canvas.circle(self._centre(task), 0.38 * self._cell, outline=ring, width=line)
        canvas.circle(self._centre(position), 0.22 * self._cell, AGENT)
        return np.asarray(image)

    def close(self) -> None:
        """Nothing to free."""
