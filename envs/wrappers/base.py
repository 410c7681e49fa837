"""A family around another one: what both wrappers and their batch environments pass on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import BatchEnv, SimulationDiverged, StepResult, TaskFamily
from metarl.envs.rendering import Scene


@dataclass(frozen=True)
class FamilyWrapper(TaskFamily):
    """A family around another, whose tasks, task sets and hashes it has: what is played through the
    one is compared with what is played through the other on the same tasks."""

    horizon: int = field(init=False)
    """Length of an episode in control steps, the family's."""
    family: TaskFamily
    """The family within."""

    def __post_init__(self) -> None:
        for name in (
            "horizon",
            "name",
            "source",
            "finite_horizon",
            "splits_are_disjoint",
            "visible_task",
            "no_ood_reason",
        ):
            # What is frozen is set this way; these shadow the class variables.
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
    def frames_per_second(self) -> float:
        return self.family.frames_per_second

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return self.family.sample_tasks(rng, num_tasks)

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

    def make_scene(self, width: int, height: int) -> Scene:
        return self.family.make_scene(width, height)

    def describe(self, state: np.ndarray, task: np.ndarray) -> str:
        return self.family.describe(state, task)


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

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        return self.observed(self.batch_env.reset(tasks, rngs))

    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        try:
            obs, reward, terminated = self.batch_env.step(action, ids)
        except SimulationDiverged as error:
            if error.result is not None:
                obs, reward, terminated = error.result
                error.result = self.observed(obs), reward, terminated
            raise
        return self.observed(obs), reward, terminated

    def observed(self, obs: np.ndarray) -> np.ndarray:
        """Return what the wrapper shows of the family's observations, (N, ...). By default these.

        Also called with the first ones, at the end of the reset.
        """
        return obs

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        self.batch_env.advance(action, ids)

    def drawn_state(self, episode: int) -> np.ndarray:
        return self.batch_env.drawn_state(episode)
