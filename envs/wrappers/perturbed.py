"""Families with sensor noise, delayed actions or weaker motors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import StepResult
from metarl.envs.fields import unmet
from metarl.envs.wrappers.base import FamilyWrapper, WrappedBatchEnv

PERTURBATIONS = ("observation_noise", "action_delay", "motor_strength")
"""The fields of `Perturbed` that perturb."""


@dataclass(frozen=True)
class Perturbed(FamilyWrapper):
    """A family with noisy observations, delayed actions or weaker motors.

    The value of each field is a number, or a range (low, high), both included, from which each
    episode draws its own, uniformly.
    """

    observation_noise: float | tuple[float, float] = 0.0
    """Standard deviation of normal noise on every number observed, in its own unit."""
    action_delay: int | tuple[int, int] = 0
    """How many control steps later an action takes effect; until the first one does, the action is
    zero in the environment's own units (of a Discrete space the first), or the nearest to it in its
    range."""
    motor_strength: float | tuple[float, float] = 1.0
    """Factor on actions in the environment's own units, once they are clipped to the action space:
    the motors' share of the force they had in training. For Box actions only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in PERTURBATIONS:
            low, high = self._checked(name)
            if not low >= 0:
                raise ValueError(f"{name}: expected at least 0, got {low}")
            if not low <= high:
                raise ValueError(f"{name}: expected low <= high, got ({low}, {high})")
        if self.limits("motor_strength") != (1, 1) and isinstance(self.action_space, Discrete):
            raise ValueError(
                f"motor_strength: the actions of {self.name} are choices, which have no strength"
            )

    def _checked(self, name: str) -> tuple[float, float]:
        """Return the range of a field, of numbers of its kind.

        Raises:
            ValueError: if it is something else.
        """
        kind = int if name == "action_delay" else float
        value = getattr(self, name)
        ends = value if isinstance(value, tuple | list) else (value, value)
        if len(ends) != 2 or any(unmet(each, end) for each in (kind, float) for end in ends):
            what = unmet(kind, None)
            raise ValueError(f"{name}: expected {what}, or a range (low, high), got {value!r}")
        if isinstance(value, list):
            object.__setattr__(self, name, (*value,))  # the dataclass is frozen
        return self.limits(name)

    def limits(self, name: str) -> tuple[float, float]:
        """Return the range of a field, which is its only value twice if that is a number."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value, value)

    @property
    def is_noisy(self) -> bool:
        """Whether observations have noise in any episode."""
        return self.limits("observation_noise")[1] > 0

    @property
    def observation_space(self) -> Box:
        space = self.family.observation_space
        return Box(-np.inf, np.inf, space.shape, np.float64) if self.is_noisy else space

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> PerturbedBatchEnv:
        return PerturbedBatchEnv(self, num_episodes, num_threads)


def own_generator(rng: np.random.Generator) -> np.random.Generator:
    """Return a generator that is determined by the state of another one, and leaves that as it is:
    so episodes have the same action noise with and without perturbations."""
    return np.random.default_rng(copy.deepcopy(rng).bit_generator.random_raw(4))


class PerturbedBatchEnv(WrappedBatchEnv):
    """N episodes of the wrapped family, perturbed."""

    family: Perturbed

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        family, count = self.family, self.num_episodes
        obs = self.batch_env.reset(tasks, rngs)
        rngs = [own_generator(rng) for rng in rngs]
        self._steps = np.zeros(count, np.int64)  # taken by each episode
        # Of each episode, (N,)
        self._noise_std = self._drawn("observation_noise", rngs).astype(np.float32)
        self._delay = self._drawn("action_delay", rngs).astype(np.int64)
        self._strength = self._drawn("motor_strength", rngs)
        self._zero = family.zero_action
        # Ring buffer of delayed actions of each episode, (N, largest delay, action_dim).
        self._delayed = np.tile(self._zero, (count, int(family.limits("action_delay")[1]), 1))
        shape = (family.horizon + 1, obs.shape[1])
        # (N, T + 1, obs_dim)
        self._noise = (
            np.stack([rng.standard_normal(shape, np.float32) for rng in rngs])
            if family.is_noisy
            else None
        )
        return self.transform_obs(obs)

    def _drawn(self, name: str, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Return the value of a field in each episode, (N,) float64. A range of one value, as that
        of a number, draws nothing."""
        low, high = self.family.limits(name)
        if low == high:
            return np.full(self.num_episodes, float(low))
        if name == "action_delay":
            limits = int(low), int(high)
            return np.array([float(rng.integers(*limits, endpoint=True)) for rng in rngs])
        return np.array([rng.uniform(low, high) for rng in rngs])

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
        late = rows[self._delay[rows] > 0]
        if late.size:
            place = self._steps[late] % self._delay[late]
            due = self._delayed[late, place]
            self._delayed[late, place] = effective[late]
            effective[late] = due
        self._steps[rows] += 1
        if self.family.limits("motor_strength") != (1, 1):
            space = self.family.action_space
            assert isinstance(space, Box)
            strength = self._strength[:, None]
            effective = strength * np.clip(effective, space.low, space.high)
            effective += (1 - strength) * self._zero
        return effective

    def transform_obs(self, obs: np.ndarray) -> np.ndarray:
        if self._noise is None:
            return obs
        # Steps beyond the horizon reuse the last noise.
        steps = np.minimum(self._steps, self.family.horizon)
        noise = self._noise[np.arange(self.num_episodes), steps]
        return obs + self._noise_std[:, None] * noise
