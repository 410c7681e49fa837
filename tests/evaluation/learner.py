"""An agent without noise whose adaptation, and so its returns, are known by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from metarl.agents.maml.schedules import Schedule, step_scale
from metarl.envs import PointNav
from metarl.envs.point import PointBatchEnv
from metarl.rollout.episodes import Episodes

FAMILY = PointNav(horizon=6)


class Walker:
    """Acts without noise: goes where its state, (B, 2), tells it to, and stays there."""

    def __init__(self, targets: np.ndarray) -> None:
        self.targets = targets

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return np.zeros((horizon, 1), np.float32)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        return (10 * (self.targets[:, None] - obs)).astype(np.float32)


@dataclass(frozen=True)
class LearnerState:
    """Where the agent goes in each task, (B, 2), and how often it has adapted to it."""

    targets: np.ndarray
    num_adaptations: int = 0


class Learner:
    """An agent that goes a share of the way to the goal: 1 - 1 / (episodes seen + 1) of what is
    left, at each adaptation. It knows nothing at first, and stays at the start.

    Its steps have a schedule, like those of a gradient-based agent.
    """

    max_adaptations = None
    remembers = False

    def __init__(self, schedule: Schedule = "halving") -> None:
        self.schedule: Schedule = schedule

    def initial_state(self, num_tasks: int, *, training: bool = False) -> LearnerState:
        assert not training
        return LearnerState(np.zeros((num_tasks, 2)))

    def next_task(self, state: LearnerState) -> LearnerState:
        return LearnerState(state.targets)

    def actor(self, state: LearnerState, *, deterministic: bool = False) -> Walker:
        return Walker(state.targets)

    def adapt(self, state: LearnerState, episodes: Episodes) -> LearnerState:
        seen = episodes.reward.shape[1]
        share = step_scale(self.schedule, state.num_adaptations) * (1 - 1 / (seen + 1))
        targets = state.targets + share * (episodes.tasks - state.targets)
        return LearnerState(targets, state.num_adaptations + 1)


def expected_returns(targets: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Return of each task for moving from the start to the target, 0.1 per axis and step, (B,)."""
    position, total = np.zeros_like(targets), np.zeros(len(goals))
    done = np.zeros(len(goals), bool)
    for _ in range(FAMILY.horizon):
        position = position + np.clip(targets - position, -0.1, 0.1)
        total -= np.where(done, 0, np.linalg.norm(position - goals, axis=1))
        done |= (np.abs(position - goals) < 0.01).all(axis=1)
    return total


class FailsOnce(PointNav):
    """2D navigation whose first episode fails where a batch is played for the `fails`-th time."""

    fails: ClassVar[int] = 0

    def make_batch(self, num_episodes, num_threads=1):
        family, plays = self, 0

        class Batch(PointBatchEnv):
            def reset(self, tasks, rngs):
                nonlocal plays
                plays += 1
                return super().reset(tasks, rngs)

            def step(self, action, ids=None):
                obs, reward, terminated = super().step(action, ids)
                if plays == family.fails:
                    reward[0] = np.nan
                return obs, reward, terminated

        return Batch(self, num_episodes, num_threads)
