"""The input of a step of the recurrent network: observation, last action, last reward, and whether
an episode has just ended (Duan et al. 2016, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metarl.agents.rl2.moments import Moments


@dataclass(frozen=True)
class InputEncoder:
    """Makes the inputs of the network in rollouts and in training.

    Attributes:
        num_actions: number of discrete actions, which become one-hot; None for continuous actions.
        obs: running moments of the observations; None leaves them as they are.
        reward: running moments of the rewards, (1,); None leaves them as they are.
    """

    num_actions: int | None
    obs: Moments | None
    reward: Moments | None

    def __call__(
        self, obs: np.ndarray, action: np.ndarray, reward: np.ndarray, anew: np.ndarray
    ) -> np.ndarray:
        """Return inputs, (..., num_inputs) float32.

        Args:
            obs: (..., obs_dim).
            action: the last action as `encode_action` returns it; 0 at the first step of a trial.
            reward: the last reward, (...).
            anew: whether an episode of the trial has just ended, (...) bool.
        """
        if self.obs is not None:
            obs = self.obs.normalise(obs)
        reward = reward[..., None]
        if self.reward is not None:
            reward = self.reward.normalise(reward, shift=False)
        return np.concatenate([obs, action, reward, anew[..., None]], -1, dtype=np.float32)

    def encode_action(self, action: np.ndarray) -> np.ndarray:
        """Return actions (..., action_dim) as parts of inputs: discrete ones one-hot, (..., n)."""
        if self.num_actions is None:
            return action
        return (action == np.arange(self.num_actions)).astype(np.float32)
