"""The agent of a run, and its adaptation to an environment of the user's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from metarl.agents.base import MetaAgent
from metarl.core.errors import MAX_ADAPTATIONS, UserError, as_path, check_amount, check_whole
from metarl.core.parallel import single_threaded_math
from metarl.core.rng import MAX_SEED, Purpose
from metarl.core.timer import Timer
from metarl.evaluation.adapted import AdaptedAgent
from metarl.evaluation.evaluate import open_to_evaluate, possible_adaptations
from metarl.evaluation.live_env import LiveEnv
from metarl.rollout.collect import collect, episode_rngs
from metarl.rollout.episodes import PER_TASK, Episodes
from metarl.rollout.failures import EpisodeDiverged
from metarl.runs.run import Run

Contract = MetaAgent if TYPE_CHECKING else object


class LoadedAgent(Contract):
    """The agent of a run: a `MetaAgent` of any kind, with `adapt_to`.

    All other attributes and methods are those of the agent itself, which is `unwrapped`.
    """

    def __init__(self, agent: MetaAgent, run: Run) -> None:
        self._agent, self._run = agent, run

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not the agent's interface; also asked before __init__, by copy
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._agent, name)

    @property
    def unwrapped(self) -> MetaAgent:
        """The agent itself, an instance of the class of its kind."""
        return self._agent

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._agent)})

    def __repr__(self) -> str:
        return f"<{type(self._agent).__name__} of {self._run.directory}>"

    def adapt_to(
        self,
        env: gymnasium.Env | VectorEnv,
        *,
        episodes: int = 20,
        adaptations: int = 1,
        seed: int = 0,
    ) -> AdaptedAgent:
        """Adapt to the task of an environment. The agent itself stays as it is.

        Args:
            env: a Gymnasium environment of the run's family, such as `Run.make_env` returns, or one
                of one's own with the same observations; single or vector, all with one task.
                Actions are scaled to its bounds.
            episodes: episodes of experience for each adaptation. An agent that remembers plays them
                one after another in a single environment.
            adaptations: number of adaptations.
            seed: of the episodes.

        Returns:
            The adapted agent.

        Raises:
            UserError: if a number is out of range, or the environment does not fit the agent.
            EpisodeDiverged: if an episode has a number that is not finite.
        """
        agent, config = self._agent, self._run.config
        check_whole("episodes", episodes, 1)
        check_whole("adaptations", adaptations, 0, MAX_ADAPTATIONS)
        check_whole("seed", seed, 0, MAX_SEED)
        check_amount({"episodes": episodes, "env.horizon": config.env.horizon})
        live = LiveEnv(env, config.env)
        if agent.remembers:
            if live.num_episodes > 1:
                raise UserError(
                    "env: expected a single environment, as the episodes of an agent of kind "
                    f"{config.agent.kind} follow one another, got {live.num_episodes}"
                )
            episodes, adaptations = 1, episodes * adaptations
        state, returns = agent.initial_state(1), []
        with single_threaded_math():
            for number in range(possible_adaptations(agent, adaptations)):
                played = play(agent, state, live, episodes, seed, number)
                returns += played.returns[0].tolist()
                state = agent.adapt(state, played)
        source = {
            "run": self._run.directory.resolve().name,
            "family": config.env.name,
            "method": config.method,
        }
        spaces = live.actions, live.obs_shape
        return AdaptedAgent(agent, state, config.env, *spaces, returns, seed, source)


def load(directory: str | Path, checkpoint: str | int = "latest", **overrides: Any) -> LoadedAgent:
    """Load the agent of a run, on the run's device, or on the CPU if this machine does not have it.

    Args:
        directory: the run's folder, or `pretrained/NAME`.
        checkpoint: `latest`, `best`, the number of an iteration, or `average`.
        overrides: values that replace values of the run's config, such as device="cpu".

    Returns:
        The agent, as `evaluate` and `render` take it, with a method `adapt_to`.

    Raises:
        UserError: if the run or the checkpoint is missing or damaged, or `device` is not available.
    """
    run = open_to_evaluate(as_path("directory", directory), **overrides)
    agent = run.make_agent(run.load(checkpoint))
    return LoadedAgent(agent, run)  # pyright: ignore[reportAbstractUsage] (__getattr__ has the rest)


def play(
    agent: MetaAgent, state: Any, env: LiveEnv, episodes: int, seed: int, step: int
) -> Episodes:
    """Play episodes of one task, round by round if the environment has fewer at a time.

    Args:
        agent, state: the agent and its state for the task.
        env: the environment.
        episodes: number of episodes.
        seed, step: of the random number generators; `step` adaptations were made so far.
    """
    tasks = np.zeros((1, *env.family.task_space.shape))  # the environment keeps it to itself
    rngs = episode_rngs(seed, Purpose.EVALUATION_EPISODES, 1, episodes, 0, step)
    parts = []
    for start in range(0, episodes, env.num_episodes):
        own = rngs[start : start + env.num_episodes]
        own += [np.random.default_rng(seed) for _ in range(env.num_episodes - len(own))]  # unused
        try:
            parts.append(collect(env, agent.actor(state), tasks, own, Timer()))
        except EpisodeDiverged as error:  # of a task that nobody but the environment knows
            first = step * episodes + start
            failures = [
                replace(each, task=None, episode=first + (each.episode or 0))
                for each in error.failures
            ]
            raise EpisodeDiverged(failures) from None
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
