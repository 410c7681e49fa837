"""What agents with a recurrent memory have in common: trials, and PPO on them.

B is the number of tasks, E the number of trials of each task, n the number of all trials, L the
number of steps of the longest trial.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agents.base import AgentSetup, AgentState, Metrics, Rollout
from metarl.agents.moments import Moments
from metarl.agents.recurrent.actor import NumPyParams, RecurrentActor
from metarl.agents.recurrent.actor_critic import ActorCritic, SequenceNetwork
from metarl.agents.recurrent.expected_rewards import with_expected_rewards
from metarl.agents.recurrent.inputs import InputEncoder
from metarl.agents.recurrent.learner import Learner, encode_trials, reward_scale
from metarl.agents.recurrent.memory import Memory
from metarl.agents.recurrent.module import RecurrentModule
from metarl.agents.recurrent.ppo import PPOConfig
from metarl.agents.recurrent.state import TrialState
from metarl.agents.recurrent.trials import Trials, join_episodes
from metarl.agents.vector_adam import VectorAdam, load_optimised, optimised_state
from metarl.core.parallel import MicrobatchPool
from metarl.core.params import Params, as_views, flatten
from metarl.core.timer import Timer
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import NotFinite, check_metrics


class TrialAgent(ABC):
    """Adapts by a recurrent memory, and learns a policy on top of it by PPO on whole trials.

    Attributes:
        network: what PPO trains, as a function of the inputs that `_ppo_inputs` returns.
        params: its parameters.
        encoder: makes the inputs of the memory, with the running moments.
        device, max_adaptations, remembers, max_update_kl: as in `metarl.agents.base.MetaAgent`.
    """

    max_adaptations = None
    remembers = True
    max_update_kl = 1.0

    def __init__(
        self,
        memory: Memory,
        head: ActorCritic,
        network: SequenceNetwork,
        params: Params,
        encoder: InputEncoder,
        update: PPOConfig,
        setup: AgentSetup,
    ) -> None:
        """Assemble the agent.

        Args:
            memory: the memory.
            head: policy and value function.
            network: what PPO trains.
            params: its initial parameters.
            encoder: makes the inputs; with empty moments where values are to be normalised. If
                rewards are, the learner divides them by the standard deviation of returns.
            update: settings of the update.
            setup: spaces, device and threads.
        """
        self._memory, self._head, self.encoder, self._update_config = memory, head, encoder, update
        self.device, self._obs_dim = setup.device, math.prod(setup.observation_space.shape)
        self.params = as_views({name: value.to(self.device) for name, value in params.items()})
        self._adam = VectorAdam(flatten(self.params), update.lr)
        self._returns = None if encoder.reward is None else Moments.empty(1)
        self._num_updates = 0
        expected = update.reward == "expected"
        self._expected_reward = setup.expected_reward if expected else None
        self.network = network
        self._pool = MicrobatchPool(setup.num_threads)
        self._learner = Learner(network, update, setup.device, self._pool)

    def initial_state(self, num_tasks: int, *, training: bool = False) -> TrialState:
        """Return the states before the first episode of a trial: an empty memory."""
        # Inputs have a number for each output of the policy, as discrete actions are one-hot.
        return TrialState.empty(num_tasks, self._memory.size, self._head.num_outputs)

    def next_task(self, state: TrialState) -> TrialState:
        """Return the states as they are: nothing tells the memory that the task has changed."""
        return state

    def actor(self, state: TrialState, *, deterministic: bool = False) -> RecurrentActor:
        """Return the actor that goes on from the memory of each trial."""
        return RecurrentActor(
            self._memory,
            self._head,
            self._acting_arrays(),
            self.encoder,
            state,
            self._obs_dim,
            self._features,
            deterministic=deterministic,
        )

    def policy_module(self, state: TrialState) -> RecurrentModule:
        """Return the policy that goes on from the memory of one trial; see
        `metarl.agents.optional.policy_module`."""
        params = self._acting_arrays()
        return RecurrentModule(
            self._memory.cell(params),
            self._head.module(params),
            self.encoder,
            state,
            self._obs_dim,
            self._context_module(params),
        )

    @abstractmethod
    def _context_module(self, params: NumPyParams) -> nn.Module | None:
        """Return what the policy sees beside the observation, as a function of the memory's output;
        None if it sees this output alone."""

    def adapt(self, state: TrialState, episodes: Episodes) -> TrialState:
        """Return the states after episodes; those of episodes that were left out do not change."""
        return state.after(episodes, self.encoder)

    def _acting_params(self) -> Params:
        """Return the parameters of the memory and of the policy."""
        return self.params

    def _acting_arrays(self) -> NumPyParams:
        """Return the same parameters as float32 arrays."""
        acting = self._acting_params().items()
        return {name: value.detach().cpu().float().numpy() for name, value in acting}

    @property
    @abstractmethod
    def _features(self) -> Callable[[NumPyParams, np.ndarray, np.ndarray], np.ndarray]:
        """The inputs of the policy; see `RecurrentActor`. The function does not hold the agent, as
        actors may travel to other machines."""

    def _ppo_inputs(self, trials: Trials) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs of what PPO trains at all steps of trials, (n, L, number of inputs),
        and those after the last step of each episode, with the observation that was not acted on,
        of the same shape."""
        return encode_trials(self.encoder, trials)

    def update(
        self, rollouts: Sequence[Rollout], rng: np.random.Generator, timer: Timer
    ) -> Metrics:
        """Update the parameters by PPO on whole trials, and the running moments.

        Args:
            rollouts: the episodes of the trials, phase by phase. A trial with an episode that was
                left out is left out.
            rng: draws the minibatches.
            timer: measures the sections of the update.

        Raises:
            NotFinite: if the loss, its gradient or a diagnostic is not finite, or if no trial is
                left. The agent is then unchanged.
            ConfigError: if it learns from expected rewards, and episodes differ in length.
        """
        with timer("advantages"):
            phases = [episodes for _, episodes in rollouts]
            played = rewarded = join_episodes(phases)
            if self._expected_reward is not None:
                rewarded = join_episodes(with_expected_rewards(phases, self._expected_reward))
            trials = played.weighed()
            if not len(trials.mask):
                raise NotFinite("the mean return of no trials")
            returns, scale = reward_scale(self._returns, rewarded, self._update_config)
            inputs = self._ppo_inputs(trials)
            learner = self._learner
            batch, explained = learner.batch(self.params, rewarded.weighed(), *inputs, scale)
        before = self._adam.state_dict()
        try:
            params, metrics = self._learner.learn(
                self.params, batch, self._adam, self._num_updates, rng, timer
            )
            metrics["explained_variance"] = explained
            if "policy.log_std" in params:
                metrics["policy_std"] = float(self._head.log_std(params).exp().mean())
            check_metrics(metrics)
        except NotFinite:
            self._adam.load_state_dict(before)
            raise
        self.params, self._returns, self._num_updates = params, returns, self._num_updates + 1
        self._update_moments(played)  # last, since the episodes were played by those of before
        return metrics

    def _update_moments(self, trials: Trials) -> None:
        obs, reward = self.encoder.obs, self.encoder.reward
        self.encoder = replace(
            self.encoder,
            obs=obs and obs.with_rows(trials.obs[trials.mask]),
            reward=reward and reward.with_rows(trials.reward[trials.mask][:, None]),
        )

    @property
    def _moments(self) -> dict[str, Moments]:
        found = {
            "observations": self.encoder.obs,
            "rewards": self.encoder.reward,
            "returns": self._returns,
        }
        return {name: each for name, each in found.items() if each is not None}

    def state_dict(self) -> AgentState:
        """Return a copy, on the CPU, of parameters, optimiser and running moments."""
        state: AgentState = optimised_state("params", "adam", self.params, self._adam)
        for name, moments in self._moments.items():
            state |= moments.state_dict(name)
        return {**state, "num_updates": self._num_updates}

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        """Load the state of another agent of the same config."""
        self.params = load_optimised("params", "adam", state, self.params, self._adam)
        tensors = {name: torch.as_tensor(value) for name, value in state.items()}
        found = {name: Moments.from_state(tensors, name) for name in self._moments}
        self.encoder = replace(
            self.encoder, obs=found.get("observations"), reward=found.get("rewards")
        )
        self._returns = found.get("returns")
        self._num_updates = int(state["num_updates"])
