"""The agent contract: all that training, evaluation and rendering know of a meta-agent.

A meta-agent has a state per task. It acts from that state and adapts it from episodes: the state
of MAML is a stack of adapted parameters, that of RL2 a hidden vector, that of PEARL a posterior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.schema import Section
from metarl.core.timer import Timer
from metarl.envs import TaskFamily
from metarl.rollout.collect import Actor
from metarl.rollout.episodes import Episodes
from metarl.rollout.sampling import SamplingConfig

__all__ = [
    "Actor",
    "AgentConfig",
    "AgentSetup",
    "AgentState",
    "MetaAgent",
    "Metrics",
    "Rollout",
    "check_fits",
]

Metrics: TypeAlias = dict[str, float]
AgentState: TypeAlias = dict[str, Tensor | float | int]
"""Named tensors and plain numbers: the part of a checkpoint that is the agent's."""


class Rollout(NamedTuple):
    """The states of B tasks and the episodes that were played from them."""

    state: Any
    episodes: Episodes


class MetaAgent(Protocol):
    """What learns to adapt.

    Attributes:
        device: where the learner computes.
        max_adaptations: how often the agent can adapt to a task; None for any number, 0 for an
            agent that does not adapt, such as an oracle.
        max_update_kl: KL divergence between the policies before and after an update above which
            training warns; infinite for none.
    """

    device: torch.device
    max_adaptations: int | None
    max_update_kl: float

    def initial_state(self, num_tasks: int, *, training: bool = False) -> Any:
        """Return the states of B tasks of which nothing has been seen.

        Args:
            num_tasks: B.
            training: whether `update` is to learn from what follows. Adaptation may differ
                outside training, for example by a step-size schedule.
        """
        ...

    def next_task(self, state: Any) -> Any:
        """Return the states for the next tasks of a sequence, adapted as they are."""
        ...

    def actor(self, state: Any) -> Actor:
        """Return what plays a batch of episodes from these states."""
        ...

    def adapt(self, state: Any, episodes: Episodes) -> Any:
        """Return the states after the episodes played from `state`, which stays as it is."""
        ...

    def update(
        self, rollouts: Sequence[Rollout], rng: np.random.Generator, timer: Timer
    ) -> Metrics:
        """Improve the meta-parameters from one meta-batch.

        Args:
            rollouts: before, between and after the adaptations, at least one.
            rng: the random stream of the update.
            timer: takes the times of its sections.

        Returns:
            Diagnostics by name; `outer_kl` among them where it is known.

        Raises:
            FloatingPointError: if a number is not finite. The agent is then unchanged.
        """
        ...

    def state_dict(self) -> AgentState:
        """Return a copy, on the CPU, of everything learned."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        """Take over the state of another agent of the same config."""
        ...


@dataclass(frozen=True)
class AgentSetup:
    """What an agent is made for.

    Attributes:
        observation_space, action_space: of the task family.
        adaptation_steps: adaptations in training.
        rng: the random stream that initialises the meta-parameters.
        device: where the learner computes.
        num_threads: of the learner; no influence on results.
    """

    observation_space: Box
    action_space: Box | Discrete
    adaptation_steps: int
    rng: np.random.Generator
    device: torch.device
    num_threads: int


class AgentConfig(Section):
    """The config of one kind of agent, told apart by its first field, `kind`."""

    kind: str
    """The kind of agent."""

    def check(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        """Refuse settings that make no sense for this family or sampling.

        Raises:
            ConfigError: naming the key within the section.
        """

    def make(self, setup: AgentSetup) -> MetaAgent:
        """Make the agent, initialised."""
        raise NotImplementedError

    def may_average(self, name: str) -> bool:
        """Return whether a tensor of the agent's state may be averaged over checkpoints.

        An optimiser's state never may.
        """
        return False


def check_fits(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose tensors and numbers are not those of the config's agent.

    Raises:
        UserError: naming one that differs.
    """
    for name in sorted(state.keys() | expected.keys()):
        found, wanted = (_shape(each.get(name)) for each in (state, expected))
        if found != wanted:
            raise UserError(
                f"the checkpoint does not fit the config: {name} has the shape {found}, "
                f"expected {wanted}"
            )


def _shape(value: Any) -> str:
    if value is None:
        return "none"
    return str(list(value.shape)) if isinstance(value, Tensor) else "[]"
