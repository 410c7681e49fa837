"""An agent that has adapted to a task, for use in an environment of one's own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarl.agents.base import MetaAgent, measuring_actor
from metarl.agents.optional import policy_module
from metarl.core.errors import ConfigError, UserError, check, check_flag, shown
from metarl.core.parallel import single_threaded_math
from metarl.envs import TaskFamily
from metarl.evaluation.export import EnvPolicy, write_onnx
from metarl.evaluation.live_env import ActionUnits
from metarl.rollout.collect import Actor


class EpisodeState(NamedTuple):
    """What an agent keeps within the episodes of n environments; see `AdaptedAgent.predict`."""

    actor: Actor
    num_envs: int
    deterministic: bool


@dataclass(repr=False)
class AdaptedAgent:
    """An agent that has adapted to one task.

    Attributes:
        agent: the agent.
        state: its state for the task.
        family: the task family.
        units: turns its actions into those of the environment.
        obs_shape: the shape of one observation of the environment.
        returns: undiscounted return of each episode of experience, in order.
        seed: of the actions of `predict`.
        source: the run, its family and its method, by these names.
    """

    agent: MetaAgent
    state: Any
    family: TaskFamily
    units: ActionUnits
    obs_shape: tuple[int, ...]
    returns: list[float]
    seed: int = 0
    source: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """A short text: of which run, and what it has seen."""
        run = self.source.get("run", type(self.agent).__name__)
        seen = f"{len(self.returns)} episodes" if len(self.returns) != 1 else "1 episode"
        mean = f" of mean return {np.mean(self.returns):.4g}" if self.returns else ""
        return f"<AdaptedAgent of {run} on {self.family.name}, after {seen}{mean}>"

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
            observation: one, (obs_dim,), or those of n environments, (n, obs_dim); or with the
                shape of the environment's observations in place of (obs_dim,).
            state: what the last call returned. None begins episodes, whatever `episode_start` says.
                Agents that keep nothing within an episode, such as MAML's, need none.
            episode_start: whether episodes begin with these observations, () or (n,): all or none.
            deterministic: whether to take the best action instead of exploring, the same in all
                steps of an episode.
            reward: the rewards of the last step, () or (n,), for agents with a memory.

        Returns:
            The actions, one or n; and the state for the next call.

        Raises:
            UserError: if the observations or rewards have a wrong size or are not finite numbers,
                some episodes begin and others do not, the state is none that this method returned,
                an agent with a memory is not told the rewards, or the number of observations or
                `deterministic` changes within an episode.
        """
        check_flag("deterministic", deterministic)
        obs = as_numbers(observation, "observation")
        size = self.family.observation_space.shape[0]
        single = obs.size == size and obs.shape != (1, *self.obs_shape)
        shapes = {(size,), self.obs_shape}
        one_of = " or ".join(str(shape) for shape in sorted(shapes, key=len))
        fits = obs.size > 0 and (obs.shape in shapes or obs.shape[1:] in shapes)
        check(fits, "observation", f"the shape {one_of}, or with an axis before", obs.shape)
        check(bool(np.isfinite(obs).all()), "observation", "finite numbers", observation)
        obs = obs.reshape(1, -1, size)
        shape = obs.shape[:2]
        made = state is None or isinstance(state, EpisodeState)
        check(made, "state", "what the last call of predict returned", state)
        begins = state is None or bool(np.any(episode_start))
        if state is not None and begins and not np.all(episode_start):
            raise UserError(
                "episode_start: expected all or none; environments whose episodes end apart need a "
                "state each"
            )
        if begins or state is None:
            with single_threaded_math():
                actor = measuring_actor(self.agent, self.state, deterministic)
        else:
            actor = copy.copy(state.actor)  # which stays as it is
            fits = shape[1] == state.num_envs
            check(fits, "observation", f"as many as before, {state.num_envs}", shape[1])
            expected = f"{state.deterministic}, as when the episode began"
            check(deterministic == state.deterministic, "deterministic", expected, deterministic)
            if getattr(actor, "memory", None) is not None and reward is None:
                raise UserError("reward: expected the reward of the last step, which memory needs")
        last = np.zeros(shape, np.float32)
        if not begins and reward is not None:
            last = as_numbers(reward, "reward")
            fits = last.size in (1, shape[1]) and bool(np.isfinite(last).all())
            numbers = "one finite number" + (f" or {shape[1]}" if shape[1] > 1 else "")
            check(fits, "reward", numbers, reward)
            last = np.broadcast_to(last.ravel(), shape)
        noise = np.stack([actor.noise(self._rng, 1)[0] for _ in range(shape[1])])[None]
        action = actor.act(obs, noise, last, np.ones(shape, bool))[0]
        own = self.units.to_env(action)
        return (own[0] if single else own), EpisodeState(actor, shape[1], deterministic)

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


def as_numbers(values: Any, field: str) -> np.ndarray:
    """Return an argument as float32 numbers, of any shape.

    Raises:
        ConfigError: if it is something else.
    """
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise ConfigError(f"{field}: expected numbers, got {shown(values)}") from None
