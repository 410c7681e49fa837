"""Trials: the episodes of one task, one after another, as one sequence.

B is the number of tasks, E the number of trials of each task, n = B * E, K the number of episodes
of a trial, L the number of steps of the longest trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarl.rollout.episodes import Episodes


@dataclass(frozen=True)
class Trials:
    """n trials without gaps: their steps that took place come first, then padding of zeros.

    Attributes:
        obs: observation before each action, (n, L, obs_dim).
        action: (n, L, action_dim).
        reward: (n, L).
        mask: whether each step took place, (n, L) bool.
        ends: whether a step is the last of its episode, (n, L) bool.
        last_obs: at the last step of an episode, the observation after it; elsewhere 0,
            (n, L, obs_dim).
        bootstrap: at the last step of an episode, whether its return is continued by the value of
            `last_obs`, (n, L) bool.
        task: (n, task_dim).
        weight: weight of each trial in the objective of an update, (n,); None for equal weights.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    mask: np.ndarray
    ends: np.ndarray
    last_obs: np.ndarray
    bootstrap: np.ndarray
    task: np.ndarray
    weight: np.ndarray | None = None

    @property
    def previous_reward(self) -> np.ndarray:
        """The reward before each step, in the same trial, (n, L); 0 at the first."""
        return shifted(self.reward)

    @property
    def next_obs(self) -> np.ndarray:
        """The observation after each step, (n, L, obs_dim); 0 after a trial's end."""
        following = np.concatenate([self.obs[:, 1:], np.zeros_like(self.obs[:, :1])], axis=1)
        return np.where(self.ends[..., None], self.last_obs, following)

    @property
    def begins_anew(self) -> np.ndarray:
        """Whether an episode has just ended before each step, (n, L) bool."""
        return shifted(self.ends) & self.mask

    def weighed(self) -> Trials:
        """Return the trials without those of the weight 0."""
        if self.weight is None or self.weight.all():
            return self
        kept = self.weight > 0
        return Trials(**{name: array[kept] for name, array in vars(self).items()})


def shifted(values: np.ndarray) -> np.ndarray:
    """Return values (n, L, ...) one step later, with 0 at the first step."""
    return np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1]], axis=1)


def join_episodes(phases: Sequence[Episodes]) -> Trials:
    """Return the trials of the episodes that were played one after another.

    A trial with an episode that failed is left out.

    Args:
        phases: the K episodes of each of the B * E trials, phase by phase.
    """
    whole = np.logical_and.reduce([phase.episode_mask for phase in phases]).ravel()  # (n,)
    weight, num_episodes = phases[-1].task_weight, phases[0].mask.shape[1]
    if weight is not None:
        weight = np.repeat(weight, num_episodes)[whole]

    def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
        """(B, E, T, ...) of each phase -> (n, K * T, ...)"""
        together = np.concatenate(arrays, axis=2)
        return together.reshape(-1, *together.shape[2:])[whole]

    mask = joined([phase.mask for phase in phases])
    last = [phase.ends for phase in phases]  # (B, E, T) each
    # Stable: the steps that took place stay in their order and come before all others.
    order = np.argsort(~mask, axis=1, kind="stable")[:, : mask.sum(axis=1).max(initial=1)]
    rows = np.arange(len(mask))[:, None]

    def compact(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return joined(arrays)[rows, order]

    kept = mask[rows, order]
    return Trials(
        obs=compact([phase.obs for phase in phases]),
        action=compact([phase.action for phase in phases]),
        reward=compact([phase.reward for phase in phases]),
        mask=kept,
        ends=compact(last) & kept,
        last_obs=compact(
            [
                np.where(each[..., None], phase.last_obs[:, :, None], 0)
                for phase, each in zip(phases, last, strict=True)
            ]
        ),
        bootstrap=compact(
            [phase.bootstrap[..., None] & each for phase, each in zip(phases, last, strict=True)]
        ),
        task=np.repeat(phases[0].tasks, num_episodes, axis=0)[whole],
        weight=weight,
    )
