"""The input of a step of the recurrent network: observation, last action, last reward, and whether
an episode has just ended (Duan et al. 2016, section 2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.agents.base import AgentSetup
from metarl.agents.moments import Moments


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

    @classmethod
    def make(cls, setup: AgentSetup, *, observations: bool, rewards: bool) -> InputEncoder:
        """Return the encoder of an untrained agent.

        Args:
            setup: the spaces.
            observations, rewards: whether they are normalised by running moments.
        """
        actions = setup.action_space
        return cls(
            int(actions.n) if isinstance(actions, Discrete) else None,
            Moments.empty(math.prod(setup.observation_space.shape)) if observations else None,
            Moments.empty(1) if rewards else None,
        )

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


def input_size(observations: Box, actions: Box | Discrete) -> int:
    """Return the size of an input: observation, last action (discrete ones one-hot), last reward,
    and whether an episode has just ended."""
    size = int(actions.n) if isinstance(actions, Discrete) else math.prod(actions.shape)
    return math.prod(observations.shape) + size + 2
