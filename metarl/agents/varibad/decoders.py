"""Decoders: what a value of the latent variable says about rewards, states and tasks.

m is the number of trials, S the number of samples of the latent variable of each, L the number of
steps, d the size of the latent variable.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metarl.core.layers import dense, glorot
from metarl.core.params import Params
from metarl.core.schema import LayerSize, NotNegative, Section


class DecoderConfig(Section):
    """The decoders of the model, which are trained with the encoder and not used afterwards."""

    hidden: tuple[LayerSize, ...] = (64, 32)
    """Sizes of the hidden layers of each decoder."""
    reward: Literal["squared", "positive"] = "squared"
    """What is predicted of a reward: its value, by the squared error; or whether it is positive, by
    the log likelihood, for tasks with two rewards."""
    reward_inputs: Literal["next", "transition"] = "transition"
    """What the decoder of rewards sees: the observation after a step, which is enough where rewards
    depend on nothing else; or also the observation before it and the action."""
    reward_weight: NotNegative = 1.0
    """Weight of the rewards in the loss; 0 for no decoder of rewards."""
    state_weight: NotNegative = 0.0
    """Weight of the observations after each step, given observation and action; for tasks that
    differ in their dynamics."""
    task_weight: NotNegative = 0.0
    """Weight of the numbers of the task itself, which are known in training only."""


@dataclass(frozen=True)
class Steps:
    """The steps of m trials, as tensors.

    Attributes:
        obs, next_obs: observations before and after each step, (m, L, obs_dim).
        action: encoded actions, (m, L, k).
        reward: normalised, (m, L).
        positive: 1 where the reward is positive, else 0, (m, L).
        mask: 1 where a step took place, else 0, (m, L); or other weights of steps, see `at`.
        task: (m, task_dim).
    """

    obs: Tensor
    next_obs: Tensor
    action: Tensor
    reward: Tensor
    positive: Tensor
    mask: Tensor
    task: Tensor

    def rows(self, indices: Tensor) -> Steps:
        """Return the trials at `indices`."""
        return Steps(**{name: value[indices] for name, value in vars(self).items()})

    def at(self, indices: Tensor) -> Steps:
        """Return some of the steps that took place, drawn at random and uniformly with replacement,
        with weights such that the expectation of a weighted sum is the sum over all steps.

        Args:
            indices: the steps of each trial, (m, n).
        """
        rows = torch.arange(len(indices), device=indices.device)[:, None]
        found = {name: value[rows, indices] for name, value in vars(self).items() if name != "task"}
        weight = self.mask.sum(1, keepdim=True) / indices.shape[1]
        return Steps(**{**found, "mask": weight.expand(indices.shape), "task": self.task})


class Decoder:
    """A network of the latent variable and of further inputs, with ReLU.

    The part of the first layer that depends on the further inputs is computed once for all samples.
    """

    def __init__(self, name: str, hidden: tuple[int, ...], inputs: int, latent: int, out: int):
        self._name, self._inputs, self._latent = name, inputs, latent
        self._sizes = (*hidden, out)

    @property
    def _layer_sizes(self) -> list[tuple[int, int]]:
        return list(pairwise((self._inputs + self._latent, *self._sizes)))

    @property
    def num_weights(self) -> int:
        """Number of weights of all layers."""
        return sum(fan_in * fan_out for fan_in, fan_out in self._layer_sizes)

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the initial parameters."""
        arrays = {}
        for layer, (fan_in, fan_out) in enumerate(self._layer_sizes):
            arrays[f"{self._name}.weight{layer}"] = glorot(rng, fan_in, fan_out)
            arrays[f"{self._name}.bias{layer}"] = np.zeros(fan_out)
        return arrays

    def __call__(self, params: Params, latent: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return outputs for each sample at each step, (m, S, L, out); (m, S, out) without inputs.

        Args:
            params: the parameters.
            latent: samples of the latent variable, (m, S, d).
            inputs: further inputs, (m, L, number of inputs).
        """
        weight = params[f"{self._name}.weight0"]
        x = latent @ weight[: self._latent] + params[f"{self._name}.bias0"]
        if inputs is not None:
            x = x[:, :, None] + (inputs @ weight[self._latent :])[:, None]
        shape, last = x.shape[:-1], len(self._sizes) - 1
        x = x.flatten(0, -2)  # a row for each sample (at each step)
        if last:
            x = torch.relu(x)
        for layer in range(1, last + 1):
            weight, bias = (params[f"{self._name}.{kind}{layer}"] for kind in ("weight", "bias"))
            x = dense(x, weight, bias, relu=layer < last)
        return x.unflatten(0, shape)


class Decoders:
    """The decoders of rewards, states and tasks whose weights are not 0."""

    def __init__(
        self, config: DecoderConfig, obs_dim: int, action_dim: int, task_dim: int, latent: int
    ) -> None:
        """Set up the decoders.

        Args:
            config: the settings.
            obs_dim: size of an observation.
            action_dim: size of an encoded action.
            task_dim: number of numbers of a task.
            latent: d.
        """
        self._config = config
        transition = obs_dim + action_dim
        inputs = obs_dim + (transition if config.reward_inputs == "transition" else 0)
        self._reward = Decoder("reward", config.hidden, inputs, latent, 1)
        self._state = Decoder("state", config.hidden, transition, latent, obs_dim)
        self._task = Decoder("task", config.hidden, 0, latent, task_dim)

    @property
    def used(self) -> dict[str, float]:
        """The weights of the decoders in use, which are not 0, by name."""
        config = self._config
        weights = {
            "reward": config.reward_weight,
            "state": config.state_weight,
            "task": config.task_weight,
        }
        return {name: weight for name, weight in weights.items() if weight}

    @property
    def _in_use(self) -> list[Decoder]:
        decoders = {"reward": self._reward, "state": self._state, "task": self._task}
        return [decoders[name] for name in self.used]

    @property
    def num_weights(self) -> int:
        """Number of weights of the decoders in use."""
        return sum(each.num_weights for each in self._in_use)

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the initial parameters."""
        arrays: dict[str, np.ndarray] = {}
        for decoder in self._in_use:
            arrays |= decoder.init(rng)
        return arrays

    def reward(self, params: Params, latent: Tensor, steps: Steps) -> Tensor:
        """Return predicted rewards, or logits of positive ones, (m, S, L)."""
        inputs = steps.next_obs
        if self._config.reward_inputs == "transition":
            inputs = torch.cat([inputs, steps.obs, steps.action], -1)
        return self._reward(params, latent, inputs)[..., 0]

    def errors(self, params: Params, latent: Tensor, steps: Steps) -> dict[str, Tensor]:
        """Return the errors of all steps of a trial, summed, by decoder in use, (m, S) each.

        Args:
            params: the parameters.
            latent: samples of the latent variable, (m, S, d).
            steps: the steps of the trials.
        """
        config, found = self._config, {}
        mask = steps.mask[:, None]  # (m, 1, L)
        if config.reward_weight:
            out = self.reward(params, latent, steps)
            if config.reward == "positive":
                wanted = steps.positive[:, None].expand_as(out)
                error = F.binary_cross_entropy_with_logits(out, wanted, reduction="none")
            else:
                error = (out - steps.reward[:, None]).square()
            found["reward"] = (error * mask).sum(-1)
        if config.state_weight:
            inputs = torch.cat([steps.obs, steps.action], -1)
            out = self._state(params, latent, inputs)
            error = (out - steps.next_obs[:, None]).square().sum(-1)
            found["state"] = (error * mask).sum(-1)
        if config.task_weight:
            out = self._task(params, latent)
            error = (out - steps.task[:, None]).square().sum(-1)
            # As the others, an error for each step
            found["task"] = error * steps.mask.sum(-1)[:, None]
        return found
