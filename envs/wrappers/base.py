"""Base classes of families that wrap another family, and of their batch environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import BatchEnv, StepResult, TaskFamily
from metarl.envs.errors import SimulationDiverged
from metarl.envs.rendering import Renderer


@dataclass(frozen=True)
class FamilyWrapper(TaskFamily):
    """A family that wraps another one and has the same tasks, task sets and task hashes, so that
    results on both can be compared task by task."""

    horizon: int = field(init=False)
    """Length of an episode in control steps, that of the wrapped family."""
    family: TaskFamily
    """The wrapped family."""

    def __post_init__(self) -> None:
        for name in (
            "horizon",
            "name",
            "source",
            "finite_horizon",
            "visible_task",
            "dynamics_tasks",
            "no_ood_reason",
        ):
            # The dataclass is frozen; these shadow the class variables.
            object.__setattr__(self, name, getattr(self.family, name))
        super().__post_init__()

    @property
    def observation_space(self) -> Box:
        return self.family.observation_space

    @property
    def action_space(self) -> Box | Discrete:
        return self.family.action_space

    @property
    def task_space(self) -> Box:
        return self.family.task_space

    @property
    def ood_space(self) -> Box:
        return self.family.ood_space

    @property
    def all_tasks(self) -> np.ndarray | None:
        return self.family.all_tasks

    @property
    def zero_action(self) -> np.ndarray:
        return self.family.zero_action

    @property
    def frames_per_second(self) -> float:
        return self.family.frames_per_second

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return self.family.sample_tasks(rng, num_tasks)

    def sample_sequences(
        self, rng: np.random.Generator, num_sequences: int, length: int
    ) -> np.ndarray:
        return self.family.sample_sequences(rng, num_sequences, length)

    @property
    def num_coordinates(self) -> int:
        return self.family.num_coordinates

    def tasks_at(self, coordinates: np.ndarray) -> np.ndarray:
        return self.family.tasks_at(coordinates)

    def in_distribution(self, task: np.ndarray) -> bool:
        return self.family.in_distribution(task)

    def sample_ood_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return self.family.sample_ood_tasks(rng, num_tasks)

    def tasks(self, split: str, num_tasks: int) -> np.ndarray:
        return self.family.tasks(split, num_tasks)

    def task_hash(self, tasks: np.ndarray) -> str:
        return self.family.task_hash(tasks)

    def check_task(self, task: Sequence[float] | np.ndarray) -> np.ndarray:
        return self.family.check_task(task)

    def check_repeatable(self) -> None:
        self.family.check_repeatable()

    def make_renderer(self, width: int, height: int) -> Renderer:
        return self.family.make_renderer(width, height)

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        return self.family.caption(state, task)


class WrappedBatchEnv(BatchEnv):
    """N episodes of a wrapper's family, played through `batch_env`."""

    family: FamilyWrapper

    def __init__(self, family: FamilyWrapper, num_episodes: int, num_threads: int = 1) -> None:
        self.batch_env = family.family.make_batch(num_episodes, num_threads)
        super().__init__(family, num_episodes, num_threads)

    @property
    def physics_seconds(self) -> float:
        return self.batch_env.physics_seconds

    @physics_seconds.setter
    def physics_seconds(self, seconds: float) -> None:
        self.batch_env.physics_seconds = seconds

    @property
    def success(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.batch_env.success

    @property
    def truncated(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.batch_env.truncated

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        return self.transform_obs(self.batch_env.reset(tasks, rngs))

    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        try:
            result = self.batch_env.step(action, ids)
        except SimulationDiverged as error:
            if (result := error.result) is not None:
                error.result = self.transform_obs(result[0]), *result[1:]
            raise
        return self.transform_obs(result[0]), *result[1:]

    def transform_obs(self, obs: np.ndarray) -> np.ndarray:
        """Return the wrapper's observations, (N, ...), given those of the family, (N, obs_dim).

        By default they are the same. Called at the end of every reset and step.
        """
        return obs

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        self.batch_env.advance(action, ids)

    def render_state(self, episode: int) -> np.ndarray:
        return self.batch_env.render_state(episode)

    def close(self) -> None:
        self.batch_env.close()
