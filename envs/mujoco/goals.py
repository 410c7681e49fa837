"""Goals that several robots share: goal velocities and directions."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np
from gymnasium.spaces import Box

from metarl.envs.errors import TaskError
from metarl.envs.mujoco.family import MujocoFamily
from metarl.envs.mujoco.markers import Marker
from metarl.envs.task_distribution import MARGIN


@dataclass(frozen=True)
class VelocityGoal(MujocoFamily):
    """A task is a forward velocity, m/s, uniform between two limits.

    Out of distribution are velocities beyond the upper limit, by up to half of the range.
    """

    uniform_tasks: ClassVar[bool] = True

    goal_low: float = 0.0
    """The smallest goal velocity, m/s."""
    goal_high: float = 2.0
    """The largest goal velocity, m/s."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.goal_low < self.goal_high:
            raise ValueError(
                f"goal_high: expected more than goal_low ({self.goal_low}), got {self.goal_high}"
            )

    @property
    def task_space(self) -> Box:
        return Box(self.goal_low, self.goal_high, (1,), np.float64)

    @property
    def ood_space(self) -> Box:
        limit = self.goal_low + MARGIN * (self.goal_high - self.goal_low)
        return Box(self.goal_low, limit, (1,), np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return rng.uniform(self.goal_low, self.goal_high, (num_tasks, 1))

    def goal_markers(
        self, start: np.ndarray, state: np.ndarray, seconds: float, task: np.ndarray
    ) -> list[Marker]:
        """Return a bar on the floor that moves at the goal velocity from the robot's start."""
        x, y = self.floor_position(start)[0] + task[0] * seconds, self.floor_position(state)[1]
        return [Marker(mujoco.mjtGeom.mjGEOM_BOX, (x, y, 0.005), (0.04, 1.0, 0.005))]

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        return f"speed {state[self.model.nq]:+z.1f}, goal {task[0]:+z.1f} m/s"


@dataclass(frozen=True)
class DirectionGoal(MujocoFamily):
    """A task is a direction: forward (+1) or backward (-1) along x, or a heading in the plane.

    A heading is an angle from the x axis, radians, uniform in [-pi, pi). There are no tasks out of
    distribution: the directions are all there are.
    """

    plane: ClassVar[bool] = False
    """Whether tasks are headings."""
    no_ood_reason: ClassVar[str] = "it has every direction there is"

    @property
    def num_coordinates(self) -> int:
        return int(self.plane)

    @property
    def task_space(self) -> Box:
        limit = math.pi if self.plane else 1.0
        return Box(-limit, limit, (1,), np.float64)

    @property
    def all_tasks(self) -> np.ndarray | None:
        return None if self.plane else np.array([[1.0], [-1.0]])

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        if self.plane:
            return rng.uniform(-math.pi, math.pi, (num_tasks, 1))
        return rng.choice([-1.0, 1.0], (num_tasks, 1))

    def check_task(self, task: Sequence[float] | np.ndarray) -> np.ndarray:
        row = super().check_task(task)
        if not self.plane and abs(row[0]) != 1:
            raise TaskError(f"a task of {self.name} is -1 or +1, got {row[0]:g}")
        return row

    def speed_along(self, tasks: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Return the speed (N,) in the tasks' (N, 1) directions of a velocity, (N, 2)."""
        if not self.plane:
            return tasks[:, 0] * velocity[:, 0]
        return np.cos(tasks[:, 0]) * velocity[:, 0] + np.sin(tasks[:, 0]) * velocity[:, 1]

    def heading(self, task: np.ndarray) -> float:
        """Return a task as an angle from the x axis, radians."""
        return float(task[0]) if self.plane else math.pi * (task[0] < 0)

    def goal_markers(
        self, start: np.ndarray, state: np.ndarray, seconds: float, task: np.ndarray
    ) -> list[Marker]:
        """Return an arrow over the robot."""
        x, y = self.floor_position(state)
        place = (x, y, robot_height(self.model) + 0.15)
        size = (0.04, 0.04, 1.2)
        return [Marker(mujoco.mjtGeom.mjGEOM_ARROW, place, size, self.heading(task))]

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        velocity = state[self.model.nq : self.model.nq + 2]
        if self.plane:
            along = self.speed_along(task[None], velocity[None])[0]
            return f"speed {along:+z.1f} m/s along {math.degrees(task[0]):+z.0f} degrees"
        return f"speed {velocity[0]:+z.1f} m/s, goal {'forward' if task[0] > 0 else 'backward'}"


@functools.cache  # every frame of a video needs it
def robot_height(model: mujoco.MjModel) -> float:
    """Return the height of the top of a robot in its initial pose, m."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    robot = model.geom_bodyid > 0
    return float((data.geom_xpos[robot, 2] + model.geom_rbound[robot] / 2).max())
