"""Normalised observations: an agent of any kind that sees them shifted and scaled.

By default it is by constants, the mean and the standard deviation of the observations in episodes
of the untrained agent. They are measured once, and are part of the agent's state. Until then the
agent sees zeros, so that the units of observations influence neither its actions nor the constants.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.agents.base import AgentConfig, AgentState, MetaAgent, Metrics, Rollout, measuring_actor
from metarl.agents.moments import LIMIT, Moments, varying_std
from metarl.agents.optional import (
    Beliefs,
    beliefs,
    has_beliefs,
    has_policy_module,
    keeps_episodes,
    policy_module,
    record,
)
from metarl.core.actors import check_obs_size
from metarl.core.errors import check
from metarl.core.parallel import single_threaded_math
from metarl.core.policy_module import Normalize, NormalizedModule, PolicyModule
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.envs import TaskFamily
from metarl.rollout.collect import Actor, collect, episode_rngs
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import EpisodeDiverged, Failure
from metarl.rollout.sampling import SamplingConfig, sample_meta_batch

PREFIX = "observations."
"""Beginning of the names of mean and standard deviation in the state of an agent."""


class NormalizedAgent:
    """An agent that acts and learns by normalised observations, (obs - mean) / std.

    Attributes:
        agent: the agent that gets the normalised observations.
        mean, std: (obs_dim,) float32; 0 and infinite until they are measured.
        limit: bound of the normalised observations.
        device, max_adaptations, remembers, max_update_kl: as in `metarl.agents.base.MetaAgent`.
    """

    limit = math.inf

    def __init__(self, agent: MetaAgent, obs_dim: int) -> None:
        self.agent = agent
        self.mean: np.ndarray = np.zeros(obs_dim, np.float32)
        self.std: np.ndarray = np.full(obs_dim, np.inf, np.float32)
        self.device = agent.device
        self.max_adaptations, self.max_update_kl = agent.max_adaptations, agent.max_update_kl
        self.remembers = agent.remembers
        if has_beliefs(agent):
            self.beliefs = self._beliefs
        if has_policy_module(agent):
            self.policy_module = self._policy_module
        if keeps_episodes(agent):
            self.record = self._record

    def measure(self, episodes: Episodes) -> None:
        """Set mean and standard deviation to those of the observations in episodes.

        A number that does not vary is shifted only.
        """
        count = episodes.mask.sum()
        # Task by task, since float64 copies of all observations take much memory
        by_task = [obs[mask] for obs, mask in zip(episodes.obs, episodes.mask, strict=True)]
        mean = np.sum([obs.sum(0, dtype=np.float64) for obs in by_task], axis=0) / count
        squares = [((obs - mean) ** 2).sum(0) for obs in by_task]
        std = np.sqrt(np.sum(squares, axis=0) / count)
        self.mean = mean.astype(np.float32)
        self.std = varying_std(mean, std).astype(np.float32)

    def normalize(self, obs: np.ndarray) -> np.ndarray:
        """Return normalised observations, (..., obs_dim) float32.

        Raises:
            UserError: if the observations have another size.
        """
        return normalize(obs, self.mean, self.std, self.limit)

    def _normalize_episodes(self, episodes: Episodes) -> Episodes:
        obs, last_obs = self.normalize(episodes.obs), self.normalize(episodes.last_obs)
        obs[~episodes.mask], last_obs[~episodes.episode_mask] = 0, 0
        return replace(episodes, obs=obs, last_obs=last_obs)

    def initial_state(self, num_tasks: int, *, training: bool = False) -> Any:
        return self.agent.initial_state(num_tasks, training=training)

    def next_task(self, state: Any) -> Any:
        return self.agent.next_task(state)

    def actor(self, state: Any, *, deterministic: bool = False) -> Actor:
        inner = measuring_actor(self.agent, state, deterministic)
        return NormalizedActor(inner, self.mean, self.std, self.limit)

    def adapt(self, state: Any, episodes: Episodes) -> Any:
        return self.agent.adapt(state, self._normalize_episodes(episodes))

    def update(
        self, rollouts: Sequence[Rollout], rng: np.random.Generator, timer: Timer
    ) -> Metrics:
        normalized = [
            Rollout(state, self._normalize_episodes(episodes)) for state, episodes in rollouts
        ]
        return self.agent.update(normalized, rng, timer)

    def _record(self, iteration: int, phases: Sequence[Episodes]) -> int | None:
        return record(self.agent, iteration, [self._normalize_episodes(each) for each in phases])

    def _beliefs(self, state: Any, episodes: Episodes) -> Beliefs | None:
        return beliefs(self.agent, Rollout(state, self._normalize_episodes(episodes)))

    def _policy_module(self, state: Any) -> PolicyModule:
        normalize = Normalize(self.mean, self.std, self.limit)
        return NormalizedModule(policy_module(self.agent, state), normalize)

    def state_dict(self) -> AgentState:
        return {
            **self.agent.state_dict(),
            f"{PREFIX}mean": torch.tensor(self.mean),
            f"{PREFIX}std": torch.tensor(self.std),
        }

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        own = (state[f"{PREFIX}{name}"] for name in ("mean", "std"))
        self.mean, self.std = (torch.as_tensor(value).numpy().copy() for value in own)
        self.agent.load_state_dict(without_own(state))


class RunningNormalizedAgent(NormalizedAgent):
    """An agent that sees observations normalised by the moments of all that it has met so far, at
    most `LIMIT` standard deviations from the mean. They change after each update.

    Attributes:
        moments: the moments; of no observations until they are measured.
    """

    limit = LIMIT

    def __init__(self, agent: MetaAgent, obs_dim: int) -> None:
        super().__init__(agent, obs_dim)
        self.moments = Moments.empty(obs_dim)

    def measure(self, episodes: Episodes) -> None:
        """Count the observations in episodes."""
        # Task by task, since float64 copies of all observations take much memory
        moments = self.moments
        for obs, mask in zip(episodes.obs, episodes.mask, strict=True):
            moments = moments.with_rows(obs[mask])
        self._normalize_by(moments)

    def _normalize_by(self, moments: Moments) -> None:
        self.moments = moments
        if moments.count:
            self.mean, self.std = (x.astype(np.float32) for x in (moments.mean, moments.std))

    def update(
        self, rollouts: Sequence[Rollout], rng: np.random.Generator, timer: Timer
    ) -> Metrics:
        metrics = super().update(rollouts, rng, timer)
        for _, episodes in rollouts:  # last, since they were played by the moments of before
            self.measure(episodes)
        return metrics

    def state_dict(self) -> AgentState:
        return {**self.agent.state_dict(), **self.moments.state_dict(PREFIX.removesuffix("."))}

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        tensors = {name: torch.as_tensor(value) for name, value in state.items()}
        self._normalize_by(Moments.from_state(tensors, PREFIX.removesuffix(".")))
        self.agent.load_state_dict(without_own(state))


def check_one_normalisation(config: AgentConfig, running: bool) -> None:
    """Check that observations are not normalised twice.

    Args:
        config: the config.
        running: its `running_observations`.

    Raises:
        ConfigError: if they are.
    """
    check(
        not (config.normalize_observations and running),
        "running_observations",
        "false with normalize_observations, which normalises them by constants",
        True,
    )


def without_own(state: Mapping[str, Tensor | float | int]) -> AgentState:
    """Return the state of the agent that gets the normalised observations."""
    return {name: value for name, value in state.items() if not name.startswith(PREFIX)}


class NormalizedActor:
    """The actor of a `NormalizedAgent`."""

    def __init__(self, actor: Actor, mean: np.ndarray, std: np.ndarray, limit: float) -> None:
        self._actor, self._constants = actor, (mean, std, limit)

    def __copy__(self) -> NormalizedActor:
        """Return an actor whose steps leave this one as it is."""
        return NormalizedActor(copy.copy(self._actor), *self._constants)

    @property
    def rows(self) -> Callable[[int, int], NormalizedActor] | None:
        inner = getattr(self._actor, "rows", None)
        return inner and (lambda *ends: NormalizedActor(inner(*ends), *self._constants))

    @property
    def memory(self) -> np.ndarray | None:
        return getattr(self._actor, "memory", None)

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return self._actor.noise(rng, horizon)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        obs = normalize(obs, *self._constants)
        return self._actor.act(obs, noise, last_reward, active)


def normalize(obs: np.ndarray, mean: np.ndarray, std: np.ndarray, limit: float) -> np.ndarray:
    """Return (obs - mean) / std within a limit, (..., obs_dim) float32; see
    `NormalizedAgent.normalize`."""
    check_obs_size(obs, len(mean))
    normalized = obs - mean
    normalized /= std
    return normalized if limit == math.inf else np.clip(normalized, -limit, limit, out=normalized)


def measure_observations(
    agent: NormalizedAgent,
    family: TaskFamily,
    sampling: SamplingConfig,
    *,
    seed: int,
    num_threads: int,
    stops: bool,
) -> None:
    """Measure the observations in the episodes of an untrained agent on one meta-batch of tasks.

    Args:
        agent: the agent, whose mean and standard deviation are set.
        family: the task family.
        sampling: the numbers of tasks and episodes.
        seed: the seed of the run.
        num_threads: number of threads of the physics; no influence on results.
        stops: whether an episode that fails is an error; otherwise it is left out.

    Raises:
        EpisodeDiverged: if an episode fails and `stops` is true, or if none is left.
    """
    # Another iteration than that of the episodes, one of which would have the same numbers
    rng = make_rng(seed, Purpose.OBSERVATIONS, iteration=1)
    tasks, task_ids = sample_meta_batch(sampling.replace(sequence=1, drift=0), family, rng)
    num_tasks, num_episodes = sampling.num_tasks, sampling.num_episodes
    failures: list[Failure] = []
    with single_threaded_math():
        episodes = collect(
            family.make_batch(num_tasks * num_episodes, num_threads),
            agent.actor(agent.initial_state(num_tasks, training=True)),
            tasks,
            episode_rngs(seed, Purpose.OBSERVATIONS, num_tasks, num_episodes),
            Timer(),
            failures=None if stops else failures,
            task_ids=task_ids,
        )
    if not episodes.mask.any():
        raise EpisodeDiverged(failures)
    agent.measure(episodes)
