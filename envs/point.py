"""2D navigation: a point moves to a goal that is not observed. No physics engine needed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from gymnasium.spaces import Box
from PIL import Image, ImageDraw

from metarl.envs.base import BatchEnv, StepResult, TaskFamily
from metarl.envs.errors import SimulationDiverged
from metarl.envs.rendering import frame_at
from metarl.envs.task_distribution import MARGIN

GOAL_RADIUS = 0.01  # the goal is reached when both axes are this close
NEUTRAL = 0.5  # |x| + |y| within which no progress is rewarded

RECENT = 15  # last positions, whose line is drawn in a strong colour
BACKGROUND, GRID, START = "#f7f7f5", "#e4e4e0", "#888888"
RECENT_PATH, OLD_PATH, GOAL, REACHED = "#2a6fbb", "#a9c5e3", "#c0392b", "#2e8b57"


@dataclass(frozen=True)
class PointNav(TaskFamily):
    """Walk to a goal (x, y): reward -|position - goal|; ends at the goal.

    The other published variants do not end at the goal (ends_at_goal false). PEARL's has
    `goal_range: 1`, `horizon: 20` and start_range 1; its sparse one `region: semicircle`,
    goal_range 1, `horizon: 20` and `reward: sparse`, and VariBAD's the same with the horizon 100.
    ProMP's has `region: corners`, goal_range 2, `reward: progress`, max_step 0.2 and start_range
    0.2. Out of distribution are goals around the square, in one 1.5 times as wide, or on the
    circle's other half.
    """

    horizon: int = 100
    """Length of an episode in control steps."""
    region: Literal["square", "semicircle", "corners"] = "square"
    """Where goals are: uniformly in a square around the origin or on the half of a circle where y
    is positive, or at the corners of a square."""
    goal_range: float = 0.5
    """Half width of the square or radius of the circle."""
    reward: Literal["distance", "sparse", "progress"] = "distance"
    """Minus the distance to the goal; or 1 minus that distance within goal_radius of the goal and 0
    elsewhere; or by how much the distance has shrunk where no other corner is nearer than the goal,
    and 0 around the origin."""
    goal_radius: float = 0.2
    """How near to the goal a sparse reward is given."""
    ends_at_goal: bool = True
    """Whether the episode ends at the goal: where both axes are within 0.01."""
    start_range: float = 0.0
    """Episodes start uniformly in the square of this half width around the origin."""
    max_step: float = 0.1
    """How far the point moves in one step, per axis."""
    action_scale: float = 1.0
    """The policy action that moves the point by the largest step. MAML's code normalises actions
    so that it is 1; with 0.1, as in some others, an initial policy of standard deviation 1 hardly
    ever makes a smaller step."""

    name: ClassVar[str] = "point_nav"
    source: ClassVar[str] = "Finn et al. 2017 (MAML)"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("goal_range", "goal_radius", "max_step", "action_scale"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field}: expected more than 0, got {getattr(self, field)}")
        if not self.start_range >= 0:
            raise ValueError(f"start_range: expected at least 0, got {self.start_range}")
        if self.reward == "progress" and self.region != "corners":
            raise ValueError(f"reward: progress needs region corners, got region {self.region}")
        if self.region == "corners":
            # The dataclass is frozen; this shadows the class variable.
            object.__setattr__(self, "no_ood_reason", "it has four goals only")

    @property
    def observation_space(self) -> Box:
        # One step more than can be reached, for rounding.
        limit = self.start_range + (self.horizon + 1) * self.max_step
        return Box(-limit, limit, (2,), np.float64)

    @property
    def action_space(self) -> Box:
        return Box(-self.action_scale, self.action_scale, (2,), np.float32)

    @property
    def task_space(self) -> Box:
        low = 0.0 if self.region == "semicircle" else -self.goal_range
        high = np.full(2, self.goal_range)
        return Box(np.array([-self.goal_range, low]), high, dtype=np.float64)

    @property
    def ood_space(self) -> Box:
        margin = MARGIN if self.region == "square" else 1.0
        return Box(-margin * self.goal_range, margin * self.goal_range, (2,), np.float64)

    @property
    def all_tasks(self) -> np.ndarray | None:
        if self.region != "corners":
            return None
        return self.goal_range * np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        if self.region == "corners":
            return self.goal_range * rng.choice([-1.0, 1.0], (num_tasks, 2))
        if self.region == "semicircle":
            return self._on_circle(rng.uniform(0.0, math.pi, num_tasks))
        return rng.uniform(-self.goal_range, self.goal_range, (num_tasks, 2))

    @property
    def num_coordinates(self) -> int:
        return {"square": 2, "semicircle": 1, "corners": 0}[self.region]

    def tasks_at(self, coordinates: np.ndarray) -> np.ndarray:
        if self.region == "semicircle":
            return self._on_circle(math.pi * coordinates[:, 0])
        return super().tasks_at(coordinates)

    def in_distribution(self, task: np.ndarray) -> bool:
        # On the circle but for rounding, also that of a task in single precision
        near = self.region != "semicircle" or math.isclose(
            math.hypot(*task), self.goal_range, rel_tol=1e-6
        )
        return near and super().in_distribution(task)

    def sample_ood_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        if self.region == "semicircle":
            return self._on_circle(rng.uniform(-math.pi, 0.0, num_tasks))
        return super().sample_ood_tasks(rng, num_tasks)

    def _on_circle(self, angle: np.ndarray) -> np.ndarray:
        return self.goal_range * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> PointBatchEnv:
        return PointBatchEnv(self, num_episodes, num_threads)

    def make_renderer(self, width: int, height: int) -> PointRenderer:
        return PointRenderer(width, height, extent=1.6 * max(self.goal_range, self.start_range))

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        return f"distance {np.linalg.norm(state - task):.2f}"


class PointBatchEnv(BatchEnv):
    """N points."""

    family: PointNav

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        self.tasks = np.asarray(tasks, np.float64)
        start = self.family.start_range
        self.position = np.stack([rng.uniform(-start, start, 2) for rng in rngs])
        return self.position.copy()

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        start = time.perf_counter()
        rows = slice(None) if ids is None else ids
        scaled = np.asarray(action, np.float64)[rows] / self.family.action_scale
        self.position[rows] += self.family.max_step * np.clip(scaled, -1.0, 1.0)
        self.physics_seconds += time.perf_counter() - start

    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        before = np.linalg.norm(self.position - self.tasks, axis=1)
        self.advance(action, ids)
        offset = self.position - self.tasks
        reward = self._reward(before, np.linalg.norm(offset, axis=1))
        reached: np.ndarray = np.all(np.abs(offset) < GOAL_RADIUS, axis=1)
        result = self.position.copy(), reward, reached & self.family.ends_at_goal
        if np.isfinite(offset).all():
            return result
        diverged = np.flatnonzero(~np.isfinite(offset).all(axis=1))
        diverged = diverged if ids is None else np.intersect1d(diverged, ids)
        if not diverged.size:  # all diverged in earlier steps and are no longer stepped
            return result
        raise SimulationDiverged(diverged, "the position is not finite", result)

    def _reward(self, before: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Return the rewards, (N,), given the distances to the goal before and after the step."""
        family = self.family
        if family.reward == "distance":
            return -distance
        if family.reward == "sparse":
            return np.where(distance <= family.goal_radius, 1 - distance, 0.0)
        # No corner is nearer than the goal where the position has the goal's signs.
        nearest = (self.position * self.tasks >= 0).all(axis=1)
        neutral = np.abs(self.position).sum(axis=1) < NEUTRAL
        return np.where(nearest & ~neutral, before - distance, 0.0)

    def render_state(self, episode: int) -> np.ndarray:
        return self.position[episode].copy()


