"""Actors: the policies of rollouts, in float32 NumPy, which is faster than torch for small MLPs.

B is the number of tasks, E the number of episodes of each task, T the horizon.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
from gymnasium.spaces import Box

from metarl.core.errors import UserError


def check_obs_size(obs: np.ndarray, obs_dim: int) -> None:
    """Check that observations, (..., n), have the size that an agent was made for.

    Raises:
        UserError: if n is not `obs_dim`.
    """
    if obs.shape[-1] != obs_dim:
        numbers = "1 number" if obs_dim == 1 else f"{obs_dim} numbers"
        raise UserError(
            f"env: expected observations of {numbers}, for which the policy was made, got "
            f"{obs.shape[-1]}: the agent comes from another task family, or from other settings of "
            "this one"
        )


def mlp_outputs(
    layers: Sequence[tuple[np.ndarray, np.ndarray]], x: np.ndarray, *, relu: bool
) -> np.ndarray:
    """Return the outputs of MLPs, which may be stacked.

    Args:
        layers: weight (..., in, out) and bias (..., 1, out) or (out,) of each layer.
        x: inputs, (..., n, in).
        relu: whether the nonlinearity is relu; tanh otherwise.
    """
    # Outputs that are not finite are refused as actions.
    with np.errstate(over="ignore", invalid="ignore"):
        for number, (weight, bias) in enumerate(layers):
            if number:
                np.maximum(x, 0, out=x) if relu else np.tanh(x, out=x)
            x = x @ weight
            x += bias
    return x


class MLPActor(ABC):
    """Chooses actions from the outputs of a stack of MLPs, one MLP per task."""

    def __init__(self, layers: Sequence[tuple[np.ndarray, np.ndarray]], *, relu: bool) -> None:
        """Store the layers without a copy.

        Args:
            layers: weight (B, in, out) and bias (B, 1, out) of each layer, float32.
            relu: whether the nonlinearity is relu; tanh otherwise.
        """
        self._layers, self._relu = list(layers), relu
        self._obs_dim, self._num_outputs = layers[0][0].shape[-2], layers[-1][0].shape[-1]

    def rows(self, start: int, stop: int) -> Self:
        """Return the actor of the tasks `start`, ..., `stop` - 1, whose matrix products are those
        of each task on its own."""
        part = copy.copy(self)
        part._layers = [(weight[start:stop], bias[start:stop]) for weight, bias in self._layers]
        return part

    def forward(self, obs: np.ndarray) -> np.ndarray:
        """Return the outputs of the MLPs, (B, E, num_outputs), at obs (B, E, obs_dim) float32.

        Raises:
            UserError: if the observations do not have the size that the policy was made for.
        """
        check_obs_size(obs, self._obs_dim)
        return mlp_outputs(self._layers, obs, relu=self._relu)

    @abstractmethod
    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        """Draw the action noise of one episode, (T, num_outputs) float32."""

    @abstractmethod
    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        """Return actions, (B, E, action_dim) float32; see `metarl.rollout.collect.Actor.act`.

        Actions of ended episodes are computed too: the rounding of a matrix product depends on its
        shape, and the end of an episode must not change the results of other episodes.
        """


class GaussianActor(MLPActor):
    """Draws actions from Gaussians: mean + std * standard normal noise."""

    def __init__(
        self, layers: Sequence[tuple[np.ndarray, np.ndarray]], std: np.ndarray, *, relu: bool
    ) -> None:
        """Store the layers and the standard deviations, (B, 1, action_dim) float32; with zeros the
        actions are the means."""
        super().__init__(layers, relu=relu)
        self._std = std

    def rows(self, start: int, stop: int) -> Self:
        part = super().rows(start, stop)
        part._std = self._std[start:stop]
        return part

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return rng.standard_normal((horizon, self._num_outputs), dtype=np.float32)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        return self.forward(obs) + self._std * noise


class CategoricalActor(MLPActor):
    """Draws action indices from softmax(logits), as argmax(logits + Gumbel noise): the Gumbel-max
    trick. Deterministic actions are the modes."""

    def __init__(
        self,
        layers: Sequence[tuple[np.ndarray, np.ndarray]],
        *,
        relu: bool,
        deterministic: bool = False,
    ) -> None:
        super().__init__(layers, relu=relu)
        self._deterministic = deterministic

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return rng.gumbel(size=(horizon, self._num_outputs)).astype(np.float32)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        return chosen_index(self.forward(obs), None if self._deterministic else noise)


def chosen_index(logits: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
    """Return the indices of actions, (..., 1) float32; NaN where logits are not finite, of which no
    other index would tell.

    Args:
        logits: (..., number of actions).
        noise: Gumbel noise of the same shape; None for the modes.
    """
    scores = logits if noise is None else logits + noise
    index = scores.argmax(-1, keepdims=True).astype(np.float32)
    if not np.isfinite(logits).all():
        index[~np.isfinite(logits).all(-1)] = np.nan
    return index


def centre_and_half_width(actions: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and half of the width of an action space with bounds, (A,) float64 each."""
    low, high = (np.asarray(each, np.float64).ravel() for each in (actions.low, actions.high))
    return (high + low) / 2, (high - low) / 2
