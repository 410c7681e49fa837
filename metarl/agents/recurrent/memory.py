"""A recurrent memory: over sequences in torch, where it learns, and step by step in NumPy, where it
acts.

n is the number of sequences (trials), T the number of steps, H the size of the memory's output.
Parameters are a dict of tensors; weights are (in, out), biases (out,).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agents.recurrent.gru import GRUSequence
from metarl.core.layers import dense, glorot, orthogonal
from metarl.core.params import Params
from metarl.core.schema import LayerSize, Section


class MemoryConfig(Section):
    """The recurrent memory."""

    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent cell."""
    size: LayerSize = 128
    """Size of the memory: units of the cell."""


class Memory:
    """A recurrent cell as a function of its parameters, whose names begin with "memory.".

    Attributes:
        num_inputs: size of the input of a step.
        output_size: H.
        size: numbers of the memory: H for a GRU, 2 H for an LSTM (hidden and cell state).
    """

    def __init__(self, config: MemoryConfig, num_inputs: int) -> None:
        self._gru, self.num_inputs, self.output_size = config.cell == "gru", num_inputs, config.size
        self._gates = 3 if self._gru else 4
        self.size = config.size * (1 if self._gru else 2)

    @property
    def num_weights(self) -> int:
        return self._gates * self.output_size * (self.num_inputs + self.output_size)

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the initial parameters."""
        size, gates = self.output_size, self._gates
        recurrent = [orthogonal(rng, size, size) for _ in range(gates)]
        arrays = {
            "memory.input_weight": np.concatenate(
                [glorot(rng, self.num_inputs, size) for _ in range(gates)], axis=1
            ),
            "memory.input_bias": np.zeros(gates * size),
            "memory.weight": np.concatenate(recurrent, axis=1),
            "memory.bias": np.zeros(gates * size),
        }
        if not self._gru:
            arrays["memory.bias"][size : 2 * size] = 1.0  # so that the cell state is kept at first
        return arrays

    def __call__(self, params: Params, inputs: Tensor, memory: Tensor) -> Tensor:
        """Return the memory after each step, (T, n, size); its first H numbers are the output.

        Args:
            params: the parameters.
            inputs: (T, n, num_inputs).
            memory: the memory before the first step, (n, size).
        """
        if not self._gru:
            return lstm(params, inputs, memory)
        if inputs.device.type != "cpu":
            return fused_gru(params, inputs, memory)
        weight, bias = params["memory.weight"], params["memory.bias"]
        return GRUSequence.apply(project(params, inputs), memory, weight, bias)  # pyright: ignore

    def step(
        self, params: Mapping[str, np.ndarray], inputs: np.ndarray, memory: np.ndarray
    ) -> np.ndarray:
        """Return the memory (N, size) after one step with inputs (N, num_inputs)."""
        size = self.output_size
        projected = inputs @ params["memory.input_weight"]
        projected += params["memory.input_bias"]
        product = memory[:, :size] @ params["memory.weight"]
        product += params["memory.bias"]
        if self._gru:
            gates = sigmoid(projected[:, : 2 * size] + product[:, : 2 * size])
            reset, update = gates[:, :size], gates[:, size:]
            new = reset * product[:, 2 * size :]
            new += projected[:, 2 * size :]
            np.tanh(new, out=new)
            after = memory - new
            after *= update
            after += new
            return after
        gates = projected
        gates += product
        for sigmoids in (gates[:, : 2 * size], gates[:, 3 * size :]):
            sigmoid(sigmoids)
        keep_in, forget, new, out = np.split(gates, 4, axis=1)
        cell = forget * memory[:, size:] + keep_in * np.tanh(new)
        return np.concatenate([out * np.tanh(cell), cell], axis=1)

    def cell(self, params: Mapping[str, np.ndarray]) -> nn.GRUCell | nn.LSTMCell:
        """Return the recurrent cell as a torch module, whose order of the gates is the same."""
        kind = nn.GRUCell if self._gru else nn.LSTMCell
        cell = kind(self.num_inputs, self.output_size)
        names = {"ih": "input_", "hh": ""}
        with torch.no_grad():
            for end, name in names.items():
                weight, bias = (params[f"memory.{name}{part}"] for part in ("weight", "bias"))
                getattr(cell, f"weight_{end}").copy_(torch.tensor(weight.T))
                getattr(cell, f"bias_{end}").copy_(torch.tensor(bias))
        return cell


def lstm(params: Params, inputs: Tensor, memory: Tensor) -> Tensor:
    """Return hidden and cell states of an LSTM, one after the other on the last axis, (T, n, 2 H).

    Args:
        params, inputs, memory: as in `Memory`.
    """
    hidden, cell = memory.chunk(2, -1)
    states = []
    for step in project(params, inputs):
        gates = torch.addmm(params["memory.bias"], hidden, params["memory.weight"]) + step
        keep_in, forget, new, out = gates.chunk(4, -1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(keep_in) * torch.tanh(new)
        hidden = torch.sigmoid(out) * torch.tanh(cell)
        states.append(torch.cat([hidden, cell], -1))
    return torch.stack(states)


def fused_gru(params: Params, inputs: Tensor, memory: Tensor) -> Tensor:
    """Return the hidden states, (T, n, H), by torch's own GRU, which is one operation on a GPU."""
    weights = [params[f"memory.{name}"].T.contiguous() for name in ("input_weight", "weight")]
    flat = [*weights, params["memory.input_bias"], params["memory.bias"]]
    # In cuDNN only a GRU in training has a backward pass.
    settings = {"has_biases": True, "num_layers": 1, "dropout": 0.0, "train": True}
    start = inputs.contiguous(), memory[None].contiguous()
    with warnings.catch_warnings():
        # cuDNN copies the weights into one block at each call, which is little beside the steps.
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous")
        return torch.gru(*start, flat, **settings, bidirectional=False, batch_first=False)[0]


def project(params: Params, inputs: Tensor) -> Tensor:
    """Return inputs (T, n, num_inputs) times their weights, plus the bias, (T, n, gates * H)."""
    weight, bias = params["memory.input_weight"], params["memory.input_bias"]
    return dense(inputs.flatten(0, 1), weight, bias).unflatten(0, inputs.shape[:2])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Replace x by 1 / (1 + exp(-x)), by tanh, which does not overflow and is faster; return it."""
    x *= 0.5
    np.tanh(x, out=x)
    x *= 0.5
    x += 0.5
    return x
