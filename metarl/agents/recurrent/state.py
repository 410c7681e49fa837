"""The states of trials between two episodes.

B is the number of tasks, E the number of trials of each task.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metarl.agents.recurrent.inputs import InputEncoder
from metarl.rollout.episodes import Episodes


@dataclass(frozen=True)
class TrialState:
    """The states of trials between two episodes, E of each of B tasks; E is 1 before the first
    episode, whatever the number of trials.

    Attributes:
        memory: (B, E, memory_size).
        action: the last action as a part of inputs, (B, E, k); 0 before the first episode.
        reward: the last reward, (B, E).
        anew: whether an episode has just ended, (B, E) bool.
    """

    memory: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    anew: np.ndarray

    @classmethod
    def empty(cls, num_tasks: int, memory_size: int, action_size: int) -> TrialState:
        """Return the states of B tasks before the first episode."""
        shape = (num_tasks, 1)
        return cls(
            np.zeros((*shape, memory_size), np.float32),
            np.zeros((*shape, action_size), np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, bool),
        )

    def inputs(self, episodes: Episodes, encoder: InputEncoder) -> np.ndarray:
        """Return the inputs at all steps of episodes that were played from these states, one of
        each trial, (B, E, T, num_inputs); see `InputEncoder`."""

        def before(first: np.ndarray, values: np.ndarray) -> np.ndarray:
            """Return the values of the steps before, (B, E, T, ...)."""
            first = np.broadcast_to(first, values[:, :, 0].shape)[:, :, None]
            return np.concatenate([first, values[:, :, :-1]], axis=2)

        return encoder(
            episodes.obs,
            before(self.action, encoder.encode_action(episodes.action)),
            before(self.reward, episodes.reward),
            before(self.anew, np.zeros_like(episodes.mask)),
        )

    def after(self, episodes: Episodes, encoder: InputEncoder) -> TrialState:
        """Return the states after episodes; those of episodes that were left out do not change.

        Args:
            episodes: one episode of each trial, with the memory after it.
            encoder: makes the inputs.
        """
        assert episodes.memory is not None
        played = episodes.episode_mask
        last = np.maximum(episodes.mask.sum(axis=2) - 1, 0)[..., None]  # (B, E, 1)
        action = np.take_along_axis(episodes.action, last[..., None], axis=2)[:, :, 0]
        reward = np.take_along_axis(episodes.reward, last, axis=2)[..., 0]
        found = {
            "memory": episodes.memory,
            "action": encoder.encode_action(action),
            "reward": reward,
            "anew": played,
        }
        return TrialState(
            **{
                name: np.where(played if value.ndim == 2 else played[..., None], value, before)
                for (name, value), before in zip(found.items(), vars(self).values(), strict=True)
            }
        )
