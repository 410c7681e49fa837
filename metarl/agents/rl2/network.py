"""The recurrent network of RL2: a memory, and policy and value function of its output, or of the
observation with weights that its output generates.

n is the number of sequences (trials), T the number of steps, H the size of the memory's output.
"""

from __future__ import annotations

import math

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
from metarl.agents.recurrent.hypernetwork import HyperActorCritic
from metarl.agents.recurrent.inputs import input_size
from metarl.agents.recurrent.memory import Memory, MemoryConfig
from metarl.core.distributions import Distribution
from metarl.core.params import Params


class NetworkConfig(ActorCriticConfig, MemoryConfig):
    """The network: a recurrent memory, from whose output policy and value function are computed."""


class RecurrentNetwork:
    """The recurrent network as a function of its parameters.

    Attributes:
        memory: the memory.
        head: policy and value function, of the memory's output; with a hypernetwork of observation
            and memory's output.
        memory_size: numbers of the memory.
    """

    def __init__(self, config: NetworkConfig, observations: Box, actions: Box | Discrete) -> None:
        """Set up for an observation and an action space."""
        self.memory = Memory(config, input_size(observations, actions))
        self._obs_dim = math.prod(observations.shape) if config.hypernetwork else 0
        self.head = (
            HyperActorCritic(config, self._obs_dim, config.size, actions)
            if config.hypernetwork
            else ActorCritic(config, config.size, actions)
        )
        self.memory_size = self.memory.size

    def init(self, rng: np.random.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw the initial parameters."""
        return to_tensors({**self.memory.init(rng), **self.head.init(rng)}, dtype)

    def __call__(self, params: Params, inputs: Tensor, memory: Tensor) -> Predictions:
        """Return the predictions at the steps of n sequences; see `SequenceNetwork`."""
        states = self.memory(params, inputs.transpose(0, 1), memory)
        features = states[..., : self.memory.output_size]
        if self._obs_dim:
            features = torch.cat([inputs.transpose(0, 1)[..., : self._obs_dim], features], -1)
        policy, value = self.head(params, features)
        return Predictions(policy, value, states.transpose(0, 1))

    def distribution(self, params: Params, outputs: Tensor) -> Distribution:
        return self.head.distribution(params, outputs)
