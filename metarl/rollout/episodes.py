"""Episodes: the container of all data that rollouts pass to the learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PER_TASK = ("tasks", "task_ids", "task_weight")  # arrays without an axis E


@dataclass(frozen=True)
class Episodes:
    """E episodes of each of B tasks, of at most T steps. All arrays are 0 after an episode's end.

    A failed episode is left out as a whole: all its steps are masked, and all its values are 0.

    Attributes:
        obs: (B, E, T, obs_dim) float32, the observation before each action.
        action: (B, E, T, action_dim) float32, the action of the policy before any clipping.
        reward: (B, E, T) float32.
        mask: (B, E, T) bool, whether the step took place.
        last_obs: (B, E, obs_dim) float32, the observation after the last step.
        terminated: (B, E) bool, whether the episode ended in a terminal state.
        bootstrap: (B, E) bool, whether the return is continued by the value of `last_obs`: the
            horizon cut an episode of an infinite-horizon task short, or the environment truncated
            the episode (`BatchEnv.truncated`).
        tasks: (B, task_dim) float64.
        task_ids: (B,) int64, ids of tasks from a finite set; None for tasks drawn from a
            distribution.
        success: (B, E) bool, whether the episode succeeded at any step; None if the environment
            defines no success.
        memory: (B, E, k) float32, the memory of the actor after the last step of each episode; None
            for actors without a memory.
        task_weight: (B,) float64, weight of each task in the objective of an update; None for equal
            weights.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    mask: np.ndarray
    last_obs: np.ndarray
    terminated: np.ndarray
    bootstrap: np.ndarray
    tasks: np.ndarray
    task_ids: np.ndarray | None = None
    success: np.ndarray | None = None
    memory: np.ndarray | None = None
    task_weight: np.ndarray | None = None

    @property
    def episode_mask(self) -> np.ndarray:
        """Mask of the episodes that were not left out, (B, E) bool."""
        return self.mask[..., 0]

    @property
    def ends(self) -> np.ndarray:
        """Whether a step is the last of its episode, (B, E, T) bool."""
        lengths = self.mask.sum(axis=2, keepdims=True)
        return np.arange(self.mask.shape[2]) == lengths - 1

    @property
    def task_mask(self) -> np.ndarray:
        """Mask of the tasks with at least one episode that was not left out, (B,) bool."""
        return np.asarray(self.episode_mask.any(axis=1))

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted return of each episode, (B, E) float64; NaN for episodes left out."""
        return np.where(self.episode_mask, self.reward.sum(axis=2, dtype=np.float64), np.nan)

    @property
    def task_returns(self) -> np.ndarray:
        """Mean return of the episodes of each task that were not left out, (B,) float64; NaN for
        tasks without one."""
        sums = np.nansum(self.returns, axis=1)
        means = sums / np.maximum(self.episode_mask.sum(axis=1), 1)
        return np.where(self.task_mask, means, np.nan)

    @property
    def num_steps(self) -> int:
        """Number of environment steps that took place."""
        return int(self.mask.sum())

    def rows(self, start: int, stop: int) -> Episodes:
        """Return the episodes of the tasks `start`, ..., `stop` - 1."""
        return Episodes(**{name: array[start:stop] for name, array in self.arrays.items()})

    def of_tasks(self, indices: np.ndarray) -> Episodes:
        """Return the episodes of the tasks at `indices`, (n,) integers."""
        return Episodes(**{name: array[indices] for name, array in self.arrays.items()})

    def first(self, number: int) -> Episodes:
        """Return the first `number` episodes of each task."""
        return Episodes(
            **{
                name: array if name in PER_TASK else array[:, :number]
                for name, array in self.arrays.items()
            }
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays that are not None, by name."""
        return {name: array for name, array in vars(self).items() if array is not None}


def mean_return(phases: Sequence[Episodes]) -> float | None:
    """Return the mean return of all episodes that were not left out; None if there are none."""
    kept = [phase.returns[phase.episode_mask] for phase in phases]
    return mean_or_none(np.concatenate(kept))


def success_rate(phases: Sequence[Episodes]) -> float | None:
    """Return the fraction of all episodes, without those left out, that succeeded; None if there
    are none, or if the environment defines no success."""
    kept = [each.success[each.episode_mask] for each in phases if each.success is not None]
    return mean_or_none(np.concatenate(kept)) if kept else None


def known_success(reported: Sequence[np.ndarray | None]) -> list[np.ndarray] | None:
    """Return the success of phases, each (B, E) bool: none where none is reported, if it is in any
    phase, since some environments report a success where there is one, and nothing elsewhere. None
    if no phase has one."""
    known = [each for each in reported if each is not None]
    if not known:
        return None
    return [np.zeros_like(known[0]) if each is None else each for each in reported]


def mean_or_none(values: np.ndarray) -> float | None:
    """Return the mean of values, (n,); None if n is 0."""
    return float(values.mean()) if values.size else None
