"""The agent of RL2 (Duan et al. 2016; Wang et al. 2016): a recurrent policy whose memory goes on
over the episodes of a trial.

B is the number of tasks, E the number of trials of each task, n the number of all trials, L the
number of steps of the longest trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metarl.agents.base import AgentState, Metrics, Rollout
from metarl.agents.rl2.actor import RecurrentActor
from metarl.agents.rl2.inputs import InputEncoder
from metarl.agents.rl2.learner import Learner, encode_trials, reward_scale
from metarl.agents.rl2.moments import Moments
from metarl.agents.rl2.network import RecurrentNetwork
from metarl.agents.rl2.ppo import PPOConfig
from metarl.agents.rl2.trials import join_episodes
from metarl.agents.vector_adam import VectorAdam
from metarl.core.params import Params, flatten
from metarl.core.timer import Timer
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import NotFinite


@dataclass(frozen=True)
class RL2State:
    """The states of trials between two episodes, E of each of B tasks; E is 1 before the first
    episode, whatever the number of trials.

    Attributes:
        memory: (B, E, memory_size).
        action: the last action as a part of inputs, (B, E, k); 0 before the first episode.
        reward: the last reward, (B, E).
        anew: whether an episode has just ended, (B, E) bool.
    """

    memory: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    anew: np.ndarray


class RL2Agent:
    """Adapts by the memory of a recurrent policy, which reinforcement learning trains.

    Attributes:
        network: the network.
        params: its parameters.
        update_config: settings of the update.
        encoder: makes the inputs, with the running moments.
        device, max_adaptations, remembers, max_update_kl: as in `metarl.agents.base.MetaAgent`.
    """

    max_adaptations = None
    remembers = True
    max_update_kl = 1.0

    def __init__(
        self,
        network: RecurrentNetwork,
        params: Params,
        encoder: InputEncoder,
        update_config: PPOConfig,
        obs_dim: int,
        device: torch.device,
        num_threads: int = 1,
        *,
        scale_rewards: bool = True,
    ) -> None:
        """Assemble the agent.

        Args:
            network: the network.
            params: its initial parameters.
            encoder: makes the inputs; with empty moments where values are to be normalised.
            update_config: settings of the update.
            obs_dim: size of an observation.
            device: the device of the learner.
            num_threads: number of threads of the learner on a CPU; no influence on results.
            scale_rewards: whether the learner divides rewards by the standard deviation of returns.
        """
        self.network, self.encoder, self.update_config = network, encoder, update_config
        self.device, self._obs_dim = device, obs_dim
        self.params = {name: value.to(device) for name, value in params.items()}
        self._adam = VectorAdam(flatten(self.params), update_config.lr)
        self._returns = Moments.empty(1) if scale_rewards else None
        self._num_updates = 0
        self._learner = Learner(network, update_config, device, num_threads)

    def initial_state(self, num_tasks: int, *, training: bool = False) -> RL2State:
        """Return the states before the first episode of a trial: an empty memory."""
        shape = (num_tasks, 1)
        action_size = self.network.num_inputs - self._obs_dim - 2
        return RL2State(
            np.zeros((*shape, self.network.memory_size), np.float32),
            np.zeros((*shape, action_size), np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, bool),
        )

    def next_task(self, state: RL2State) -> RL2State:
        """Return the states as they are: nothing tells the memory that the task has changed."""
        return state

    def actor(self, state: RL2State, *, deterministic: bool = False) -> RecurrentActor:
        """Return the actor that goes on from the memory of each trial."""
        params = {name: value.detach().cpu().float().numpy() for name, value in self.params.items()}
        bound = None if self.network.bound is None else self.network.bound.float().numpy()
        return RecurrentActor(
            self.network.config,
            params,
            self.encoder,
            bound,
            vars(state),
            self._obs_dim,
            deterministic=deterministic,
        )

    def adapt(self, state: RL2State, episodes: Episodes) -> RL2State:
        """Return the states after episodes; those of episodes that were left out do not change."""
        assert episodes.memory is not None
        played = episodes.episode_mask
        last = np.maximum(episodes.mask.sum(axis=2) - 1, 0)[..., None]  # (B, E, 1)
        action = np.take_along_axis(episodes.action, last[..., None], axis=2)[:, :, 0]
        reward = np.take_along_axis(episodes.reward, last, axis=2)[..., 0]
        found = {
            "memory": episodes.memory,
            "action": self.encoder.encode_action(action),
            "reward": reward,
            "anew": played,
        }
        return RL2State(
            **{
                name: np.where(played if value.ndim == 2 else played[..., None], value, before)
                for (name, value), before in zip(found.items(), vars(state).values(), strict=True)
            }
        )

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
        """
        before = self._adam.state_dict()
        with timer("advantages"):
            trials = join_episodes([episodes for _, episodes in rollouts])
            if not len(trials.mask):
                raise NotFinite("the mean return of no trials")
            returns, scale = reward_scale(self._returns, trials, self.update_config)
            inputs = encode_trials(self.encoder, trials)
            batch, explained = self._learner.batch(self.params, trials, *inputs, scale)
        lr = self._annealed_lr()
        try:
            params, metrics = self._learner.learn(self.params, batch, self._adam, lr, rng, timer)
            metrics |= {"explained_variance": explained, "lr": lr}
            if "policy.log_std" in params:
                metrics["policy_std"] = float(params["policy.log_std"].exp().mean())
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise NotFinite(name)
        except NotFinite:
            self._adam.load_state_dict(before)
            raise
        self.params, self._returns, self._num_updates = params, returns, self._num_updates + 1
        # Last, since the episodes were played by the moments of before.
        obs, reward = self.encoder.obs, self.encoder.reward
        self.encoder = replace(
            self.encoder,
            obs=obs and obs.with_rows(trials.obs[trials.mask]),
            reward=reward and reward.with_rows(trials.reward[trials.mask][:, None]),
        )
        return metrics

    def _annealed_lr(self) -> float:
        config = self.update_config
        if not config.lr_anneal:
            return config.lr
        return config.lr * max(0.0, 1 - self._num_updates / config.lr_anneal)

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
        state: AgentState = {
            f"params.{name}": value.cpu().clone() for name, value in self.params.items()
        }
        state |= {f"adam.{name}": value for name, value in self._adam.state_dict().items()}
        for name, moments in self._moments.items():
            state |= moments.state_dict(name)
        return {**state, "num_updates": self._num_updates}

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        """Load the state of another agent of the same config."""
        tensors = {name: torch.as_tensor(value) for name, value in state.items()}
        self.params = {name: tensors[f"params.{name}"].to(self.device) for name in self.params}
        names = self._adam.state_dict()
        self._adam.load_state_dict({name: tensors[f"adam.{name}"] for name in names})
        found = {name: Moments.from_state(tensors, name) for name in self._moments}
        self.encoder = replace(
            self.encoder, obs=found.get("observations"), reward=found.get("rewards")
        )
        self._returns = found.get("returns")
        self._num_updates = int(state["num_updates"])
