"""Walker2d and Hopper task families, on the physics of Gymnasium's Walker2d-v5 and Hopper-v5."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from mujoco.batch import Batch

from metarl.envs.mujoco.dynamics import RandomParams
from metarl.envs.mujoco.family import MujocoFamily, squared_norm
from metarl.envs.mujoco.goals import VelocityGoal

CONTROL_COST = 0.001  # per squared actuator command
MAX_OBSERVED_VELOCITY = 10.0


@dataclass(frozen=True)
class PlanarWalker(MujocoFamily):
    """Base of Walker2d and Hopper: a planar robot whose episode ends when it falls."""

    default_frame_skip: ClassVar[int] = 4
    reset_noise: ClassVar[float] = 0.005

    @property
    def obs_dim(self) -> int:
        return self.model.nq - 1 + self.model.nv

    def observe(self, batch: Batch) -> np.ndarray:
        # Without the x position: no reward depends on it.
        limit = MAX_OBSERVED_VELOCITY
        qvel = np.clip(batch.bind("qvel"), -limit, limit)
        return np.concatenate([batch.bind("qpos")[:, 1:], qvel], axis=1)

    def position(self, batch: Batch) -> np.ndarray:
        return batch.bind("qpos")[:, 0].copy()

    @abstractmethod
    def healthy(self, batch: Batch) -> np.ndarray:
        """Return which robots have not fallen, (N,) bool."""

    def terminated(self, batch: Batch, tasks: np.ndarray) -> np.ndarray:
        """where the robot has fallen: its torso too low, too high or not upright"""
        return ~self.healthy(batch)


@dataclass(frozen=True)
class Walker(PlanarWalker):
    """Two legs; has fallen where its torso is not upright at a height of 0.8 to 2 m."""

    model_file: ClassVar[str] = "walker2d_v5.xml"

    def healthy(self, batch: Batch) -> np.ndarray:
        height, angle = batch.bind("qpos")[:, 1:3].T
        return (height > 0.8) & (height < 2.0) & (np.abs(angle) < 1.0)


@dataclass(frozen=True)
class Hopper(PlanarWalker):
    """One leg; has fallen where its torso is not upright at a height of at least 0.7 m."""

    model_file: ClassVar[str] = "hopper.xml"

    def healthy(self, batch: Batch) -> np.ndarray:
        qpos, qvel = batch.bind("qpos"), batch.bind("qvel")
        bounded = (np.abs(qpos[:, 2:]) < 100).all(axis=1) & (np.abs(qvel) < 100).all(axis=1)
        return bounded & (qpos[:, 1] > 0.7) & (np.abs(qpos[:, 2]) < 0.2)


@dataclass(frozen=True)
class WalkerVel(VelocityGoal, Walker):
    """Walk at a goal velocity: reward alive_bonus - |velocity - goal| - 0.001 |control|^2.

    The published frame skip is 8 physics steps; ours is Gymnasium's 4.
    """

    goal_high: float = 10.0
    """The largest goal velocity, m/s."""
    alive_bonus: float = 15.0
    """Reward for each step."""

    name: ClassVar[str] = "walker_vel"
    source: ClassVar[str] = "Rothfuss et al. 2019 (ProMP)"

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        return (
            self.alive_bonus - np.abs(velocity - tasks[:, 0]) - CONTROL_COST * squared_norm(control)
        )


@dataclass(frozen=True)
class _ForwardReward(PlanarWalker):
    """Gymnasium's reward: velocity + 1 while the robot has not fallen - 0.001 |control|^2."""

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        return velocity + self.healthy(batch) - CONTROL_COST * squared_norm(control)


@dataclass(frozen=True)
class WalkerParams(RandomParams, _ForwardReward, Walker):
    """Walk forward with other masses, inertias, frictions and dampings: Walker2d's reward.

    The numbers of a task are exponents: the masses of the bodies, their inertias, the frictions of
    the geoms and the dampings of the joints are multiplied by 1.5 (dampings by 1.3) to their power.
    The published frame skip is 5 physics steps; ours is Gymnasium's 4.
    """

    name: ClassVar[str] = "walker_params"


@dataclass(frozen=True)
class HopperParams(RandomParams, _ForwardReward, Hopper):
    """Hop forward with other masses, inertias, frictions and dampings: Hopper's reward.

    The numbers of a task are exponents, as those of walker_params.
    """

    name: ClassVar[str] = "hopper_params"
