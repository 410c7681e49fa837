"""Expected rewards in place of observed ones, of episodes that a family can tell them of.

B is the number of tasks, E the number of episodes of each, T the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from metarl.core.errors import ConfigError
from metarl.rollout.episodes import Episodes

ExpectedReward = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""`metarl.envs.TaskFamily.expected_reward`."""


def with_expected_rewards(
    phases: Sequence[Episodes], expected_reward: ExpectedReward
) -> list[Episodes]:
    """Return the episodes of each phase with expected rewards, those of the phase's own tasks.

    Expected rewards may lack a number that the task alone determines. That changes the returns of
    all actions by the same amount only where all episodes have the same number of steps; otherwise
    it would reward or punish those that end an episode.

    Raises:
        ConfigError: if episodes that were not left out differ in their numbers of steps.
    """
    lengths = np.concatenate([each.mask.sum(axis=2)[each.episode_mask] for each in phases])
    if len(lengths) and lengths.min() < lengths.max():
        raise ConfigError(
            "agent.update.reward: expected observed in a task family whose episodes may end early "
            f"(here after {lengths.min()} to {lengths.max()} steps), got expected"
        )
    return [replace(each, reward=rewards(each, expected_reward)) for each in phases]


def rewards(episodes: Episodes, expected_reward: ExpectedReward) -> np.ndarray:
    """Return the expected rewards of episodes, (B, E, T); 0 where no step took place."""
    num_tasks, num_episodes = episodes.episode_mask.shape
    tasks = np.repeat(episodes.tasks, num_episodes, axis=0)  # (B * E, task_dim)

    def by_episode(values: np.ndarray) -> np.ndarray:
        return values.reshape(num_tasks * num_episodes, *values.shape[2:])

    found = expected_reward(tasks, by_episode(episodes.obs), by_episode(episodes.action))
    return np.where(episodes.mask, found.reshape(episodes.mask.shape), 0)
