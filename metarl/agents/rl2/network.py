"""The recurrent network of RL2: a memory, a policy and a value function on top of it.

n is the number of sequences (trials), T the number of steps, H the size of the memory's output.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from metarl.agents.recurrent.actor_critic import (
    ActorCritic,
    ActorCriticConfig,
    Predictions,
    to_tensors,
)
from metarl.agents.recurrent.memory import Memory, MemoryConfig
from metarl.core.distributions import Distribution
from metarl.core.params import Params


class NetworkConfig(ActorCriticConfig, MemoryConfig):
    """The network: a recurrent memory, from whose output policy and value function are computed."""


class RecurrentNetwork:
    """The recurrent network as a function of its parameters.

    Attributes:
        memory: the memory.
        head: policy and value function, of the memory's output.
        memory_size: numbers of the memory.
    """

    def __init__(self, config: NetworkConfig, num_inputs: int, actions: Box | Discrete) -> None:
        """Set up for inputs of a size and an action space."""
        self.memory = Memory(config, num_inputs)
        self.head = ActorCritic(config, config.size, actions)
        self.memory_size = self.memory.size

    @property
    def num_weights(self) -> int:
        """Number of weights of the memory and of all layers."""
        return self.memory.num_weights + self.head.num_weights

    def init(self, rng: np.random.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw the initial parameters."""
        return to_tensors({**self.memory.init(rng), **self.head.init(rng)}, dtype)

    def __call__(self, params: Params, inputs: Tensor, memory: Tensor) -> Predictions:
        """Return the predictions at the steps of n sequences; see `SequenceNetwork`."""
        states = self.memory(params, inputs.transpose(0, 1), memory)
        policy, value = self.head(params, states[..., : self.memory.output_size])
        return Predictions(policy, value, states.transpose(0, 1))

    def distribution(self, params: Params, outputs: Tensor) -> Distribution:
        return self.head.distribution(params, outputs)
