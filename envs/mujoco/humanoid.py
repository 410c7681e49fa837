"""The Humanoid task family, on the physics and the observation of Gymnasium's Humanoid-v5."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np
from mujoco.batch import Batch

from metarl.envs.mujoco.family import squared_norm
from metarl.envs.mujoco.goals import DirectionGoal
from metarl.envs.mujoco.models import load_model

# PEARL rewards 0.25 * displacement of the centre of mass / time of one physics step; a control step
# has 5 physics steps.
FORWARD_REWARD = 1.25
CONTROL_COST = 0.1
CONTACT_COST, MAX_CONTACT_COST = 5e-7, 10.0
ALIVE_BONUS = 5.0
MIN_HEIGHT, MAX_HEIGHT = 1.0, 2.0  # of the torso, m


@dataclass(frozen=True)
class HumanoidDir(DirectionGoal):
    """Run along a heading: reward 1.25 * speed of the centre of mass along it - 0.1 |control|^2 -
    min(5e-7 |contact forces|^2, 10) + 5.

    Inertias, velocities and forces of the bodies, all but the last of which Gymnasium's Humanoid-v5
    reports as they were within MuJoCo's last Runge-Kutta step, are those at the new state.
    """

    name: ClassVar[str] = "humanoid_dir"
    source: ClassVar[str] = "Rakelly et al. 2019 (PEARL)"
    plane: ClassVar[bool] = True
    model_file: ClassVar[str] = "humanoid.xml"
    reset_noise: ClassVar[float] = 0.01
    obs_dim: ClassVar[int] = 348
    camera_elevation: ClassVar[float] = -20.0

    @property
    def model(self) -> mujoco.MjModel:
        return load_model(self.model_file, contact_forces=True)

    @property
    def stage(self) -> int:
        return mujoco.mjtStage.mjSTAGE_ACC.value

    def observe(self, batch: Batch) -> np.ndarray:
        # Without x and y, the world's body and the root's free joint: no reward depends on them.
        bodies = [batch.bind(name)[:, 1:] for name in ("cinert", "cvel", "cfrc_ext")]
        cinert, cvel, cfrc_ext = (each.reshape(len(each), -1) for each in bodies)
        qpos, force = batch.bind("qpos")[:, 2:], batch.bind("qfrc_actuator")[:, 6:]
        return np.concatenate([qpos, batch.bind("qvel"), cinert, cvel, force, cfrc_ext], axis=1)

    def position(self, batch: Batch) -> np.ndarray:
        # Body 0 is the world, which has no mass: its subtree's centre of mass is the robot's.
        return batch.bind("subtree_com")[:, 0, :2].copy()

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        forces = np.square(batch.bind("cfrc_ext")).sum(axis=(1, 2))
        return (
            FORWARD_REWARD * self.speed_along(tasks, velocity)
            - CONTROL_COST * squared_norm(control)
            - np.minimum(CONTACT_COST * forces, MAX_CONTACT_COST)
            + ALIVE_BONUS
        )

    def terminated(self, batch: Batch, tasks: np.ndarray) -> np.ndarray:
        """where the torso's height leaves the range from 1 to 2 m"""
        height = batch.bind("qpos")[:, 2]
        return (height < MIN_HEIGHT) | (height > MAX_HEIGHT)
