"""The recurrent network of RL2: a memory, a policy and a value function on top of it.

n is the number of sequences (trials), T the number of steps, H the size of the memory's output.
Parameters are a dict of tensors; weights are (in, out), biases (out,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from metarl.agents.rl2.gru import GRUSequence
from metarl.core.distributions import Categorical, Distribution, Normal
from metarl.core.params import Params
from metarl.core.policies import glorot, orthogonal
from metarl.core.schema import Section

Size = Annotated[int, Field(ge=1, le=4096)]
Positive = Annotated[float, Field(gt=0)]


class NetworkConfig(Section):
    """The network: a recurrent memory, from whose output policy and value function are computed."""

    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent cell."""
    size: Size = 128
    """Size of the memory: units of the cell."""
    hidden: tuple[Size, ...] = ()
    """Sizes of the hidden layers of the policy and of the value function, on top of the memory."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Nonlinearity of the hidden layers."""
    output_gain: Positive = 0.1
    """Factor on the initial weights of the last layer of the policy; small values begin with
    actions that hardly depend on observations."""
    init_std: Positive = 1.0
    """Initial standard deviation of continuous actions."""
    min_std: Positive = 1e-3
    """Lower bound of the standard deviation."""
    action_bound: Literal["clip", "tanh"] = "clip"
    """What keeps continuous actions in their space: clip (the environment clips actions beyond it)
    or tanh (the mean of the policy is bounded by tanh too)."""


@dataclass(frozen=True)
class Predictions:
    """What the network says at the steps of n sequences.

    Attributes:
        policy: the action distributions.
        value: the values, (n, T).
        memory: the memory after each step, (n, T, memory size).
    """

    policy: Distribution
    value: Tensor
    memory: Tensor


