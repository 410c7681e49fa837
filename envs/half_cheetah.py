"""HalfCheetah task families, on the physics and the observation of Gymnasium's HalfCheetah-v5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box
from mujoco.batch import Batch

from envs.base import TaskError
from envs.mujoco import MujocoFamily

RESET_NOISE = 0.1
CONTROL_COST = 0.05


@dataclass(frozen=True)
class HalfCheetah(MujocoFamily):
    """What the HalfCheetah families share: a planar robot whose forward velocity is rewarded."""

    horizon: int = 200
    """Length of an episode in control steps."""

    model_file: ClassVar[str] = "half_cheetah.xml"
    frame_skip: ClassVar[int] = 5
    obs_dim: ClassVar[int] = 17

    def initial_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        model = self.model
        qpos = model.qpos0 + rng.uniform(-RESET_NOISE, RESET_NOISE, model.nq)
        return qpos, RESET_NOISE * rng.standard_normal(model.nv)

    def observe(self, batch: Batch) -> np.ndarray:
        # All but the x position, which no reward depends on.
        return np.concatenate([batch.bind("qpos")[:, 1:], batch.bind("qvel")], axis=1)

    def position(self, batch: Batch) -> np.ndarray:
        return batch.bind("qpos")[:, 0].copy()


def control_cost(control: np.ndarray) -> np.ndarray:
    """Return the cost, (N,), of the actuator commands, (N, 6)."""
    return CONTROL_COST * np.square(control).sum(axis=1)


@dataclass(frozen=True)
class HalfCheetahVel(HalfCheetah):
    """Run forward at a goal velocity in m/s: reward -|velocity - goal| - 0.05 |control|^2."""

    goal_low: float = 0.0
    """The smallest goal velocity, m/s."""
    goal_high: float = 2.0
    """The largest goal velocity, m/s. MAML uses 2; ProMP, PEARL and VariBAD use 3."""

    name: ClassVar[str] = "half_cheetah_vel"
    source: ClassVar[str] = "Finn et al. 2017 (MAML)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.goal_low < self.goal_high:
            raise ValueError(
                f"goal_high: expected more than goal_low ({self.goal_low}), got {self.goal_high}"
            )

    @property
    def task_space(self) -> Box:
        return Box(self.goal_low, self.goal_high, (1,), np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return rng.uniform(self.goal_low, self.goal_high, (num_tasks, 1))

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        return -np.abs(velocity - tasks[:, 0]) - control_cost(control)

    def describe(self, state: np.ndarray, task: np.ndarray) -> str:
        return f"speed {state[self.model.nq]:+.1f}, goal {task[0]:+.1f} m/s"


@dataclass(frozen=True)
class HalfCheetahDir(HalfCheetah):
    """Run forward (+1) or backward (-1): reward direction * velocity - 0.05 |control|^2."""

    name: ClassVar[str] = "half_cheetah_dir"
    source: ClassVar[str] = "Finn et al. 2017 (MAML)"
    splits_are_disjoint: ClassVar[bool] = False  # there are only two tasks

    @property
    def task_space(self) -> Box:
        return Box(-1.0, 1.0, (1,), np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return rng.choice([-1.0, 1.0], (num_tasks, 1))

    def check_task(self, task: Sequence[float] | np.ndarray) -> np.ndarray:
        row = super().check_task(task)
        if abs(row[0]) != 1:
            raise TaskError(f"a task of {self.name} is -1 or +1, got {row[0]:g}")
        return row

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        return tasks[:, 0] * velocity - control_cost(control)

    def describe(self, state: np.ndarray, task: np.ndarray) -> str:
        goal = "forward" if task[0] > 0 else "backward"
        return f"speed {state[self.model.nq]:+.1f} m/s, goal {goal}"
