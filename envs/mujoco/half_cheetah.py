"""HalfCheetah task families, on the physics and the observation of Gymnasium's HalfCheetah-v5."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

import mujoco
import numpy as np
from gymnasium.spaces import Box
from mujoco.batch import Batch

from metarl.envs.mujoco.dynamics import power
from metarl.envs.mujoco.family import MujocoFamily, squared_norm
from metarl.envs.mujoco.goals import DirectionGoal, VelocityGoal
from metarl.envs.mujoco.models import compile_model, load_model, load_spec

CONTROL_COST = 0.05  # per squared actuator command


@dataclass(frozen=True)
class HalfCheetah(MujocoFamily):
    """Base of the HalfCheetah families: a planar robot rewarded for its velocity along x.

    Gymnasium takes 5 physics steps, of 0.01 s, per control step, so that 200 take 10 s. MAML's
    code, on rllab, has `frame_skip: 1`: they take 2 s there, with a much finer control.
    """

    observe_torso: bool = False
    """Whether the robot's centre of mass, (x, y, z) in m, is observed too, as in MAML's 20
    numbers. Without it the observation is Gymnasium's 17."""
    velocity_of: Literal["torso", "centre_of_mass"] = "torso"
    """Whose velocity is rewarded: the torso's as in Gymnasium, or, as in MAML's code, that of the
    whole robot, which swings less."""

    model_file: ClassVar[str] = "half_cheetah.xml"
    reset_noise: ClassVar[float] = 0.1
    normal_velocities: ClassVar[bool] = True

    @property
    def obs_dim(self) -> int:
        return 20 if self.observe_torso else 17

    @property
    def stage(self) -> int:
        # MuJoCo derives the centre of mass from the positions.
        stages = mujoco.mjtStage
        needed = self.observe_torso or self.velocity_of == "centre_of_mass"
        return (stages.mjSTAGE_POS if needed else stages.mjSTAGE_NONE).value

    def observe(self, batch: Batch) -> np.ndarray:
        # Without the x position: no reward depends on it.
        parts = [batch.bind("qpos")[:, 1:], batch.bind("qvel")]
        if self.observe_torso:
            parts.append(batch.bind("subtree_com")[:, 1])
        return np.concatenate(parts, axis=1)

    def position(self, batch: Batch) -> np.ndarray:
        if self.velocity_of == "centre_of_mass":
            return batch.bind("subtree_com")[:, 1, 0].copy()
        return batch.bind("qpos")[:, 0].copy()


@dataclass(frozen=True)
class HalfCheetahVel(VelocityGoal, HalfCheetah):
    """Run forward at a goal velocity: reward -|velocity - goal| - 0.05 |control|^2.

    Goals are uniform in [0, 2] m/s as in MAML; ProMP, PEARL and VariBAD have `goal_high: 3`, and
    pytorch-maml-rl `horizon: 100`.
    """

    name: ClassVar[str] = "half_cheetah_vel"
    source: ClassVar[str] = "Finn et al. 2017 (MAML)"

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        return -np.abs(velocity - tasks[:, 0]) - CONTROL_COST * squared_norm(control)


@dataclass(frozen=True)
class HalfCheetahDir(DirectionGoal, HalfCheetah):
    """Run forward (+1) or backward (-1): reward direction * velocity - 0.05 |control|^2.

    MAML, PEARL and VariBAD have episodes of 200 steps; pytorch-maml-rl, ProMP, garage and
    learn2learn `horizon: 100`.
    """

    name: ClassVar[str] = "half_cheetah_dir"
    source: ClassVar[str] = "Finn et al. 2017 (MAML)"

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        return tasks[:, 0] * velocity - CONTROL_COST * squared_norm(control)


@dataclass(frozen=True)
class HalfCheetahBody(HalfCheetah):
    """Run forward in another body: reward velocity - 0.05 |control|^2.

    A task is three factors, each log-uniform in [1/2, 2]: on the mass of every part (inertia goes
    along), on the damping of every joint, and on the length of the head. The robot weighs 14 kg
    times the first factor, so a longer head, which is heavier, makes all other parts lighter. Out
    of distribution are bodies with a factor beyond, in [1/3, 3].
    """

    name: ClassVar[str] = "half_cheetah_body"
    source: ClassVar[str] = "Greenberg et al. 2023 (RoML)"
    dynamics_tasks: ClassVar[bool] = True

    @property
    def task_space(self) -> Box:
        return Box(1 / 2, 2.0, (3,), np.float64)

    @property
    def ood_space(self) -> Box:
        return Box(1 / 3, 3.0, (3,), np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return power(2.0, rng.uniform(-1.0, 1.0, (num_tasks, 3)))

    @property
    def num_coordinates(self) -> int:
        return 3

    def tasks_at(self, coordinates: np.ndarray) -> np.ndarray:
        return power(2.0, 2 * coordinates - 1)

    def apply_task(self, batch: Batch, tasks: np.ndarray) -> None:
        rows, index = np.unique(tasks, axis=0, return_inverse=True)
        models = [self.task_model(row) for row in rows]
        batch.set_models([models[i] for i in index.ravel()])

    def task_model(self, task: np.ndarray) -> mujoco.MjModel:
        return body_model(self.model_file, *task.tolist())

    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        return velocity - CONTROL_COST * squared_norm(control)

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        mass, damping, length = task
        return f"mass x{mass:.1f}, damping x{damping:.1f}, head x{length:.1f}"


@functools.lru_cache(maxsize=64)  # each task is played again after adaptation
def body_model(file: str, mass: float, damping: float, length: float) -> mujoco.MjModel:
    """Compile the HalfCheetah with its masses, damping and head's length times these factors."""
    axis = np.zeros(3)  # of the head's capsule, from the neck to the tip
    mujoco.mju_rotVecQuat(axis, np.array([0.0, 0.0, 1.0]), load_model(file).geom("head").quat)
    spec = load_spec(file)
    head = spec.geom("head")
    head.pos += (length - 1) * head.size[1] * axis  # the neck stays in its place
    head.size[1] *= length
    model = compile_model(spec)
    model.body_mass[:] *= mass
    model.body_inertia[:] *= mass
    model.dof_damping[:] *= damping
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model
