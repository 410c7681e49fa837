"""Meta-agents: what acts from a state per task, adapts that state, and learns to do so better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from metarl.agents.maml.agent import GradientAgent
from metarl.agents.maml.config import make_inner_loop
from metarl.config import Config
from metarl.core.errors import ConfigError, UserError
from metarl.core.policies import make_policy
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.rollout.collect import Actor
from metarl.rollout.episodes import Episodes

__all__ = ["GradientAgent", "MetaAgent", "make_agent"]


class MetaAgent(Protocol):
    """All that training, evaluation and rendering know of a method.

    Attributes:
        device: where the learner computes.
    """

    device: torch.device

    def initial_state(self, num_tasks: int) -> Any:
        """Return the states of B tasks of which nothing has been seen."""
        ...

    def actor(self, state: Any) -> Actor:
        """Return what plays episodes by these states."""
        ...

    def adapt(self, state: Any, episodes: Episodes, scale: float = 1.0) -> Any:
        """Return the states after the episodes that `state` played. `state` stays as it is.

        `scale` is a factor on the step, for agents that adapt in steps.
        """
        ...

    def update(self, state: Any, episodes: Episodes, timer: Timer) -> dict[str, float]:
        """Improve the meta-parameters from adapted states and the episodes they then played.

        Raises:
            FloatingPointError: if that is not finite. The agent is what it was.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that was learned, copied to the CPU: what a checkpoint holds."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what another agent of the same config has learned."""
        ...


def make_agent(config: Config, state: Mapping[str, Tensor] | None = None) -> MetaAgent:
    """Make the agent of a config, as its seed initialises it or with what a checkpoint holds.

    Raises:
        ConfigError: if the device is not there.
        UserError: if the checkpoint does not fit the config.
    """
    device = torch.device(config.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: {config.device} is not available here "
            f"({torch.cuda.device_count()} CUDA devices found); expected cpu"
        )
    env = config.env
    policy = make_policy(config.policy, env.observation_space, env.action_space)
    loop = make_inner_loop(config.inner, policy, config.inner_steps)
    rng = make_rng(config.seed, Purpose.INITIALISE)
    agent = GradientAgent(
        policy,
        loop.init(policy.init(rng), rng),
        loop,
        config.inner,
        config.outer,
        config.returns,
        device,
        config.num_threads,
        config.tasks_per_chunk or None,
    )
    if state is not None:
        check_fits(state, agent.state_dict())
        agent.load_state_dict(state)
    return agent


def check_fits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint whose tensors are not those of the config's agent.

    Raises:
        UserError: naming a tensor that differs.
    """
    for name in sorted(state.keys() | expected.keys()):
        found, wanted = (
            list(each[name].shape) if name in each else "none" for each in (state, expected)
        )
        if found != wanted:
            raise UserError(
                f"the checkpoint does not fit the config: {name} has the shape {found}, "
                f"expected {wanted}"
            )
