"""The Humanoid task family, on the physics and the observation of Gymnasium's Humanoid-v5."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np
from mujoco.batch import Batch

from metarl.envs.mujoco.family import load_model
from metarl.envs.mujoco.goals import DirectionGoal

# PEARL has 0.25 times the way of the centre of mass per physics step's time, and 5 of them make a
# control step.
FORWARD_REWARD = 1.25
CONTROL_COST = 0.1
CONTACT_COST, HIGHEST_CONTACT_COST = 5e-7, 10.0
ALIVE_BONUS = 5.0
LOWEST, HIGHEST = 1.0, 2.0  # height of the torso, m


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
        # Not the position, which no reward depends on, nor the world and the root's free joint.
        bodies = [batch.bind(name)[:, 1:] for name in ("cinert", "cvel", "cfrc_ext")]
        cinert, cvel, cfrc_ext = (each.reshape(len(each), -1) for each in bodies)
        qpos, force = batch.bind("qpos")[:, 2:], batch.bind("qfrc_actuator")[:, 6:]
        return np.concatenate([qpos, batch.bind("qvel"), cinert, cvel, force, cfrc_ext], axis=1)

    def position(self, batch: Batch) -> np.ndarray:
        # The centre of mass of all that is attached to the world, which itself has no mass.
        return batch.bind("subtree_com")[:, 0, :2].copy()

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        forces = np.square(batch.bind("cfrc_ext")).sum(axis=(1, 2))
        return (
            FORWARD_REWARD * self.speed_along(tasks, velocity)
            - CONTROL_COST * np.square(control).sum(axis=1)
            - np.minimum(CONTACT_COST * forces, HIGHEST_CONTACT_COST)
            + ALIVE_BONUS
        )

    def terminated(self, batch: Batch, tasks: np.ndarray) -> np.ndarray:
        """where the torso's height leaves the range from 1 to 2 m"""
        height = batch.bind("qpos")[:, 2]
        return (height < LOWEST) | (height > HIGHEST)
