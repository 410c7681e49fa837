"""A learned value function of the episodes after adaptation.

B is the number of tasks, E the number of episodes of each task, T the horizon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from metarl.agents.base import AgentState
from metarl.agents.maml.batch import ReturnConfig, linear_values
from metarl.agents.moments import Moments
from metarl.agents.vector_adam import VectorAdam, load_optimised, mean_norm, optimised_state
from metarl.core.devices import upload
from metarl.core.layers import check_num_weights, dense, orthogonal, tanh
from metarl.core.params import Params, as_views, flat_gradient, flatten, leaves, unflatten
from metarl.core.returns import advantages
from metarl.core.schema import Count, LayerSize, Positive, Section
from metarl.rollout.episodes import Episodes


class CriticConfig(Section):
    """The value function of the episodes after adaptation: an MLP that observes the task, as only
    training can, and learns over all meta-batches. Adaptations keep the linear baseline, which is
    fitted to the episodes of one task."""

    epochs: Annotated[int, Field(ge=0)] = 0
    """Passes over the episodes of each meta-batch; 0 for the linear baseline in its place."""
    hidden: tuple[LayerSize, ...] = (128, 128)
    """Sizes of the hidden layers, of tanh."""
    lr: Positive = 1e-3
    """Step size of Adam."""
    minibatch: Count = 1024
    """Number of environment steps in a gradient step."""


class Critic:
    """Estimates the discounted return that is left at each step from observation, task and elapsed
    time, all normalised by running moments.

    Its targets are the lambda-returns of its own values (Schulman et al. 2016). Until it has
    learned from one meta-batch it has the values of the linear baseline.
    """

    def __init__(
        self,
        config: CriticConfig,
        returns: ReturnConfig,
        obs_dim: int,
        task_dim: int,
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        """Draw the initial parameters from `rng`.

        Args:
            config: the settings, with at least one epoch.
            returns: discount, lambda and the linear baseline.
            obs_dim, task_dim: sizes of an observation and of a task.
            rng: random number generator.
            device: the device of the learner.

        Raises:
            ConfigError: if there are more weights than `MAX_WEIGHTS`.
        """
        self._config, self._discounting, self._device = config, returns, device
        sizes = (obs_dim + task_dim + 1, *config.hidden, 1)
        num_weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(sizes))
        check_num_weights({"critic.hidden": (num_weights, config.hidden)})
        params: Params = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            gain = math.sqrt(2) if layer < len(config.hidden) else 1.0
            weight = np.ascontiguousarray(gain * orthogonal(rng, fan_in, fan_out))
            params[f"weight{layer}"] = torch.from_numpy(weight).to(device, torch.float32)
            params[f"bias{layer}"] = torch.zeros(fan_out, device=device)
        self._params = as_views(params)
        self._adam = VectorAdam(flatten(self._params), config.lr)
        self._inputs, self._returns = Moments.empty(sizes[0]), Moments.empty(1)

    @torch.no_grad()
    def values(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Return the values of the steps, (B, E, T), 0 where masked; and of the last states, (B,
        E), 0 where their return is not continued; float64."""
        if not self._returns.count:
            return linear_values(episodes, self._discounting, self._device)
        steps, last = inputs(episodes)
        mask, bootstrap = (
            upload(array, self._device) for array in (episodes.mask, episodes.bootstrap)
        )
        return self._evaluate(steps) * mask, self._evaluate(last) * bootstrap

    def _evaluate(self, rows: np.ndarray) -> Tensor:
        """Return the values at inputs (..., num_inputs), (...) float64."""
        x = self._normalised(rows.reshape(-1, rows.shape[-1]))
        std, mean = self._returns.std[0], self._returns.mean[0]
        return (mlp(self._params, x).double() * std + mean).unflatten(0, rows.shape[:-1])

    def _normalised(self, rows: np.ndarray) -> Tensor:
        return upload(self._inputs.normalise(rows), self._device)

    def fit(self, parts: Sequence[Episodes], rng: np.random.Generator) -> None:
        """Learn from the episodes of a meta-batch.

        Args:
            parts: the episodes, played after one or several adaptations.
            rng: draws the minibatches.

        Raises:
            NotFinite: if a gradient is not finite. The critic is then unchanged.
        """
        rows, targets = [], []
        for episodes in parts:
            steps, _ = inputs(episodes)
            # Task by task, since the moments need float64 copies of all rows
            rows += [x[mask] for x, mask in zip(steps, episodes.mask, strict=True)]
            targets.append(self._targets(episodes)[episodes.mask])
        before = self._inputs, self._returns, self._adam.state_dict()
        for each in rows:
            self._inputs = self._inputs.with_rows(each)
        x, y = np.concatenate(rows), np.concatenate(targets)
        self._returns = self._returns.with_rows(y[:, None])
        try:
            self._params = self._trained(self._normalised(x), self._scaled(y), rng)
        except FloatingPointError:
            self._inputs, self._returns, adam = before
            self._adam.load_state_dict(adam)
            raise

    def _targets(self, episodes: Episodes) -> np.ndarray:
        """Return the lambda-return of each step, (B, E, T) float64."""
        values, last_values = self.values(episodes)
        reward, mask = (upload(each, self._device) for each in (episodes.reward, episodes.mask))
        discounting = self._discounting.discount, self._discounting.gae_lambda
        gains = advantages(reward * mask, mask, values, last_values, *discounting)
        return (values + gains).cpu().numpy()

    def _scaled(self, targets: np.ndarray) -> Tensor:
        scaled = (targets - self._returns.mean[0]) / self._returns.std[0]
        return upload(scaled.astype(np.float32), self._device)

    def _trained(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Params:
        """Return the parameters after all epochs on inputs (N, num_inputs) and normalised targets
        (N,)."""
        vector, norms = flatten(self._params), []
        for _ in range(self._config.epochs):
            order = upload(rng.permutation(len(x)), self._device)
            for rows in order.split(self._config.minibatch):
                params = leaves(unflatten(vector, self._params))
                loss = (mlp(params, x[rows]) - y[rows]).square().mean()
                gradient = flat_gradient(loss, params)
                norms.append(gradient.norm())
                vector = self._adam.step(vector, gradient)
        mean_norm(norms, "the gradient of the critic")
        return unflatten(vector, self._params)

    def state_dict(self) -> AgentState:
        """Return a copy, on the CPU, of parameters, optimiser and moments."""
        state = optimised_state("params", "adam", self._params, self._adam)
        return {
            **state,
            **self._inputs.state_dict("inputs"),
            **self._returns.state_dict("returns"),
        }

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        """Load the state of another critic of the same config."""
        self._params = load_optimised("params", "adam", state, self._params, self._adam)
        tensors = {name: torch.as_tensor(value) for name, value in state.items()}
        self._inputs = Moments.from_state(tensors, "inputs")
        self._returns = Moments.from_state(tensors, "returns")


def inputs(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Return what the critic sees at each step, (B, E, T, num_inputs), and after the last step of
    each episode, (B, E, num_inputs): observation, task, and the elapsed fraction of the horizon.

    As for the linear baseline, the time is 0 for tasks with truncated episodes, whose values do not
    depend on it.
    """
    shape, horizon = episodes.mask.shape, episodes.mask.shape[2]
    timed = ~np.any(episodes.bootstrap, axis=1)  # (B,)
    time = np.arange(horizon) / horizon * timed[:, None, None]  # (B, 1, T)
    tasks = episodes.tasks.reshape(len(episodes.tasks), 1, 1, -1)
    steps = [episodes.obs, *(spread(x, shape) for x in (tasks, time[..., None]))]
    last = [episodes.last_obs, spread(tasks[:, :, 0], shape[:2]), np.zeros((*shape[:2], 1))]
    found = (np.concatenate(each, axis=-1, dtype=np.float32) for each in (steps, last))
    return next(found), next(found)


def spread(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array (..., k) broadcast to (*shape, k)."""
    return np.broadcast_to(x, (*shape, x.shape[-1]))


def mlp(params: Params, x: Tensor) -> Tensor:
    """Return the outputs, (N,), of inputs (N, num_inputs)."""
    last = len(params) // 2 - 1
    for layer in range(last + 1):
        x = dense(x, params[f"weight{layer}"], params[f"bias{layer}"])
        if layer < last:
            x = tanh(x)
    return x[:, 0]
