"""Task families on `mujoco.batch`: N simulations of one MuJoCo model in C++ threads."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np
from gymnasium.spaces import Box
from mujoco.batch import Batch, SimulationError

from metarl.envs.base import BatchEnv, StepResult, TaskFamily
from metarl.envs.control import action_of_zero
from metarl.envs.errors import SimulationDiverged
from metarl.envs.mujoco.markers import Marker
from metarl.envs.mujoco.models import load_model, quiet
from metarl.envs.mujoco.rendering import MujocoRenderer

# MuJoCo calls a simulation unstable, and resets it, when a position, velocity or acceleration
# passes mjMAXVAL; so it bounds every observation.
MAX_VALUE = float(mujoco.mjMAXVAL)
MAX_FRAME_SKIP = 1000  # physics steps per control step
UNSTABLE = [
    mujoco.mjtWarning.mjWARN_BADQPOS.value,
    mujoco.mjtWarning.mjWARN_BADQVEL.value,
    mujoco.mjtWarning.mjWARN_BADQACC.value,
]
UNSTABLE_REASON = "MuJoCo found a position, velocity or acceleration that is NaN or huge"


def squared_norm(vectors: np.ndarray) -> np.ndarray:
    """Return the sum of squares of each row of (N, n), (N,)."""
    return np.square(vectors).sum(axis=1)


@dataclass(frozen=True)
class MujocoFamily(TaskFamily):
    """A family on a MuJoCo model. Subclasses define the task, vectorised over N simulations."""

    horizon: int = 200
    """Length of an episode in control steps."""
    action_scale: float = 10.0
    """The policy action that drives an actuator to its limit. With 10 the initial policy, of
    standard deviation 1, uses a tenth of the range; this decides whether anything is learned."""
    frame_skip: int = 0
    """Physics steps per control step; 0 for as many as Gymnasium's environment takes."""

    model_file: ClassVar[str]
    """The model: a file among Gymnasium's MuJoCo assets, or the absolute path of another."""
    default_frame_skip: ClassVar[int] = 5
    """Physics steps per control step of Gymnasium's environment."""
    reset_noise: ClassVar[float]
    """Noise on the model's initial state: positions, and by default velocities, are uniform within
    this range; normal velocities have this standard deviation."""
    normal_velocities: ClassVar[bool] = False
    """Whether initial velocities are normal."""
    camera_elevation: ClassVar[float] = -12.0
    """Elevation of the camera, degrees; negative looks down from above."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.action_scale > 0:
            raise ValueError(f"action_scale: expected more than 0, got {self.action_scale}")
        if not 0 <= self.frame_skip <= MAX_FRAME_SKIP:
            raise ValueError(f"frame_skip: expected 0 to {MAX_FRAME_SKIP}, got {self.frame_skip}")
        _ = self.model  # an error of the model is one of the config

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled model, shared."""
        return load_model(self.model_file)

    @property
    def stage(self) -> int:
        """The stages of MuJoCo's forward dynamics that are computed at the new state after a step.

        By default none: then all quantities that MuJoCo derives from positions and velocities
        describe the state before the last physics step (or, with a Runge-Kutta integrator, within
        it), as in Gymnasium's environments. The stage must cover every quantity that `observe` and
        `reward` read.
        """
        return mujoco.mjtStage.mjSTAGE_NONE.value

    def apply_task(self, batch: Batch, tasks: np.ndarray) -> None:
        """Set the model of each simulation according to its task, (N, task_dim); by default the
        models stay as they are."""

    def task_model(self, task: np.ndarray) -> mujoco.MjModel:
        """Return the model under a task, (task_dim,): by default the model of all tasks."""
        return self.model

    @property
    def physics_steps(self) -> int:
        """How many physics steps a control step takes."""
        return self.frame_skip or self.default_frame_skip

    @property
    def dt(self) -> float:
        """Seconds of simulated time per control step."""
        return self.model.opt.timestep * self.physics_steps

    @property
    def frames_per_second(self) -> float:
        return 1 / self.dt

    @property
    @abstractmethod
    def obs_dim(self) -> int:
        """How many numbers `observe` returns."""

    @property
    def observation_space(self) -> Box:
        return Box(-MAX_VALUE, MAX_VALUE, (self.obs_dim,), np.float64)

    @property
    def action_space(self) -> Box:
        return Box(-self.action_scale, self.action_scale, (self.model.nu,), np.float32)

    def control(self, action: np.ndarray) -> np.ndarray:
        """Map policy actions, (N, action_dim), onto the actuators' range, float64."""
        low, high = self.model.actuator_ctrlrange.T
        share = np.clip(np.asarray(action, np.float64) / self.action_scale, -1.0, 1.0)
        return (high + low) / 2 + share * ((high - low) / 2)

    @property
    def zero_action(self) -> np.ndarray:
        return action_of_zero(self.action_space, self.control)

    def initial_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw the initial qpos (nq,) and qvel (nv,) of one episode."""
        model, noise = self.model, self.reset_noise
        qpos = model.qpos0 + rng.uniform(-noise, noise, model.nq)
        if self.normal_velocities:
            return qpos, noise * rng.standard_normal(model.nv)
        return qpos, rng.uniform(-noise, noise, model.nv)

    @abstractmethod
    def observe(self, batch: Batch) -> np.ndarray:
        """Return the observations, (N, obs_dim), a fresh array."""

    @abstractmethod
    def position(self, batch: Batch) -> np.ndarray:
        """Return a copy of the position, (N, ...), whose change over a step `reward` receives."""

    @abstractmethod
    def reward(
        self, batch: Batch, tasks: np.ndarray, velocity: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        """Return the rewards, (N,).

        Args:
            batch: the simulations after the step.
            tasks: (N, task_dim).
            velocity: the change of `position` over the control step per second, (N, ...).
            control: actuator commands, (N, action_dim).
        """

    def terminated(self, batch: Batch, tasks: np.ndarray) -> np.ndarray:
        """Return which episodes have reached a terminal state, (N,) bool. By default none."""
        return np.zeros(len(tasks), bool)

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> MujocoBatchEnv:
        return MujocoBatchEnv(self, num_episodes, num_threads)

    def floor_position(self, state: np.ndarray) -> tuple[float, float]:
        """Return x and y, m, of the robot in a state, (nq + nv,); y is 0 if it moves along x."""
        free = self.model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
        return float(state[0]), float(state[1]) if free else 0.0

    def goal_markers(
        self, start: np.ndarray, state: np.ndarray, seconds: float, task: np.ndarray
    ) -> list[Marker]:
        """Return the markers that show the goal in an image; by default none.

        Args:
            start: the first state of the episode, (nq + nv,).
            state: the current state, (nq + nv,).
            seconds: simulated time since the first state.
            task: (task_dim,).
        """
        return []

    def goal_place(self, task: np.ndarray) -> tuple[float, float] | None:
        """Return x and y, m, of a goal that the image has to show; by default there is none."""
        return None

    def make_renderer(self, width: int, height: int) -> MujocoRenderer:
        return MujocoRenderer(self, width, height)


class MujocoBatchEnv(BatchEnv):
    """N simulations of a family's model, bit-identical at any number of threads."""

    family: MujocoFamily

    def __init__(self, family: MujocoFamily, num_episodes: int, num_threads: int = 1) -> None:
        super().__init__(family, num_episodes, num_threads)
        self.batch = Batch(family.model, num_episodes, num_threads)
        self._ctrl = self.batch.bind("ctrl")
        self._register_outputs()

    def _register_outputs(self) -> None:
        """Read every simulation output that the family uses, once.

        `Batch` copies a derived quantity out of the simulations only after it has been bound; the
        first reset would otherwise observe zeros.
        """
        tasks = np.repeat(self.family.tasks("train", 1), self.num_episodes, axis=0)
        velocity = self.family.position(self.batch)
        self.family.observe(self.batch)
        self.family.reward(self.batch, tasks, velocity, self._ctrl)
        self.family.terminated(self.batch, tasks)

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        self.tasks = np.asarray(tasks, np.float64)
        self.family.apply_task(self.batch, self.tasks)
        # Stages are computed once, after the states are written.
        self.batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        states = [self.family.initial_state(rng) for rng in rngs]
        self.batch.bind("qpos")[:] = [qpos for qpos, _ in states]
        self.batch.bind("qvel")[:] = [qvel for _, qvel in states]
        try:
            with quiet():
                self.batch.forward()
        except SimulationError as error:
            raise SimulationDiverged(error.ids, str(error)) from error
        return self.family.observe(self.batch)

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        if (diverged := self._advance(action, ids)) is not None:
            raise diverged

    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        before = self.family.position(self.batch)
        diverged = self._advance(action, ids)
        if diverged is None:
            return self._result(before)
        with np.errstate(all="ignore"):  # in the rows of diverged episodes
            diverged.result = self._result(before)
        raise diverged

    def _result(self, before: np.ndarray) -> StepResult:
        """Return the results of a step that began at the positions `before`, (N, ...)."""
        family, batch = self.family, self.batch
        velocity = (family.position(batch) - before) / family.dt
        reward = family.reward(batch, self.tasks, velocity, self._ctrl)
        return family.observe(batch), reward, family.terminated(batch, self.tasks)

    def _advance(self, action: np.ndarray, ids: np.ndarray | None) -> SimulationDiverged | None:
        """Step the physics; return the error to raise if some episodes diverged."""
        self._ctrl[:] = self.family.control(action)
        failed, reason = np.zeros(0, int), UNSTABLE_REASON
        start = time.perf_counter()
        try:
            with quiet():
                self.batch.step(ids, nstep=self.family.physics_steps, stage=self.family.stage)
        except SimulationError as error:
            failed, reason = error.ids, str(error)
        self.physics_seconds += time.perf_counter() - start
        # (N, kinds of warning, (last info, count)) -> (N,)
        unstable = self.batch.warning[:, UNSTABLE, 1].any(axis=1)
        if not (failed.size or unstable.any()):
            return None
        # MuJoCo counts until the next reset, also for episodes that are no longer stepped.
        diverged = unstable if ids is None else unstable & np.isin(np.arange(len(unstable)), ids)
        diverged[failed] = True
        return SimulationDiverged(np.flatnonzero(diverged), reason) if diverged.any() else None

    def set_state(self, episode: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Set the positions, (nq,), and velocities, (nv,), of one episode."""
        self.batch.bind("qpos")[episode] = qpos
        self.batch.bind("qvel")[episode] = qvel
        with quiet():
            self.batch.forward(np.array([episode]))

    def render_state(self, episode: int) -> np.ndarray:
        return np.concatenate([self.batch.bind("qpos")[episode], self.batch.bind("qvel")[episode]])
