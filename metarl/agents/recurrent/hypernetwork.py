"""Policy and value function whose weights a hypernetwork generates from what a trial has shown
(Beck et al. 2022, "Hypernetworks in Meta-Reinforcement Learning").

N is the number of rows (steps of trials), c the size of the context: of the memory's output, or of
the belief.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.agents.recurrent.actor_critic import ActorCritic, ActorCriticConfig
from metarl.core.layers import tanh
from metarl.core.params import Params
from metarl.core.policy_module import add_constant

Array = TypeVar("Array", np.ndarray, Tensor)


def generated_layer(x: Array, context: Array, weight: Array) -> Array:
    """Return the outputs, (N, out), of a layer of which each row has weights of its own.

    The weights of a row, (in + 1, out) with the biases last, are the sum over k of context[k] times
    weight[:, k].

    Args:
        x: inputs with a last column of ones, (N, in + 1).
        context: (N, c + 1), with a last column of ones.
        weight: (in + 1, c + 1, out).
    """
    inputs, size, outputs = weight.shape
    if inputs < outputs:  # the way with fewer products: of contexts with inputs, or with outputs
        products = x[:, :, None] * context[:, None]
        return products.reshape(-1, inputs * size) @ weight.reshape(-1, outputs)
    each = (x @ weight.reshape(inputs, -1)).reshape(-1, size, outputs)
    return (context[:, None] @ each)[:, 0]


class HyperActorCritic(ActorCritic):
    """Policy and value function of an observation, whose weights are linear in the context. The
    inputs are observations and contexts, one after the other.

    At first the weights are those of an ordinary network, whatever the context is ("bias-HyperInit"
    of Beck et al. 2022).
    """

    def __init__(
        self,
        config: ActorCriticConfig,
        obs_dim: int,
        context_size: int,
        actions: Box | Discrete,
    ) -> None:
        """Set up for sizes of an observation and of a context, and an action space."""
        super().__init__(config, obs_dim, actions)
        self.num_inputs, self._context_size = obs_dim + context_size, context_size

    @property
    def num_weights(self) -> int:
        size = self._context_size + 1
        return sum((fan_in + 1) * size * fan_out for fan_in, fan_out in self._layer_sizes)

    @property
    def num_products(self) -> int:
        """Products of contexts with inputs or outputs of layers, per row."""
        size = self._context_size + 1
        return sum(min(fan_in + 1, fan_out) * size for fan_in, fan_out in self._layer_sizes)

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        arrays = super().init(rng)
        for name, value in list(arrays.items()):
            if ".weight" in name:
                bias = arrays.pop(name.replace("weight", "bias"))
                own = np.concatenate([value, bias[None]])[:, None]
                others = np.zeros((len(own), self._context_size, len(bias)))
                arrays[name] = np.concatenate([others, own], axis=1)
        return arrays

    def _mlp(self, params: Params, name: str, x: Tensor) -> Tensor:
        activation = torch.relu if self._relu else tanh
        outputs = generated_mlp(self._layers(params, name), x.flatten(0, 1), activation)
        return outputs.unflatten(0, x.shape[:-1])

    def _policy_outputs(self, params: Mapping[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
        activation = positive if self._relu else np.tanh
        return generated_mlp(self._layers(params, "policy"), inputs, activation)

    def _policy_network(self, params: Mapping[str, np.ndarray]) -> nn.Module:
        return GeneratedMLP(self._layers(params, "policy"), relu=self._relu)

    def _layers(self, params: Mapping[str, Array], name: str) -> list[Array]:
        return [params[f"{name}.weight{layer}"] for layer in range(len(self._sizes))]


def generated_mlp(
    layers: Sequence[Array], inputs: Array, activation: Callable[[Array], Array]
) -> Array:
    """Return the outputs, (N, out), of MLPs with generated weights.

    Args:
        layers: the weight of each layer; see `generated_layer`.
        inputs: observations and contexts, (N, obs_dim + c).
        activation: the nonlinearity between the layers.
    """
    obs_dim = len(layers[0]) - 1
    x, context = inputs[:, :obs_dim], with_ones(inputs[:, obs_dim:])
    for number, weight in enumerate(layers):
        if number:
            x = activation(x)
        x = generated_layer(with_ones(x), context, weight)
    return x


def with_ones(x: Array) -> Array:
    """Return rows (N, k) with a further column of ones."""
    if isinstance(x, Tensor):
        return F.pad(x, (0, 1), value=1.0)
    return np.concatenate([x, np.ones_like(x[:, :1])], axis=1)


def positive(x: np.ndarray) -> np.ndarray:
    """Return the positive part, as relu."""
    return np.maximum(x, 0)


class GeneratedMLP(nn.Module):
    """`generated_mlp` as a torch module."""

    def __init__(self, layers: Sequence[np.ndarray], *, relu: bool) -> None:
        super().__init__()
        self._num_layers, self._activation = len(layers), torch.relu if relu else torch.tanh
        for number, weight in enumerate(layers):
            add_constant(self, f"weight{number}", weight)

    def forward(self, inputs: Tensor) -> Tensor:
        layers = [self.get_buffer(f"weight{number}") for number in range(self._num_layers)]
        return generated_mlp(layers, inputs, self._activation)
