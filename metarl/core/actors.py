"""Actors: policies in NumPy, float32, which is faster than torch at these sizes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from metarl.core.errors import UserError


class MLPActor(ABC):
    """Acts by a stack of MLPs, one per task."""

    def __init__(self, layers: Sequence[tuple[np.ndarray, np.ndarray]], *, relu: bool) -> None:
        """Take the layers over.

        Args:
            layers: weight and bias of each, (B, in, out) and (B, 1, out) float32.
            relu: whether the nonlinearity is relu; tanh otherwise.
        """
        self._layers, self._relu = list(layers), relu
        self._obs_dim, self._num_outputs = layers[0][0].shape[-2], layers[-1][0].shape[-1]

    def forward(self, obs: np.ndarray) -> np.ndarray:
        """Return the outputs, (B, E, num_outputs), at obs (B, E, obs_dim) float32.

        Raises:
            UserError: if the size of the observations is not the policy's.
        """
        if obs.shape[-1] != self._obs_dim:
            raise UserError(
                f"env: expected observations of {self._obs_dim} numbers, for which the policy was "
                f"made, got {obs.shape[-1]}: the agent comes from another task family, or from "
                "other settings of this one"
            )
        hidden = obs
        for number, (weight, bias) in enumerate(self._layers):
            if number:
                np.maximum(hidden, 0, out=hidden) if self._relu else np.tanh(hidden, out=hidden)
            hidden = hidden @ weight
            hidden += bias
        return hidden

    @abstractmethod
    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        """Draw the noise of one episode, (T, num_outputs) float32."""

    @abstractmethod
    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        """Choose actions, (B, E, action_dim) float32: `metarl.rollout.collect.Actor`.

        Ended episodes are acted for too: the shape of a matrix product decides its rounding, and
        the end of an episode must not change the results of the others.
        """


class GaussianActor(MLPActor):
    """Draws from Gaussians."""

    def __init__(
        self, layers: Sequence[tuple[np.ndarray, np.ndarray]], std: np.ndarray, *, relu: bool
    ) -> None:
        """Take the layers and the standard deviations, (B, 1, A) float32, over."""
        super().__init__(layers, relu=relu)
        self._std = std

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return rng.standard_normal((horizon, self._num_outputs), dtype=np.float32)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        return self.forward(obs) + self._std * noise


class CategoricalActor(MLPActor):
    """Draws an index from the softmax of the logits, as the largest of logits + Gumbel noise."""

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return rng.gumbel(size=(horizon, self._num_outputs)).astype(np.float32)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        return (self.forward(obs) + noise).argmax(-1, keepdims=True).astype(np.float32)
