"""The config of RL2: network, update and normalisation."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from gymnasium.spaces import Box, Discrete

from metarl.agents.annealing import annealed_away
from metarl.agents.base import AgentConfig, AgentSetup, AgentState, check_init_std
from metarl.agents.moments import with_weakened_moments
from metarl.agents.normalization import check_one_normalisation
from metarl.agents.recurrent.inputs import InputEncoder
from metarl.agents.recurrent.ppo import PPOConfig
from metarl.agents.rl2.agent import RL2Agent
from metarl.agents.rl2.network import NetworkConfig, RecurrentNetwork
from metarl.core.layers import check_num_weights
from metarl.envs import TaskFamily
from metarl.rollout.sampling import SamplingConfig

FEW_SEQUENCES = 5  # as many or more are taken together by the learner, if a minibatch has them


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

    learns_sequences: ClassVar[bool] = True
    weighs_tasks: ClassVar[bool] = True
    of_training: ClassVar[tuple[str, ...]] = ("update",)

    def check(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        check_one_normalisation(self, self.running_observations)
        self.network.check_actions(family, "network")

    def check_training(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        self.update.check(family, sampling, normalized=self.normalize_observations)

    def update_memory(self, family: TaskFamily, sampling: SamplingConfig) -> int:
        kept, values, graph = self._update_sizes(family, sampling)
        return 4 * (kept + max(values, graph))  # float32

    def memory_advice(self, family: TaskFamily, sampling: SamplingConfig) -> list[str]:
        _, values, graph = self._update_sizes(family, sampling)
        cut = "a smaller" if self.update.truncate else "a positive"
        advice = ["a smaller --agent.network.size", f"{cut} --agent.update.truncate"]
        return advice if graph > values else advice[:1]

    def _update_sizes(self, family: TaskFamily, sampling: SamplingConfig) -> tuple[int, int, int]:
        """Return how many numbers an update keeps at least of episodes of the whole horizon: the
        trials and their inputs; with these, first the inputs after each step and the memories of
        all trials, in two copies, and then the states of the cell and the products of a
        hypernetwork, with their derivatives, in the sequences of a minibatch that the learner takes
        together."""
        obs_dim, action_dim = math.prod(family.observation_space.shape), family.action_dim
        network = self._network(family.observation_space, family.action_space)
        length = family.horizon * len(sampling.phases)
        num_trials = sampling.num_tasks * sampling.num_episodes
        steps = num_trials * length
        kept = steps * (2 * obs_dim + 2 * action_dim + 3 * network.memory.num_inputs)
        segment = min(length, self.update.truncate or length)
        sequences = max(1, num_trials // self.update.minibatches) * math.ceil(length / segment)
        numbers = 8 * self.network.size + 2 * network.head.num_products
        graph = min(sequences, FEW_SEQUENCES) * segment * numbers
        return kept, steps * (network.memory.num_inputs + 2 * network.memory_size), graph

    def _network(self, observations: Box, actions: Box | Discrete) -> RecurrentNetwork:
        """Return the network for these spaces."""
        return RecurrentNetwork(self.network, observations, actions)

    def schedules(self) -> dict[str, int]:
        return self.update.schedules

    def remarks(self, iterations: int) -> list[str]:
        return annealed_away(self.schedules(), iterations)

    def make(self, setup: AgentSetup) -> RL2Agent:
        check_init_std(self.network.init_std, setup.action_space, "network")
        network = self._network(setup.observation_space, setup.action_space)
        check_num_weights(
            {
                "network.size": (network.memory.num_weights, self.network.size),
                "network.hidden": (network.head.num_weights, self.network.hidden),
            }
        )
        encoder = InputEncoder.make(
            setup, observations=self.running_observations, rewards=self.running_rewards
        )
        return RL2Agent(
            network.memory,
            network.head,
            network,
            network.init(setup.rng),
            encoder,
            self.update,
            setup,
        )

    def may_average(self, name: str) -> bool:
        return name.startswith("params.")

    def transferred(self, state: AgentState) -> AgentState:
        return with_weakened_moments(state)

    def may_transfer(self, name: str) -> bool:
        return not name.startswith("adam.") and name != "num_updates"
