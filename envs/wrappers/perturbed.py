"""Families with sensor noise, delayed actions or weaker motors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import StepResult
from metarl.envs.wrappers.base import FamilyWrapper, WrappedBatchEnv


@dataclass(frozen=True)
class Perturbed(FamilyWrapper):
    """A family with noisy observations, delayed actions or weaker motors."""

    observation_noise: float = 0.0
    """Standard deviation of normal noise on every number observed, in its own unit."""
    action_delay: int = 0
    """How many control steps later an action takes effect; until the first one does, the action is
    zero (of a Discrete space the first)."""
    motor_strength: float = 1.0
    """Factor on actions, once they are clipped to the action space: the motors' share of the force
    they had in training. For Box actions only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("observation_noise", "action_delay", "motor_strength"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if self.motor_strength != 1 and isinstance(self.action_space, Discrete):
            raise ValueError(
                f"motor_strength: the actions of {self.name} are choices, which have no strength"
            )

    @property
    def observation_space(self) -> Box:
        space = self.family.observation_space
        return Box(-np.inf, np.inf, space.shape, np.float64) if self.observation_noise else space

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> PerturbedBatchEnv:
        return PerturbedBatchEnv(self, num_episodes, num_threads)


class PerturbedBatchEnv(WrappedBatchEnv):
    """N episodes of the wrapped family, perturbed."""

    family: Perturbed

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        family, count = self.family, self.num_episodes
        obs = self.batch_env.reset(tasks, rngs)
        self._steps = np.zeros(count, np.int64)  # taken by each episode
        # Ring buffer of delayed actions of each episode, (N, delay, action_dim).
        self._delayed = np.zeros((count, family.action_delay, family.action_dim))
        shape = (family.horizon + 1, obs.shape[1])
        # (N, T + 1, obs_dim)
        self._noise = (
            np.stack([rng.standard_normal(shape, np.float32) for rng in rngs])
            if family.observation_noise
            else None
        )
        return self.transform_obs(obs)

    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        return super().step(self._effective(action, ids), ids)

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        super().advance(self._effective(action, ids), ids)

    def _effective(self, action: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Queue the given actions and return those that take effect now, (N, action_dim)."""
        rows = np.arange(self.num_episodes) if ids is None else np.asarray(ids)
        if isinstance(self.family.action_space, Discrete):
            self.action_indices(action, ids)  # refuse a wrong index now, not when it takes effect
        effective = np.array(action, np.float64)
        if delay := self.family.action_delay:
            place = self._steps[rows] % delay
            due = self._delayed[rows, place]
            self._delayed[rows, place] = effective[rows]
            effective[rows] = due
        self._steps[rows] += 1
        if self.family.motor_strength != 1:
            space = self.family.action_space
            assert isinstance(space, Box)
            effective = self.family.motor_strength * np.clip(effective, space.low, space.high)
        return effective

    def transform_obs(self, obs: np.ndarray) -> np.ndarray:
        if self._noise is None:
            return obs
        # Steps beyond the horizon reuse the last noise.
        steps = np.minimum(self._steps, self.family.horizon)
        noise = self._noise[np.arange(self.num_episodes), steps]
        return obs + self.family.observation_noise * noise
