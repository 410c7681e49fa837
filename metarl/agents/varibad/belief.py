"""The belief over the task: a recurrent encoder of what a trial has shown so far, and the policy
that sees its output.

n is the number of trials, T the number of steps, d the size of the latent variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from metarl.agents.recurrent.actor_critic import ActorCritic, Predictions
from metarl.agents.recurrent.memory import Memory, MemoryConfig
from metarl.core.distributions import Distribution
from metarl.core.layers import glorot
from metarl.core.params import Params


class EncoderConfig(MemoryConfig):
    """The encoder: a recurrent memory, from whose output the belief is computed."""

    latent: Annotated[int, Field(ge=1, le=1024)] = 5
    """Size of the latent variable that stands for the task."""


class BeliefEncoder:
    """The belief N(mean, exp(log_var)) over the latent variable, diagonal, after each step.

    Attributes:
        memory: the recurrent memory.
        latent: d.
    """

    def __init__(self, config: EncoderConfig, num_inputs: int) -> None:
        self.memory, self.latent = Memory(config, num_inputs), config.latent

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the initial parameters."""
        size, outputs = self.memory.output_size, 2 * self.latent
        return {
            **self.memory.init(rng),
            "belief.weight": glorot(rng, size, outputs),
            "belief.bias": np.zeros(outputs),
        }

    def __call__(self, params: Params, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log variances of the beliefs in trials from their beginning, (n, T, d)
        each.

        Args:
            params: the parameters.
            inputs: (n, T, num_inputs).
        """
        start = inputs.new_zeros(len(inputs), self.memory.size)
        states = self.memory(params, inputs.transpose(0, 1), start)
        hidden = states[..., : self.memory.output_size].flatten(0, 1)
        found = torch.addmm(params["belief.bias"], hidden, params["belief.weight"])
        mean, log_var = found.unflatten(0, states.shape[:2]).transpose(0, 1).chunk(2, -1)
        return mean, log_var

    @staticmethod
    def of_output(params: Mapping[str, np.ndarray], output: np.ndarray) -> np.ndarray:
        """Return means and log variances, one after the other, (N, 2 d), of outputs of the memory,
        (N, H)."""
        return output @ params["belief.weight"] + params["belief.bias"]


class BeliefNetwork:
    """Policy and value function of observations and beliefs: a network without a memory."""

    memory_size = 0

    def __init__(self, head: ActorCritic) -> None:
        self._head = head

    def __call__(self, params: Params, inputs: Tensor, memory: Tensor) -> Predictions:
        """Return the predictions at the steps of n trials; see `SequenceNetwork`."""
        policy, value = self._head(params, inputs.transpose(0, 1))
        return Predictions(policy, value, inputs.new_zeros(*inputs.shape[:2], 0))

    def distribution(self, params: Params, outputs: Tensor) -> Distribution:
        return self._head.distribution(params, outputs)
