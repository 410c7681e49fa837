"""A task family whose episodes fail: where a test says, or by chance and the episode's stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from metarl.envs import PointNav
from metarl.envs.point import PointBatchEnv

Fault = Literal[
    "reward", "large reward", "huge reward", "observation", "first observation", "state"
]


@dataclass(frozen=True)
class FaultyNav(PointNav):
    """PointNav in which some episodes fail."""

    fault: Fault = "reward"
    """What is not finite: a reward (NaN, or beyond 32 bits), an observation, the physics' state. Or
    an episode's rewards, all of 3e38, are finite, but their sum is not in 32 bits."""
    share: float = 0.0
    """How likely an episode fails."""

    name: ClassVar[str] = "faulty_nav"

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> FaultyBatch:
        return FaultyBatch(self, num_episodes, num_threads)


class FaultyBatch(PointBatchEnv):
    """Points of which some fail, each at one step.

    Attributes:
        planned: episode to step, of those that fail in the next episodes, besides chance.
    """

    family: FaultyNav
    planned: Mapping[int, int] = {}

    def reset(self, tasks, rngs):
        obs = super().reset(tasks, rngs)
        # (N, 2), drawn whether needed or not: without faults the episodes are the same
        luck = np.stack([rng.random(2) for rng in rngs])
        fails, step = luck[:, 0] < self.family.share, (luck[:, 1] * self.family.horizon).astype(int)
        self.fails_at = np.where(fails, step, -1)
        for episode, at in self.planned.items():
            self.fails_at[episode] = at
        self.steps_taken = np.zeros(self.num_episodes, int)
        if self.family.fault == "first observation":
            obs[self.fails_at >= 0] = np.inf
        return obs

    def step(self, action, ids=None):
        stepped = np.zeros(self.num_episodes, bool)
        stepped[slice(None) if ids is None else ids] = True
        over = (self.fails_at >= 0) & (self.steps_taken > self.fails_at)
        again = (stepped & over).any() and self.family.fault != "large reward"
        assert not again, "an episode that failed was stepped again"
        now = stepped & (self.steps_taken == self.fails_at)
        self.steps_taken += stepped
        if self.family.fault == "state":
            self.position[now] = np.nan
        obs, reward, terminated = super().step(action, ids)
        if self.family.fault == "large reward":
            reward[self.fails_at >= 0] = 3e38
        elif self.family.fault == "reward":
            reward[now] = np.nan
        elif self.family.fault == "huge reward":
            reward[now] = -1e39
        elif self.family.fault == "observation":
            obs[now, 1] = np.inf
        return obs, reward, terminated
