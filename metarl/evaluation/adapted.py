"""An agent that has adapted to a task, for use in an environment of one's own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from metarl.agents.base import MetaAgent, measuring_actor
from metarl.agents.optional import policy_module
from metarl.core.errors import UserError, check
from metarl.core.parallel import single_threaded_math
from metarl.core.rng import MAX_SEED, Purpose
from metarl.core.timer import Timer
from metarl.envs import TaskFamily
from metarl.evaluation.evaluate import open_to_evaluate, possible_adaptations
from metarl.evaluation.export import EnvPolicy, write_onnx
from metarl.evaluation.live_env import ActionUnits, LiveEnv
from metarl.rollout.collect import Actor, collect, episode_rngs
from metarl.rollout.episodes import PER_TASK, Episodes


class EpisodeState(NamedTuple):
    """What an agent keeps within an episode; see `AdaptedAgent.predict`."""

    actor: Actor


@dataclass
class AdaptedAgent:
    """An agent that has adapted to one task.

    Attributes:
        agent: the agent.
        state: its state for the task.
        family: the task family.
        units: turns its actions into those of the environment.
        returns: undiscounted return of each episode of experience, in order.
        seed: of the actions of `predict`.
        source: the run, its family and its method, by these names.
    """

    agent: MetaAgent
    state: Any
    family: TaskFamily
    units: ActionUnits
    returns: list[float]
    seed: int = 0
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def predict(
        self,
        observation: np.ndarray,
        state: EpisodeState | None = None,
        episode_start: np.ndarray | bool | None = None,
        deterministic: bool = False,
        *,
        reward: np.ndarray | float | None = None,
    ) -> tuple[np.ndarray, EpisodeState]:
        """Return actions in the units of the environment, as Stable-Baselines3's `predict`.

        Args:
            observation: one, (obs_dim,), or those of n environments, (n, obs_dim).
            state: what the last call returned. None begins an episode. Agents that keep nothing
                within an episode, such as MAML's, need none.
            episode_start: whether episodes begin with these observations, () or (n,): all or none.
            deterministic: whether to take the best action instead of exploring.
            reward: the rewards of the last step, () or (n,), for agents with a memory.

        Returns:
            The actions, one or n; and the state for the next call.

        Raises:
            UserError: if the observations have a wrong size, some episodes begin and others do not,
                or an agent with a memory is not told the rewards.
        """
        obs = np.asarray(observation, np.float32)
        size = self.family.observation_space.shape[0]
        single = obs.size == size
        check(obs.size % size == 0 and obs.size > 0, "observation", f"{size} numbers", obs.shape)
        obs = obs.reshape(1, -1, size)
        begins = state is None or bool(np.any(episode_start))
        if episode_start is not None and begins and not np.all(episode_start):
            raise UserError(
                "episode_start: expected all or none; environments whose episodes end apart need a "
                "state each"
            )
        if begins or state is None:
            with single_threaded_math():
                actor = measuring_actor(self.agent, self.state, deterministic)
        else:
            actor = copy.copy(state.actor)  # which stays as it is
            if reward is None and getattr(actor, "memory", None) is not None:
                raise UserError("reward: expected the reward of the last step, which memory needs")
        shape = obs.shape[:2]
        last = np.zeros(shape, np.float32)
        if not begins and reward is not None:
            last = np.broadcast_to(np.asarray(reward, np.float32), shape)
        noise = np.stack([actor.noise(self._rng, 1)[0] for _ in range(shape[1])])[None]
        action = actor.act(obs, noise, last, np.ones(shape, bool))[0]
        own = self.units.to_env(action)
        return (own[0] if single else own), EpisodeState(actor)

    def to_torch(self) -> EnvPolicy:
        """Return the adapted policy as a plain `torch.nn.Module`, which needs no agent.

        Its actions are those of `predict`; see `metarl.evaluation.export.EnvPolicy`.

        Raises:
            UserError: if the agent cannot be exported.
        """
        return EnvPolicy(policy_module(self.agent, self.state), self.units)

    def to_onnx(self, path: str | Path, *, sampling: bool = False) -> Path:
        """Write the adapted policy as an ONNX file, which needs neither metarl nor torch.

        Its inputs are `observation`, (n, obs_dim) float32, and those that the agent needs of
        `reward`, (n,), and `state`, (n, S); its outputs are `action`, `mean` and `std` or `logits`,
        and `next_state`. A state of zeros begins an episode. The metadata say so too.

        Args:
            path: the file, which is replaced if it exists.
            sampling: whether `noise` is an input too, which draws the actions.

        Returns:
            The file.

        Raises:
            UserError: if the agent cannot be exported, or the extra `onnx` is not installed.
            StorageError: if the file cannot be written.
        """
        return write_onnx(self.to_torch(), path, self.source, sampling=sampling)


def adapt(
    run: str | Path,
    env: gymnasium.Env | VectorEnv,
    *,
    episodes: int = 20,
    adaptations: int = 1,
    checkpoint: str = "latest",
    seed: int = 0,
    **overrides: Any,
) -> AdaptedAgent:
    """Let the agent of a run adapt to the task of an environment.

    Args:
        run: the run's folder.
        env: a Gymnasium environment of the run's family, such as `Run.make_env` returns, or one of
            one's own with the same observations; single or vector, all with one task. Actions are
            scaled to its bounds.
        episodes: episodes of experience for each adaptation. An agent that remembers plays them one
            after another in a single environment.
        adaptations: number of adaptations.
        checkpoint: `latest`, `best`, an iteration, or `average`.
        seed: of the episodes.
        overrides: values that replace values of the run's config, such as device="cpu".

    Returns:
        The adapted agent.

    Raises:
        UserError: if the run or the checkpoint cannot be loaded, a number is out of range, or the
            environment does not fit the agent.
        EpisodeDiverged: if an episode has a number that is not finite.
    """
    check(episodes >= 1, "episodes", "at least 1", episodes)
    check(adaptations >= 0, "adaptations", "at least 0", adaptations)
    check(0 <= seed <= MAX_SEED, "seed", f"between 0 and {MAX_SEED}", seed)
    opened = open_to_evaluate(Path(run), **overrides)
    agent, family = opened.config.make_agent(opened.load(checkpoint).agent), opened.config.env
    live = LiveEnv(env, family)
    if agent.remembers:
        if live.num_episodes > 1:
            raise UserError(
                "env: expected a single environment, as the episodes of an agent of kind "
                f"{opened.config.agent.kind} follow one another, got {live.num_episodes}"
            )
        episodes, adaptations = 1, episodes * adaptations
    state, returns = agent.initial_state(1), []
    with single_threaded_math():
        for number in range(possible_adaptations(agent, adaptations)):
            played = play(agent, state, live, episodes, seed, number)
            returns += played.returns[0].tolist()
            state = agent.adapt(state, played)
    source = {
        "run": opened.directory.resolve().name,
        "family": family.name,
        "method": opened.config.method,
    }
    return AdaptedAgent(agent, state, family, live.actions, returns, seed, source)


def play(
    agent: MetaAgent, state: Any, env: LiveEnv, episodes: int, seed: int, step: int
) -> Episodes:
    """Play episodes of one task, round by round if the environment has fewer at a time.

    Args:
        agent, state: the agent and its state for the task.
        env: the environment.
        episodes: number of episodes.
        seed, step: of the random streams, with the number of adaptations so far.
    """
    tasks = np.zeros((1, *env.family.task_space.shape))  # the environment keeps it to itself
    rngs = episode_rngs(seed, Purpose.EVALUATION_EPISODES, 1, episodes, 0, step)
    parts = []
    for start in range(0, episodes, env.num_episodes):
        own = rngs[start : start + env.num_episodes]
        own += [np.random.default_rng(seed) for _ in range(env.num_episodes - len(own))]  # unused
        parts.append(collect(env, agent.actor(state), tasks, own, Timer()))
    return joined(parts).first(episodes)


def joined(parts: list[Episodes]) -> Episodes:
    """Return the episodes of one task, played in several rounds, as E episodes."""
    together = {
        name: value
        if name in PER_TASK
        else np.concatenate([part.arrays[name] for part in parts], axis=1)
        for name, value in parts[0].arrays.items()
    }
    return Episodes(**together)
