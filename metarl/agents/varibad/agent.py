"""The agent of VariBAD (Zintgraf et al. 2020): a policy that sees its belief over the task.

n is the number of trials, L the number of steps of the longest trial, d the size of the latent
variable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agents.base import AgentSetup, AgentState, Metrics, Rollout
from metarl.agents.optional import Beliefs
from metarl.agents.recurrent.actor import NumPyParams
from metarl.agents.recurrent.actor_critic import ActorCritic
from metarl.agents.recurrent.agent import TrialAgent
from metarl.agents.recurrent.inputs import InputEncoder
from metarl.agents.recurrent.ppo import PPOConfig
from metarl.agents.recurrent.state import TrialState
from metarl.agents.recurrent.trials import Trials
from metarl.agents.varibad.belief import BeliefEncoder, BeliefNetwork
from metarl.agents.varibad.decoders import Decoders
from metarl.agents.varibad.model import Model, ModelConfig
from metarl.agents.varibad.replay import TrialBuffer
from metarl.agents.vector_adam import VectorAdam, load_optimised, optimised_state
from metarl.core.parallel import MicrobatchPool
from metarl.core.params import Params, as_views, flatten
from metarl.core.policy_module import linear_module
from metarl.core.timer import Timer
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import NotFinite

FORWARD_STEPS = 16_000
"""Number of steps whose beliefs a thread computes together."""


class VariBADAgent(TrialAgent):
    """Adapts by a belief over a latent variable, inferred from all that a trial has shown. The
    encoder learns to predict rewards (and states), and PPO trains a policy of observation and
    belief; its gradient does not reach the encoder.

    Attributes:
        belief_encoder: the encoder.
        model_params: its parameters and those of the decoders.
    """

    def __init__(
        self,
        belief_encoder: BeliefEncoder,
        head: ActorCritic,
        decoders: Decoders,
        params: tuple[Params, Params],
        encoder: InputEncoder,
        update: PPOConfig,
        model: ModelConfig,
        setup: AgentSetup,
    ) -> None:
        """Assemble the agent.

        Args:
            belief_encoder: the encoder.
            head: policy and value function.
            decoders: the decoders.
            params: initial parameters of the head, and of encoder and decoders.
            encoder, update, setup: as in `TrialAgent`.
            model: settings of the training of encoder and decoders.
        """
        network = BeliefNetwork(head)
        super().__init__(belief_encoder.memory, head, network, params[0], encoder, update, setup)
        self.belief_encoder = belief_encoder
        model_params = {name: value.to(self.device) for name, value in params[1].items()}
        self.model_params = as_views(model_params)
        self._model_adam = VectorAdam(flatten(self.model_params), model.lr)
        self._model = Model(belief_encoder, decoders, model, setup.device, setup.num_threads)
        self._buffer = TrialBuffer(model.buffer)
        # The thread of the model; on a GPU, model and policy take turns.
        self._beside = self._pool if setup.device.type == "cpu" else MicrobatchPool(1)

    def record(self, iteration: int, phases: Sequence[Episodes]) -> int:
        """Keep the trials of an iteration for the model of the tasks."""
        return self._buffer.add(iteration, phases)

    def beliefs(self, state: TrialState, episodes: Episodes) -> Beliefs:
        """Return the beliefs by which the steps of episodes are acted; see
        `metarl.agents.optional.beliefs`."""
        shape = episodes.mask.shape  # (B, E, T)
        inputs = state.inputs(episodes, self.encoder)
        memory = np.broadcast_to(state.memory, (*shape[:2], self._memory.size))
        states = self._memories(inputs.reshape(-1, *inputs.shape[2:]), memory)
        output = states.reshape(-1, self._memory.size)[:, : self._memory.output_size]
        found = self.belief_encoder.of_output(self._acting_arrays(), output).reshape(*shape, -1)
        mean, log_var = np.split(found, 2, axis=-1)
        return Beliefs(mean, np.exp(0.5 * log_var))

    def _acting_params(self) -> Params:
        return {**self.model_params, **self.params}

    @property
    def _features(self) -> Callable[[NumPyParams, np.ndarray, np.ndarray], np.ndarray]:
        """Observations as in the inputs, and beliefs."""
        return partial(policy_inputs, self._obs_dim)

    def _context_module(self, params: NumPyParams) -> nn.Module:
        return linear_module(params["belief.weight"], params["belief.bias"])

    def _ppo_inputs(self, trials: Trials) -> tuple[np.ndarray, np.ndarray]:
        params = self._acting_arrays()
        inputs, after = super()._ppo_inputs(trials)
        states = self._memories(inputs, np.zeros((len(inputs), self._memory.size)))
        size = self._head.num_inputs

        def features(inputs: np.ndarray, states: np.ndarray) -> np.ndarray:
            output = states[:, : self._memory.output_size]
            return self._features(params, inputs, output)

        flat = features(inputs.reshape(-1, inputs.shape[-1]), states.reshape(-1, states.shape[-1]))
        beyond = np.zeros((*after.shape[:2], size), np.float32)
        ends = trials.ends
        beyond[ends] = features(after[ends], self._memory.step(params, after[ends], states[ends]))
        return flat.reshape(*inputs.shape[:2], size), beyond

    def _memories(self, inputs: np.ndarray, memory: np.ndarray) -> np.ndarray:
        """Return the memory after each step, (n, L, memory_size), of inputs (n, L, num_inputs) and
        the memory before the first step, n * memory_size numbers."""
        params = {name: value.cpu() for name, value in self.model_params.items()}
        x = torch.from_numpy(inputs)
        start = torch.from_numpy(memory.reshape(len(x), -1).astype(np.float32))

        @torch.no_grad()
        def work(rows: Tensor) -> Tensor:
            return self._memory(params, x[rows].transpose(0, 1), start[rows]).transpose(0, 1)

        parts = torch.arange(len(x)).split(max(1, FORWARD_STEPS // x.shape[1]))
        return torch.cat(self._pool.map(work, parts)).numpy()

    def update(
        self, rollouts: Sequence[Rollout], rng: np.random.Generator, timer: Timer
    ) -> Metrics:
        """Update encoder and decoders by trials of the buffer, and the policy by PPO on the
        rollouts, whose beliefs are those that it acted by. Neither needs the other's result, so
        with several threads they go on side by side.

        Raises:
            NotFinite: as `TrialAgent.update`, also for the model. The agent is then unchanged.
        """
        if not len(self._buffer):
            raise NotFinite("the mean return of no trials")
        before = self.state_dict()
        with timer("model"):
            minibatches = self._model.draw(self._buffer, rng)
            learned = self._beside.start(
                partial(
                    self._model.learn,
                    self.model_params,
                    self._model_adam,
                    minibatches,
                    self.encoder,
                    self._num_updates,
                )
            )
        try:
            metrics = super().update(rollouts, rng, timer)
            with timer("model"):  # as far as it takes longer than the policy
                params, found = learned.result()
        except NotFinite:
            wait([learned])
            self.load_state_dict(before)
            raise
        self.model_params = params
        return metrics | found

    def state_dict(self) -> AgentState:
        """Return a copy, on the CPU, of all parameters, optimisers and running moments."""
        model = optimised_state("model", "model_adam", self.model_params, self._model_adam)
        return {**super().state_dict(), **model}

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        """Load the state of another agent of the same config."""
        super().load_state_dict(state)
        self.model_params = load_optimised(
            "model", "model_adam", state, self.model_params, self._model_adam
        )


def policy_inputs(
    obs_dim: int, params: NumPyParams, inputs: np.ndarray, output: np.ndarray
) -> np.ndarray:
    """Return observations as in the inputs of the memory, and the beliefs of its output."""
    belief = BeliefEncoder.of_output(params, output)
    return np.concatenate([inputs[:, :obs_dim], belief], axis=1)
