"""A kind of agent that is no part of metarl: it remembers the mean of its actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from gymnasium.spaces import Discrete
from pydantic import Field
from torch import Tensor

from metarl.agents import AgentConfig, AgentSetup, Rollout
from metarl.core.errors import ConfigError
from metarl.core.timer import Timer
from metarl.envs import TaskFamily
from metarl.rollout.episodes import Episodes
from metarl.rollout.sampling import SamplingConfig

JITTER = 1e-3  # standard deviation of the noise on an update


@dataclass(frozen=True)
class MeanActionState:
    """The mean action of each task, (B, action_dim), over `count` steps, (B,)."""

    mean: np.ndarray
    count: np.ndarray


class MeanActor:
    """Plays the mean action of each task, with Gaussian noise."""

    def __init__(self, mean: np.ndarray, std: float) -> None:
        self._mean, self._std = np.float32(mean)[:, None], np.float32(std)  # (B, 1, action_dim)

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return rng.standard_normal((horizon, self._mean.shape[-1]), dtype=np.float32)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        return self._mean + self._std * noise


class MeanActionAgent:
    """Learns the mean action to begin with."""

    max_adaptations = None
    remembers = False
    max_update_kl = float("inf")

    def __init__(self, config: MeanActionConfig, setup: AgentSetup) -> None:
        self.config, self.device = config, setup.device
        self.prior = 0.1 * setup.rng.standard_normal(setup.action_space.shape)
        self.num_updates = 0

    def initial_state(self, num_tasks: int, *, training: bool = False) -> MeanActionState:
        return MeanActionState(np.tile(self.prior, (num_tasks, 1)), np.ones(num_tasks))

    def next_task(self, state: MeanActionState) -> MeanActionState:
        return state

    def actor(self, state: MeanActionState, *, deterministic: bool = False) -> MeanActor:
        return MeanActor(state.mean, 0.0 if deterministic else self.config.std)

    def adapt(self, state: MeanActionState, episodes: Episodes) -> MeanActionState:
        count = state.count + episodes.mask.sum((1, 2))
        total = (state.mean * state.count[:, None]) + episodes.action.sum((1, 2), dtype=np.float64)
        return MeanActionState(total / count[:, None], count)

    def update(
        self, rollouts: Sequence[Rollout], rng: np.random.Generator, timer: Timer
    ) -> dict[str, float]:
        """Move the prior towards the mean action of the better half of the tasks in all phases."""
        with timer("update"):
            # (phases, B, E) -> (B,)
            returns = np.stack([episodes.returns for _, episodes in rollouts]).mean((0, 2))
            best = np.argsort(-returns)[: (len(returns) + 1) // 2]  # NaN comes last
            actions = [self.adapt(state, episodes).mean[best] for state, episodes in rollouts]
            step = self.config.lr * (np.mean(actions, axis=(0, 1)) - self.prior)
            step += JITTER * rng.standard_normal(step.shape)
        if not np.isfinite(step).all():
            raise FloatingPointError("the step is not finite; nothing was updated")
        self.prior, self.num_updates = self.prior + step, self.num_updates + 1
        kl = float(step @ step) / (2 * self.config.std**2)
        return {"outer_kl": kl, "best_return": float(returns[best[0]])}

    def state_dict(self) -> dict[str, Tensor | float | int]:
        return {"prior": torch.tensor(self.prior), "num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        self.prior = torch.as_tensor(state["prior"]).numpy().copy()
        self.num_updates = int(state["num_updates"])


class MeanActionConfig(AgentConfig):
    """The mean action."""

    kind: Literal["tests.agents.mean_action:MeanActionConfig"] = (
        "tests.agents.mean_action:MeanActionConfig"
    )
    """The kind of agent."""
    lr: Annotated[float, Field(gt=0, le=1)] = 0.5
    """How far an update moves the prior."""
    std: Annotated[float, Field(gt=0)] = 0.3
    """Standard deviation of the actions."""

    def check(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        if isinstance(family.action_space, Discrete):
            raise ConfigError("kind: indices of discrete actions have no mean")

    def make(self, setup: AgentSetup) -> MeanActionAgent:
        return MeanActionAgent(self, setup)

    def may_average(self, name: str) -> bool:
        return name == "prior"
