"""The config of VariBAD: encoder, policy, update, model and normalisation."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch

from metarl.agents.annealing import annealed_away
from metarl.agents.base import AgentConfig, AgentSetup, AgentState, check_init_std
from metarl.agents.moments import with_weakened_moments
from metarl.agents.normalization import check_one_normalisation
from metarl.agents.recurrent.actor_critic import ActorCritic, ActorCriticConfig, to_tensors
from metarl.agents.recurrent.hypernetwork import HyperActorCritic
from metarl.agents.recurrent.inputs import InputEncoder, input_size
from metarl.agents.recurrent.ppo import PPOConfig
from metarl.agents.varibad.agent import VariBADAgent
from metarl.agents.varibad.belief import BeliefEncoder, EncoderConfig
from metarl.agents.varibad.decoders import DecoderConfig, Decoders
from metarl.agents.varibad.model import ROWS, ModelConfig
from metarl.core.errors import check
from metarl.core.layers import check_num_weights
from metarl.core.schema import LayerSize
from metarl.envs import TaskFamily
from metarl.rollout.sampling import SamplingConfig


class BeliefPolicyConfig(ActorCriticConfig):
    """Policy and value function of observation and belief."""

    hidden: tuple[LayerSize, ...] = (64,)
    """Sizes of the hidden layers of the policy and of the value function."""


class VariBADConfig(AgentConfig):
    """VariBAD: a policy that sees its belief over the task, which an encoder infers."""

    kind: Literal["varibad"] = "varibad"
    """The kind of agent."""
    encoder: EncoderConfig = EncoderConfig()
    policy: BeliefPolicyConfig = BeliefPolicyConfig()
    update: PPOConfig = PPOConfig()
    decoder: DecoderConfig = DecoderConfig()
    model: ModelConfig = ModelConfig()
    running_observations: bool = True
    """Whether observations are shifted and scaled by their running mean and standard deviation."""
    running_rewards: bool = True
    """Whether rewards are divided by running standard deviations: those of rewards in the inputs of
    the encoder and where they are decoded, and of returns where the policy learns."""

    of_training: ClassVar[tuple[str, ...]] = ("update", "decoder", "model")

    def check(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        check_one_normalisation(self, self.running_observations)
        self.policy.check_actions(family, "policy")

    def check_training(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        self.update.check(family, sampling, normalized=self.normalize_observations)
        truncate, expected = self.update.truncate, "0, as the policy of varibad has no memory"
        check(truncate == 0, "update.truncate", expected, truncate)
        trials, kept = self.model.trials, self.model.buffer
        check(trials <= kept, "model.trials", f"at most {kept:,}, the model.buffer", trials)
        decoder = self.decoder
        weights = decoder.reward_weight, decoder.state_weight, decoder.task_weight
        check(any(weights), "decoder.reward_weight", "more than 0 if no other decoder is used", 0.0)

    def replay_memory(self, family: TaskFamily, sampling: SamplingConfig) -> int:
        size = math.prod(family.observation_space.shape) + family.action_dim + 1
        return self.model.buffer * self._length(family, sampling) * 4 * size  # float32

    def update_memory(self, family: TaskFamily, sampling: SamplingConfig) -> int:
        """The bytes of the inputs and memories of all trials, and of the decoders' layers at all
        steps for all bounds of the trials that a thread takes together, with their derivatives."""
        obs_dim, length = math.prod(family.observation_space.shape), self._length(family, sampling)
        num_inputs = input_size(family.observation_space, family.action_space)
        steps = sampling.num_tasks * sampling.num_episodes * length
        kept = steps * (2 * obs_dim + 4 * num_inputs + self.encoder.size)
        bounds = min(self.model.bounds or length, length)
        rows = min(ROWS, self.model.trials) * bounds * (self.model.decoded or length)
        return 4 * (kept + rows * 2 * (sum(self.decoder.hidden) + 1))

    def memory_advice(self, family: TaskFamily, sampling: SamplingConfig) -> list[str]:
        replay = self.replay_memory(family, sampling)
        if replay > self.update_memory(family, sampling):
            return ["a smaller --agent.model.buffer"]
        return ["fewer --agent.model.bounds", "a positive --agent.model.decoded"]

    @staticmethod
    def _length(family: TaskFamily, sampling: SamplingConfig) -> int:
        return family.horizon * (sampling.adaptation_steps + 1)

    def schedules(self) -> dict[str, int]:
        return {**self.update.schedules, "model.lr_anneal": self.model.lr_anneal}

    def remarks(self, iterations: int) -> list[str]:
        return annealed_away(self.schedules(), iterations)

    def make(self, setup: AgentSetup) -> VariBADAgent:
        observations, actions = setup.observation_space, setup.action_space
        check_init_std(self.policy.init_std, actions, "policy")
        obs_dim, num_inputs = math.prod(observations.shape), input_size(observations, actions)
        beliefs = BeliefEncoder(self.encoder, num_inputs)
        head = (
            HyperActorCritic(self.policy, obs_dim, 2 * beliefs.latent, actions)
            if self.policy.hypernetwork
            else ActorCritic(self.policy, obs_dim + 2 * beliefs.latent, actions)
        )
        decoders = Decoders(self.decoder, obs_dim, head.num_outputs, setup.task_dim, beliefs.latent)
        check_num_weights(
            {
                "encoder.size": (beliefs.memory.num_weights, self.encoder.size),
                "policy.hidden": (head.num_weights, self.policy.hidden),
            }
        )
        check_num_weights({"decoder.hidden": (decoders.num_weights, self.decoder.hidden)})
        model = {**beliefs.init(setup.rng), **decoders.init(setup.rng)}
        return VariBADAgent(
            beliefs,
            head,
            decoders,
            (to_tensors(head.init(setup.rng), torch.float32), to_tensors(model, torch.float32)),
            InputEncoder.make(
                setup, observations=self.running_observations, rewards=self.running_rewards
            ),
            self.update,
            self.model,
            setup,
        )

    def may_average(self, name: str) -> bool:
        return name.startswith(("params.", "model."))

    def transferred(self, state: AgentState) -> AgentState:
        return with_weakened_moments(state)

    def may_transfer(self, name: str) -> bool:
        return not name.startswith(("adam.", "model_adam.")) and name != "num_updates"
