"""Meta-agents: what acts from a state per task, adapts that state, and learns to do so better."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from metarl.agents.gradient import GradientAgent
from metarl.checks import ConfigError
from metarl.config import Config
from metarl.episodes import Episodes
from metarl.policies import GaussianMLP, Params
from metarl.rollout import Actor
from metarl.stopwatch import Stopwatch
from metarl.streams import Purpose, stream

__all__ = ["GradientAgent", "MetaAgent", "make_agent"]


class MetaAgent(Protocol):
    """All that training, evaluation and rendering know of a method.

    Attributes:
        params: the meta-parameters.
        device: where the learner computes.
    """

    params: Params
    device: torch.device

    def initial_state(self, num_tasks: int) -> Any:
        """Return the states of B tasks of which nothing has been seen."""
        ...

    def actor(self, state: Any) -> Actor:
        """Return what plays episodes by these states."""
        ...

    def adapt(self, state: Any, episodes: Episodes, lr: float | None = None) -> Any:
        """Return the states after the episodes that `state` played. `state` stays as it is."""
        ...

    def update(self, state: Any, episodes: Episodes, clock: Stopwatch) -> dict[str, float]:
        """Improve the meta-parameters from adapted states and the episodes they then played."""
        ...


def make_agent(config: Config, params: Params | None = None) -> GradientAgent:
    """Make the agent of a config, with the initial meta-parameters of its seed unless given.

    Raises:
        ConfigError: if the device is not there.
    """
    device = torch.device(config.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: {config.device} is not available here "
            f"({torch.cuda.device_count()} CUDA devices found); expected cpu"
        )
    env = config.env
    policy = GaussianMLP(config.policy, _size(env.observation_space), _size(env.action_space))
    if params is None:
        params = policy.init(stream(config.seed, Purpose.INITIALISE))
    return GradientAgent(
        policy,
        params,
        config.inner,
        config.outer,
        config.returns,
        device,
        config.num_threads,
        config.tasks_per_chunk or None,
    )


def _size(space: Any) -> int:
    return int(np.prod(space.shape))
