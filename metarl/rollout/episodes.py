"""Episodes: the container that passes from the rollouts to the learner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PER_TASK = ("tasks", "task_ids")  # the arrays without an axis of episodes


@dataclass(frozen=True)
class Episodes:
    """Episodes of B tasks, E each, of up to T steps. After an episode has ended its rows are 0.

    An episode that failed is left out whole: no step of it took place, all its rows are 0.

    Attributes:
        obs: (B, E, T, obs_dim) float32, before each action.
        action: (B, E, T, action_dim) float32, as the policy chose it.
        reward: (B, E, T) float32.
        mask: (B, E, T) bool, whether the step took place.
        last_obs: (B, E, obs_dim) float32, after the last step.
        terminated: (B, E) bool, whether the episode ended in a terminal state.
        bootstrap: (B, E) bool, whether a time limit cut an endless task short, so that the value of
            `last_obs` counts. False for terminated episodes and for finite-horizon tasks.
        tasks: (B, task_dim) float64.
        task_ids: (B,) int64, the numbers of tasks from a finite set; None for tasks drawn from a
            distribution.
        success: (B, E) bool, whether the episode succeeded at any step; None where the environment
            knows no success.
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

    @property
    def episode_mask(self) -> np.ndarray:
        """The episodes that were not left out, (B, E) bool."""
        return self.mask[..., 0]

    @property
    def task_mask(self) -> np.ndarray:
        """The tasks with at least one episode that was not left out, (B,) bool."""
        return np.asarray(self.episode_mask.any(axis=1))

    @property
    def returns(self) -> np.ndarray:
        """The undiscounted return of each episode, (B, E) float64; NaN where it was left out."""
        return np.where(self.episode_mask, self.reward.sum(axis=2, dtype=np.float64), np.nan)

    @property
    def mean_return(self) -> float | None:
        """The mean return of the episodes that were not left out; None if all were."""
        return mean(self.returns[self.episode_mask])

    @property
    def success_rate(self) -> float | None:
        """The share of these episodes that succeeded; None also where success is not known."""
        return None if self.success is None else mean(self.success[self.episode_mask])

    @property
    def num_steps(self) -> int:
        """How many environment steps were taken."""
        return int(self.mask.sum())

    def rows(self, start: int, stop: int) -> Episodes:
        """Return the episodes of tasks `start` to `stop`."""
        return Episodes(**{name: array[start:stop] for name, array in self.arrays.items()})

    def of_tasks(self, indices: np.ndarray) -> Episodes:
        """Return the episodes of the tasks with these numbers, (n,) integers."""
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
        """The arrays that are not None, by name."""
        return {name: array for name, array in vars(self).items() if array is not None}


def mean(values: np.ndarray) -> float | None:
    """Return the mean, None of nothing."""
    return float(values.mean()) if values.size else None
