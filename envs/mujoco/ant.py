"""Ant task families, on the physics and the observation of Gymnasium's Ant-v5."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import mujoco
import numpy as np
from gymnasium.spaces import Box
from mujoco.batch import Batch

from metarl.envs.mujoco.family import MujocoFamily, squared_norm
from metarl.envs.mujoco.goals import DirectionGoal, VelocityGoal
from metarl.envs.mujoco.markers import GOAL_HEIGHT, GOAL_RADIUS, Marker
from metarl.envs.mujoco.models import load_model
from metarl.envs.task_distribution import MARGIN


@dataclass(frozen=True)
class Ant(MujocoFamily):
    """Base of the Ant families: a robot with four legs whose episode ends when the height of its
    torso leaves a range."""

    contact_forces: bool = True
    """Whether the external forces on the bodies, each clipped to [-1, 1], are observed, 78 more
    numbers, and cost. They are those at the new state; Gymnasium's Ant-v5 has those of the last
    stage of MuJoCo's Runge-Kutta step."""
    control_cost: float = 0.005
    """Cost per squared actuator command, each in [-1, 1]. ProMP has 0.5."""
    contact_cost: float = 0.0005
    """Cost per squared clipped contact force."""
    alive_bonus: float = 0.05
    """Reward for each step. ProMP has 1."""
    lowest: float = 0.2
    """The episode ends where the torso's height, m, is less than this. ProMP has 0."""
    highest: float = 1.0
    """The episode ends where the torso's height, m, is more than this."""

    model_file: ClassVar[str] = "ant.xml"
    reset_noise: ClassVar[float] = 0.1
    normal_velocities: ClassVar[bool] = True
    camera_elevation: ClassVar[float] = -30.0
    observe_position: ClassVar[bool] = False
    """Whether x and y are observed; needed where the reward depends on them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lowest < self.highest:
            raise ValueError(
                f"highest: expected more than lowest ({self.lowest}), got {self.highest}"
            )

    @property
    def model(self) -> mujoco.MjModel:
        return load_model(self.model_file, self.contact_forces)

    @property
    def stage(self) -> int:
        stages = mujoco.mjtStage
        return (stages.mjSTAGE_ACC if self.contact_forces else stages.mjSTAGE_NONE).value

    @property
    def obs_dim(self) -> int:
        return 27 + 2 * self.observe_position + 78 * self.contact_forces

    def observe(self, batch: Batch) -> np.ndarray:
        start = 0 if self.observe_position else 2
        parts = [batch.bind("qpos")[:, start:], batch.bind("qvel")]
        if self.contact_forces:
            parts.append(self.clipped_forces(batch))
        return np.concatenate(parts, axis=1)

    def clipped_forces(self, batch: Batch) -> np.ndarray:
        """Return the external forces on all bodies but the world, (N, 78)."""
        forces = batch.bind("cfrc_ext")[:, 1:]
        return np.clip(forces, -1.0, 1.0).reshape(len(forces), -1)

    def position(self, batch: Batch) -> np.ndarray:
        return batch.bind("qpos")[:, :2].copy()

    def bonus(self, batch: Batch, control: np.ndarray) -> np.ndarray:
        """Return the alive bonus minus control and contact costs, (N,)."""
        bonus = self.alive_bonus - self.control_cost * squared_norm(control)
        if self.contact_forces:
            bonus -= self.contact_cost * squared_norm(self.clipped_forces(batch))
        return bonus

    def terminated(self, batch: Batch, tasks: np.ndarray) -> np.ndarray:
        """where the torso's height leaves the range from `lowest` to `highest`"""
        height = batch.bind("qpos")[:, 2]
        return (height < self.lowest) | (height > self.highest)


@dataclass(frozen=True)
class AntVel(VelocityGoal, Ant):
    """Run forward at a goal velocity: reward 1 - |velocity - goal| - control and contact costs."""

    goal_high: float = 3.0
    """The largest goal velocity, m/s."""

    name: ClassVar[str] = "ant_vel"
    source: ClassVar[str] = "Finn et al. 2017 (MAML)"

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        return 1 - np.abs(velocity[:, 0] - tasks[:, 0]) + self.bonus(batch, control)


