"""Policy and value function of what a trial has shown so far: in torch, where they learn, and in
NumPy, where the policy acts.

n is the number of trials, T the number of steps. Parameters are a dict of tensors; weights are
(in, out), biases (out,).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol, Self

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from pydantic import model_validator
from torch import Tensor, nn

from metarl.core.actors import centre_and_half_width, chosen_index, mlp_outputs
from metarl.core.distributions import Categorical, Distribution, Normal
from metarl.core.errors import ConfigError, check
from metarl.core.layers import dense, orthogonal, tanh
from metarl.core.params import Params
from metarl.core.policy_module import (
    CategoricalModule,
    GaussianModule,
    PolicyModule,
    add_constant,
    mlp_module,
)
from metarl.core.schema import LayerSize, Positive, Section
from metarl.envs import TaskFamily


class ActorCriticConfig(Section):
    """Policy and value function."""

    hidden: tuple[LayerSize, ...] = ()
    """Sizes of the hidden layers of the policy and of the value function."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Nonlinearity of the hidden layers."""
    output_gain: Positive = 0.1
    """Factor on the initial weights of the last layer of the policy; small values begin with
    actions that hardly depend on observations."""
    init_std: Positive = 1.0
    """Initial standard deviation of continuous actions."""
    min_std: Positive = 1e-3
    """Lower bound of the standard deviation. The gradient is 0 below the bound."""
    action_bound: Literal["clip", "tanh"] = "clip"
    """What keeps continuous actions in their space: clip (the environment clips actions beyond it)
    or tanh (the mean of the policy is bounded by tanh too)."""
    hypernetwork: bool = False
    """Whether the weights of policy and value function are linear functions of what the trial has
    shown (of the memory's output, or of the belief), and their only input is the observation."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check(self.init_std >= self.min_std, "init_std", "at least min_std", self.init_std)
        return self

    def check_actions(self, family: TaskFamily, key: str) -> None:
        """Check that `action_bound` fits the action space.

        Args:
            family: whose action space it is. It is asked for if there is a bound to check, as an
                environment in another process may have to be started for it.
            key: path of this section.

        Raises:
            ConfigError: if it does not.
        """
        if self.action_bound != "tanh":
            return
        space = family.action_space
        if isinstance(space, Discrete):
            raise ConfigError(f"{key}.action_bound: discrete actions have no bound")
        if not np.isfinite([space.low, space.high]).all():
            raise ConfigError(f"{key}.action_bound: tanh needs an action space with bounds")


@dataclass(frozen=True)
class Predictions:
    """What a network says at the steps of n sequences.

    Attributes:
        policy: the action distributions.
        value: the values, (n, T).
        memory: the memory after each step, (n, T, memory size).
    """

    policy: Distribution
    value: Tensor
    memory: Tensor


class SequenceNetwork(Protocol):
    """A network over sequences, with or without a memory, as `Learner` trains it.

    Attributes:
        memory_size: numbers of the memory; 0 without one.
    """

    @property
    def memory_size(self) -> int: ...

    def __call__(self, params: Params, inputs: Tensor, memory: Tensor) -> Predictions:
        """Return the predictions at the steps of n sequences.

        Args:
            params: the parameters.
            inputs: (n, T, num_inputs).
            memory: the memory before the first step, (n, memory_size).
        """
        ...

    def distribution(self, params: Params, outputs: Tensor) -> Distribution:
        """Return the action distributions with these means or logits, (n, T, num_outputs)."""
        ...


class ActorCritic:
    """Policy and value function, whose parameters' names begin with "policy." and "value.".

    Attributes:
        config: the settings.
        num_inputs: size of the input of a step.
        num_outputs: number of outputs of the policy: the size of an action, or the number of
            discrete actions.
        num_products: products of two inputs per row, which only a hypernetwork has.
    """

    num_products = 0

    def __init__(self, config: ActorCriticConfig, num_inputs: int, actions: Box | Discrete) -> None:
        """Set up for inputs of a size and an action space."""
        self.config, self.num_inputs = config, num_inputs
        self._sizes = num_inputs, *config.hidden
        if isinstance(actions, Discrete):
            self.num_outputs, self._discrete = int(actions.n), True
        else:
            self.num_outputs, self._discrete = math.prod(actions.shape), False
        # Centre and half width of the action space, (num_outputs,) each, if the mean is bounded
        self._range: tuple[np.ndarray, np.ndarray] | None = None
        if isinstance(actions, Box) and config.action_bound == "tanh":
            self._range = centre_and_half_width(actions)

    @property
    def num_weights(self) -> int:
        return sum(fan_in * fan_out for fan_in, fan_out in self._layer_sizes)

    @property
    def _layer_sizes(self) -> list[tuple[int, int]]:
        """Numbers of inputs and outputs of all layers of the policy and of the value function."""
        ends = self.num_outputs, 1
        return [layer for outputs in ends for layer in pairwise((*self._sizes, outputs))]

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the initial parameters."""
        arrays = {}
        gains = ("policy", self.num_outputs, self.config.output_gain), ("value", 1, 1.0)
        for name, outputs, gain in gains:
            sizes = (*self._sizes, outputs)
            for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
                last = layer == len(sizes) - 2
                weight = (gain if last else math.sqrt(2)) * orthogonal(rng, fan_in, fan_out)
                arrays[f"{name}.weight{layer}"] = weight
                arrays[f"{name}.bias{layer}"] = np.zeros(fan_out)
        if not self._discrete:
            arrays["policy.log_std"] = np.full(self.num_outputs, math.log(self.config.init_std))
        return arrays

    def __call__(self, params: Params, inputs: Tensor) -> tuple[Distribution, Tensor]:
        """Return the action distributions and the values, (n, T), of inputs (T, n, num_inputs)."""
        value = self._mlp(params, "value", inputs)[..., 0]
        outputs = self._mlp(params, "policy", inputs)
        if self._range is not None:
            centre, half_width = (torch.from_numpy(each).to(outputs) for each in self._range)
            outputs = centre + half_width * torch.tanh(outputs)
        return self.distribution(params, outputs.transpose(0, 1)), value.T

    def distribution(self, params: Params, outputs: Tensor) -> Distribution:
        """Return the action distributions with these means or logits, (n, T, num_outputs)."""
        if self._discrete:
            return Categorical(outputs)
        return Normal(outputs, self.log_std(params).view(1, 1, -1))

    def log_std(self, params: Params) -> Tensor:
        """Return the logarithms of the standard deviations of continuous actions, (action_dim,)."""
        return params["policy.log_std"].clamp(min=math.log(self.config.min_std))

    def _mlp(self, params: Params, name: str, x: Tensor) -> Tensor:
        shape, x = x.shape[:-1], x.flatten(0, 1)  # (T n, num_inputs)
        last = len(self.config.hidden)
        for layer in range(last + 1):
            weight, bias = params[f"{name}.weight{layer}"], params[f"{name}.bias{layer}"]
            x = dense(x, weight, bias, relu=self._relu and layer < last)
            if layer < last and not self._relu:
                x = tanh(x)
        return x.unflatten(0, shape)

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        """Draw the random numbers of the actions of one episode, (T, num_outputs)."""
        shape = (horizon, self.num_outputs)
        if self._discrete:
            return rng.gumbel(size=shape).astype(np.float32)
        return rng.standard_normal(shape, dtype=np.float32)

    def actions(
        self, params: Mapping[str, np.ndarray], inputs: np.ndarray, noise: np.ndarray | None
    ) -> np.ndarray:
        """Return actions, (..., action_dim) float32.

        Args:
            params: the parameters.
            inputs: (..., num_inputs).
            noise: random numbers of these actions, (..., num_outputs); None for the mean or the
                mode of the distributions.
        """
        x = self._policy_outputs(params, inputs.reshape(-1, inputs.shape[-1]))
        if self._range is not None:
            centre, half_width = (each.astype(np.float32) for each in self._range)
            x = centre + half_width * np.tanh(x)
        outputs = x.reshape(*inputs.shape[:-1], -1)
        if self._discrete:
            return chosen_index(outputs, noise)
        if noise is None:
            return outputs
        return outputs + self._std(params) * noise

    def module(self, params: Mapping[str, np.ndarray]) -> PolicyModule:
        """Return the policy as a torch module of inputs (n, num_inputs)."""
        network = nn.Sequential(self._policy_network(params))
        if self._discrete:
            return CategoricalModule(network, self.num_inputs, self.num_outputs)
        if self._range is not None:
            network.append(TanhBound(*self._range))
        return GaussianModule(network, self.num_inputs, self._std(params))

    def _policy_outputs(self, params: Mapping[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
        """Return means before bounds or logits, (N, num_outputs), of inputs (N, num_inputs)."""
        return mlp_outputs(self._policy_layers(params), inputs, relu=self._relu)

    def _policy_network(self, params: Mapping[str, np.ndarray]) -> nn.Module:
        """Return the same function as a torch module."""
        return mlp_module(self._policy_layers(params), relu=self._relu)

    @property
    def _relu(self) -> bool:
        return self.config.activation == "relu"

    def _policy_layers(
        self, params: Mapping[str, np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            (params[f"policy.weight{layer}"], params[f"policy.bias{layer}"])
            for layer in range(len(self.config.hidden) + 1)
        ]

    def _std(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the standard deviations of continuous actions, (action_dim,)."""
        return np.exp(np.maximum(params["policy.log_std"], math.log(self.config.min_std)))


class TanhBound(nn.Module):
    """centre + half_width * tanh(x)."""

    centre: Tensor
    half_width: Tensor

    def __init__(self, centre: np.ndarray, half_width: np.ndarray) -> None:
        super().__init__()
        add_constant(self, "centre", centre)
        add_constant(self, "half_width", half_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.centre + self.half_width * torch.tanh(x)


def to_tensors(arrays: Mapping[str, np.ndarray], dtype: torch.dtype) -> Params:
    """Return arrays of initial parameters as tensors."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(array)).to(dtype)
        for name, array in arrays.items()
    }