class PointRenderer:
    """Renders the trajectory of a point, and its goal. A render state is a position, (2,).

    The goal turns green when reached. A point outside the image is shown as a ring at its edge.
    """

    def __init__(self, width: int, height: int, extent: float) -> None:
        self._size = width, height
        self._scale = min(width, height) / (2 * extent)

    def _pixel(self, position: np.ndarray) -> tuple[float, float]:
        width, height = self._size
        return width / 2 + self._scale * position[0], height / 2 - self._scale * position[1]

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the image of the positions, (t, 2), up to a time, and the goal, (2,).

        Args and errors are those of `Renderer.draw`.
        """
        step, fraction = frame_at(states, time)
        if fraction:
            between = states[step] + fraction * (states[step + 1] - states[step])
            states = np.vstack([states[: step + 1], between])
        else:
            states = states[: step + 1]
        image = Image.new("RGB", self._size, BACKGROUND)
        canvas = ImageDraw.Draw(image)
        for line in np.linspace(-1.0, 1.0, 9):
            x, y = self._pixel(np.array([line, line]))
            canvas.line([(x, 0), (x, self._size[1])], fill=GRID)
            canvas.line([(0, y), (self._size[0], y)], fill=GRID)
        path = [self._pixel(state) for state in states]
        if len(path) > 1:
            canvas.line(path, fill=OLD_PATH, width=3, joint="curve")
            canvas.line(path[-RECENT:], fill=RECENT_PATH, width=3, joint="curve")
        canvas.circle(self._pixel(np.zeros(2)), 5, fill=START)
        reached = (np.abs(states[-1] - task) < GOAL_RADIUS).all()
        canvas.circle(self._pixel(task), 12, outline=REACHED if reached else GOAL, width=4)
        inside = np.clip(path[-1], 9, np.array(self._size) - 10)
        visible = np.array_equal(inside, path[-1])
        canvas.circle(
            tuple(inside),
            8,
            fill=RECENT_PATH if visible else BACKGROUND,
            outline=RECENT_PATH,
            width=3,
        )
        return np.asarray(image)

    def close(self) -> None:
        """Nothing to free."""