@dataclass(frozen=True)
class AntDir(DirectionGoal, Ant):
    """Run in a direction: reward speed in the direction - control and contact costs.

    MAML's tasks are forward and backward. ProMP, PEARL and learn2learn have the headings of the
    plane (`plane: true`), with control_cost 0.5 and alive_bonus 1 in ProMP and PEARL, and lowest 0
    in ProMP.
    """

    plane: bool = False  # pyright: ignore[reportIncompatibleVariableOverride]
    """Whether tasks are headings, radians, instead of forward (+1) and backward (-1)."""

    name: ClassVar[str] = "ant_dir"
    source: ClassVar[str] = "Finn et al. 2017 (MAML)"

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        return self.speed_along(tasks, velocity) + self.bonus(batch, control)


@dataclass(frozen=True)
class AntGoal(Ant):
    """Walk to a goal (x, y), m, and stay: reward -(|x distance| + |y distance|) - costs.

    Goals fill the disk of radius 3 uniformly and no episode ends early, as in ProMP, PEARL and
    VariBAD. MAML's tasks are `region: square`, [-3, 3]^2, with control_cost 0.005, alive_bonus 4.05
    and ends_early true. Out of distribution are the goals around
    that region, in the square 1.5 times as wide.
    """

    control_cost: float = 0.1
    """Cost per squared actuator command, each in [-1, 1]. MAML has 0.005."""
    alive_bonus: float = 0.0
    """Reward for each step. MAML has 4.05."""
    region: Literal["disk", "square"] = "disk"
    """The shape of the region of goals."""
    goal_range: float = 3.0
    """Radius of the disk, or half width of the square, m."""
    ends_early: bool = False
    """Whether the episode ends where the torso's height leaves its range."""

    name: ClassVar[str] = "ant_goal"
    source: ClassVar[str] = "Rothfuss et al. 2019 (ProMP)"
    observe_position: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.goal_range > 0:
            raise ValueError(f"goal_range: expected more than 0, got {self.goal_range}")

    @property
    def task_space(self) -> Box:
        return Box(-self.goal_range, self.goal_range, (2,), np.float64)

    @property
    def ood_space(self) -> Box:
        limit = MARGIN * self.goal_range
        return Box(-limit, limit, (2,), np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        if self.region == "square":
            return rng.uniform(-self.goal_range, self.goal_range, (num_tasks, 2))
        angle = rng.uniform(-math.pi, math.pi, num_tasks)
        return self._in_disk(angle, rng.uniform(0.0, 1.0, num_tasks))

    def _in_disk(self, angle: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Return goals, (n, 2), with the shares (n,) of the disk's area nearer to its centre."""
        radius = self.goal_range * np.sqrt(share)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    @property
    def num_coordinates(self) -> int:
        return 2

    def tasks_at(self, coordinates: np.ndarray) -> np.ndarray:
        if self.region == "square":
            return super().tasks_at(coordinates)
        return self._in_disk(math.pi * (2 * coordinates[:, 0] - 1), coordinates[:, 1])

    def in_distribution(self, task: np.ndarray) -> bool:
        inside = self.region == "square" or math.hypot(*task) <= self.goal_range
        return inside and super().in_distribution(task)

    def terminated(self, batch: Batch, tasks: np.ndarray) -> np.ndarray:
        """never, or with `ends_early` where the torso's height leaves its range"""
        return super().terminated(batch, tasks) & self.ends_early

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        distance = np.abs(batch.bind("qpos")[:, :2] - tasks).sum(axis=1)
        return -distance + self.bonus(batch, control)

    def goal_markers(
        self, start: np.ndarray, state: np.ndarray, seconds: float, task: np.ndarray
    ) -> list[Marker]:
        """Return a disk on the floor, with a post."""
        (x, y), middle = task, GOAL_HEIGHT / 2
        disk = Marker(mujoco.mjtGeom.mjGEOM_CYLINDER, (x, y, 0.01), (GOAL_RADIUS, 0.01, 0.0))
        return [disk, Marker(mujoco.mjtGeom.mjGEOM_CYLINDER, (x, y, middle), (0.03, middle, 0.0))]

    def goal_place(self, task: np.ndarray) -> tuple[float, float]:
        return float(task[0]), float(task[1])

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        x, y = task - state[:2]
        angle = math.degrees(math.atan2(y, x))
        return f"goal {math.hypot(x, y):.1f} m away at {angle:+z.0f} degrees"
