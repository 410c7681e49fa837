"""Families that need a memory, for the tests of memory agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs import BatchEnv, TaskFamily


@dataclass(frozen=True)
class Recall(TaskFamily):
    """The first observation is +-1, all others are 0; the last action should have its sign.

    The reward of the last step is 1 for the right action and 0 for the other. Without a memory half
    of the rewards is the best.
    """

    horizon: int = 4

    name: ClassVar[str] = "recall"
    source: ClassVar[str] = "tests"

    @property
    def observation_space(self) -> Box:
        return Box(-1.0, 1.0, (1,), np.float64)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    @property
    def task_space(self) -> Box:
        return Box(0.0, 1.0, (1,), np.float64)

    def sample_tasks(self, rng, num_tasks):
        return rng.uniform(0.0, 1.0, (num_tasks, 1))

    def make_batch(self, num_episodes, num_threads=1):
        return RecallBatchEnv(self, num_episodes, num_threads)

    def make_renderer(self, width, height):
        raise NotImplementedError

    def caption(self, state, task):
        return ""


class RecallBatchEnv(BatchEnv):
    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        self.sign = np.array([rng.choice([-1.0, 1.0]) for rng in rngs])
        self.steps = np.zeros(len(rngs), int)
        return self.sign[:, None].copy()

    def step(self, action, ids=None):
        index = self.action_indices(action, ids)
        rows = np.arange(self.num_episodes) if ids is None else ids
        self.steps[rows] += 1
        reward = np.zeros(self.num_episodes)
        last = self.steps[rows] == self.family.horizon
        reward[rows] = last * (2 * index - 1 == self.sign[rows])
        return np.zeros((self.num_episodes, 1)), reward, np.zeros(self.num_episodes, bool)

    def advance(self, action, ids=None):
        self.step(action, ids)

    def render_state(self, episode):
        return self.sign[episode : episode + 1].copy()


@dataclass(frozen=True)
class FaultyRecall(Recall):
    """Recall in which some rewards are not finite, or so large that their sums are not."""

    fault: Literal["nan", "large"] = "nan"
    share: float = 0.0
    """How likely an episode fails, at its second step."""

    name: ClassVar[str] = "faulty_recall"

    def make_batch(self, num_episodes, num_threads=1):
        return FaultyRecallBatchEnv(self, num_episodes, num_threads)


class FaultyRecallBatchEnv(RecallBatchEnv):
    family: FaultyRecall

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        obs = super().reset(tasks, rngs)
        self.fails = np.array([rng.random() for rng in rngs]) < self.family.share
        return obs

    def step(self, action, ids=None):
        obs, reward, terminated = super().step(action, ids)
        value = np.nan if self.family.fault == "nan" else 3e38
        reward[self.fails & (self.steps == 2)] = value
        return obs, reward, terminated