class RecurrentNetwork:
    """The recurrent network as a function of its parameters.

    Attributes:
        config: the settings.
        num_inputs: size of the input of a step.
        num_outputs: number of outputs of the policy.
        memory_size: numbers of the memory: H for a GRU, 2 H for an LSTM (hidden and cell state).
    """

    def __init__(
        self, config: NetworkConfig, num_inputs: int, num_outputs: int, bound: Tensor | None
    ) -> None:
        """Set up the network.

        Args:
            config: the settings.
            num_inputs: size of the input of a step.
            num_outputs: number of outputs of the policy: the size of an action, or the number of
                actions.
            bound: bound of continuous actions, (num_outputs,); None for discrete actions.
        """
        self.config, self.num_inputs, self.num_outputs = config, num_inputs, num_outputs
        self.bound = bound
        self.gates = 3 if config.cell == "gru" else 4
        self.memory_size = config.size * (1 if config.cell == "gru" else 2)

    @property
    def num_weights(self) -> int:
        """Number of weights of the memory and of all layers."""
        size, hidden = self.config.size, self.config.hidden
        layers = [pairwise((size, *hidden, outputs)) for outputs in (self.num_outputs, 1)]
        memory = self.gates * size * (self.num_inputs + size)
        return memory + sum(fan_in * fan_out for each in layers for fan_in, fan_out in each)

    def init(self, rng: np.random.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw the initial parameters."""
        size, gates = self.config.size, self.gates
        recurrent = [orthogonal(rng, size, size) for _ in range(gates)]
        arrays = {
            "memory.input_weight": np.concatenate(
                [glorot(rng, self.num_inputs, size) for _ in range(gates)], axis=1
            ),
            "memory.input_bias": np.zeros(gates * size),
            "memory.weight": np.concatenate(recurrent, axis=1),
            "memory.bias": np.zeros(gates * size),
        }
        if self.config.cell == "lstm":
            arrays["memory.bias"][size : 2 * size] = 1.0  # so that the cell state is kept at first
        for name, outputs, gain in (
            ("policy", self.num_outputs, self.config.output_gain),
            ("value", 1, 1.0),
        ):
            sizes = (size, *self.config.hidden, outputs)
            for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
                last = layer == len(sizes) - 2
                weight = (gain if last else math.sqrt(2)) * orthogonal(rng, fan_in, fan_out)
                arrays[f"{name}.weight{layer}"] = weight
                arrays[f"{name}.bias{layer}"] = np.zeros(fan_out)
        if self.bound is not None:
            arrays["policy.log_std"] = np.full(self.num_outputs, math.log(self.config.init_std))
        return {
            name: torch.from_numpy(np.ascontiguousarray(array)).to(dtype)
            for name, array in arrays.items()
        }

    def __call__(self, params: Params, inputs: Tensor, memory: Tensor) -> Predictions:
        """Return the predictions at the steps of n sequences.

        Args:
            params: the parameters.
            inputs: (n, T, num_inputs).
            memory: the memory before the first step, (n, memory_size).
        """
        by_step = inputs.transpose(0, 1)
        states = (self._gru if self.gates == 3 else self._lstm)(params, by_step, memory)
        hidden = states[..., : self.config.size]  # (T, n, H)
        value = self._mlp(params, "value", hidden)[..., 0]
        outputs = self._mlp(params, "policy", hidden)
        if self.config.action_bound == "tanh" and self.bound is not None:
            outputs = self.bound.to(outputs) * torch.tanh(outputs)
        policy = self.distribution(params, outputs.transpose(0, 1))
        return Predictions(policy, value.T, states.transpose(0, 1))

    def distribution(self, params: Params, outputs: Tensor) -> Distribution:
        """Return the action distributions with these means or logits, (n, T, num_outputs)."""
        if self.bound is None:
            return Categorical(outputs)
        low = math.log(self.config.min_std)
        return Normal(outputs, params["policy.log_std"].clamp(min=low).view(1, 1, -1))

    def _mlp(self, params: Params, name: str, x: Tensor) -> Tensor:
        activation = torch.tanh if self.config.activation == "tanh" else torch.relu
        shape, x = x.shape[:-1], x.flatten(0, 1).T  # (H, T n)
        for layer in range(len(self.config.hidden) + 1):
            if layer:
                x = activation(x)
            # The matrix products of CPUs, those of the derivatives too, take a third of the time
            # for 6 rows that they take for 6 columns.
            weight, bias = params[f"{name}.weight{layer}"], params[f"{name}.bias{layer}"]
            x = weight.T.contiguous() @ x + bias[:, None]
        return x.T.unflatten(0, shape)

    def _gru(self, params: Params, inputs: Tensor, memory: Tensor) -> Tensor:
        if inputs.device.type == "cpu":
            weight, bias = params["memory.weight"], params["memory.bias"]
            return GRUSequence.apply(project(params, inputs), memory, weight, bias)
        return fused_gru(params, inputs, memory)

    def _lstm(self, params: Params, inputs: Tensor, memory: Tensor) -> Tensor:
        """Return hidden and cell states, one after the other on the last axis."""
        hidden, cell = memory.chunk(2, -1)
        states = []
        for step in project(params, inputs):
            gates = torch.addmm(params["memory.bias"], hidden, params["memory.weight"]) + step
            keep_in, forget, new, out = gates.chunk(4, -1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(keep_in) * torch.tanh(new)
            hidden = torch.sigmoid(out) * torch.tanh(cell)
            states.append(torch.cat([hidden, cell], -1))
        return torch.stack(states)


def project(params: Params, inputs: Tensor) -> Tensor:
    """Return inputs (T, n, num_inputs) times their weights, plus the bias, (T, n, gates * H)."""
    # The bias is the weight of a further input, 1: adding it apart would take another half of the
    # time of the product.
    weight = torch.cat([params["memory.input_weight"], params["memory.input_bias"][None]])
    return (F.pad(inputs, (0, 1), value=1.0).flatten(0, 1) @ weight).unflatten(0, inputs.shape[:2])


def fused_gru(params: Params, inputs: Tensor, memory: Tensor) -> Tensor:
    """Return the hidden states, (T, n, H), by torch's own GRU, which is one operation on a GPU."""
    weights = [params[f"memory.{name}"].T.contiguous() for name in ("input_weight", "weight")]
    flat = [*weights, params["memory.input_bias"], params["memory.bias"]]
    # In cuDNN only a GRU in training has a backward pass.
    settings = {"has_biases": True, "num_layers": 1, "dropout": 0.0, "train": True}
    start = inputs.contiguous(), memory[None].contiguous()
    return torch.gru(*start, flat, **settings, bidirectional=False, batch_first=False)[0]
