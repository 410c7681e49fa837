"""Families whose observations include the task, for oracle policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Box

from metarl.envs.wrappers.base import FamilyWrapper, WrappedBatchEnv


@dataclass(frozen=True)
class TaskObserved(FamilyWrapper):
    """A family whose observations are the wrapped family's with the task appended. Task sets and
    task hashes stay the same: an oracle and an adapting agent are compared on the same tasks."""

    def __post_init__(self) -> None:
        if isinstance(self.family, TaskObserved):
            raise ValueError("family: its tasks are observed already")
        super().__post_init__()

    @property
    def observation_space(self) -> Box:
        obs, task = self.family.observation_space, self.family.ood_space
        low, high = np.append(obs.low, task.low), np.append(obs.high, task.high)
        return Box(low, high, dtype=np.float64)

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> TaskObservedBatchEnv:
        return TaskObservedBatchEnv(self, num_episodes, num_threads)


class TaskObservedBatchEnv(WrappedBatchEnv):
    """N episodes of the wrapped family with the task appended to every observation."""

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        self.tasks = np.asarray(tasks, np.float64)
        return super().reset(tasks, rngs)

    def transform_obs(self, obs: np.ndarray) -> np.ndarray:
        return np.concatenate([obs, self.tasks], axis=1)
