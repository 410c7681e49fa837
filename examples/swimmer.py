"""A MuJoCo family of your own: Gymnasium's swimmer, at a goal velocity.

metarl check-env examples.swimmer:SwimmerVel
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from metarl.envs.mujoco.goals import VelocityGoal


@dataclass(frozen=True)
class SwimmerVel(VelocityGoal):
    """Swim forward at a goal velocity: reward -|velocity - goal|."""

    goal_high: float = 0.2
    """The largest goal velocity, m/s."""
    name: ClassVar[str] = "swimmer_vel"
    source: ClassVar[str] = "an example"
    model_file: ClassVar[str] = "swimmer.xml"
    default_frame_skip: ClassVar[int] = 4
    reset_noise: ClassVar[float] = 0.1
    obs_dim: ClassVar[int] = 8

    def observe(self, batch):
        return np.concatenate([batch.bind("qpos")[:, 2:], batch.bind("qvel")], axis=1)

    def position(self, batch):
        return batch.bind("qpos")[:, 0].copy()

    def reward(self, batch, tasks, velocity, control):
        return -np.abs(velocity - tasks[:, 0])
