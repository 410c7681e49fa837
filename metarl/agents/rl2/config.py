"""The config of RL2: network, update and normalisation."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from gymnasium.spaces import Discrete

from metarl.agents.base import AgentConfig, AgentSetup
from metarl.agents.rl2.agent import RL2Agent
from metarl.agents.rl2.inputs import InputEncoder
from metarl.agents.rl2.moments import Moments
from metarl.agents.rl2.network import NetworkConfig, RecurrentNetwork
from metarl.agents.rl2.ppo import PPOConfig
from metarl.core.errors import ConfigError, check
from metarl.envs import TaskFamily
from metarl.rollout.sampling import SamplingConfig

MAX_TRIAL = 100_000  # steps of a trial, whose graph has to be kept


class RL2Config(AgentConfig):
    """RL2: a recurrent policy, whose memory goes on over the episodes of a trial."""

    kind: Literal["rl2"] = "rl2"
    """The kind of agent."""
    network: NetworkConfig = NetworkConfig()
    update: PPOConfig = PPOConfig()
    running_observations: bool = True
    """Whether observations are shifted and scaled by their running mean and standard deviation."""
    running_rewards: bool = True
    """Whether rewards are divided by running standard deviations: those of rewards in the inputs of
    the network, and of returns where it learns."""

    def check(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        check(
            not (self.normalize_observations and self.running_observations),
            "running_observations",
            "false with normalize_observations, which normalises them by constants",
            True,
        )
        steps = family.horizon * (sampling.adaptation_steps + 1)
        check(
            steps <= MAX_TRIAL,
            "kind",
            f"trials of at most {MAX_TRIAL:,} steps, env.horizon * (sampling.adaptation_steps + 1)",
            steps,
        )
        space = family.action_space
        if isinstance(space, Discrete):
            if self.network.action_bound == "tanh":
                raise ConfigError("network.action_bound: discrete actions have no bound")
        elif self.network.action_bound == "tanh" and not np.isfinite(space.high).all():
            raise ConfigError("network.action_bound: tanh needs an action space with bounds")

    def make(self, setup: AgentSetup) -> RL2Agent:
        space, obs_dim = setup.action_space, math.prod(setup.observation_space.shape)
        discrete = isinstance(space, Discrete)
        size = int(space.n) if discrete else math.prod(space.shape)
        bound = None if discrete else torch.from_numpy(np.asarray(space.high, np.float64).ravel())
        network = RecurrentNetwork(self.network, obs_dim + size + 2, size, bound)
        encoder = InputEncoder(
            num_actions=size if discrete else None,
            obs=Moments.empty(obs_dim) if self.running_observations else None,
            reward=Moments.empty(1) if self.running_rewards else None,
        )
        return RL2Agent(
            network,
            network.init(setup.rng),
            encoder,
            self.update,
            obs_dim,
            setup.device,
            setup.num_threads,
            scale_rewards=self.running_rewards,
        )

    def may_average(self, name: str) -> bool:
        return name.startswith("params.")

    def may_transfer(self, name: str) -> bool:
        return not name.startswith("adam.") and name != "num_updates"
