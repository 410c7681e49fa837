"""The agent contract: the only interface of training, evaluation and rendering to a meta-agent.

A meta-agent has a state for each task. It chooses actions by this state, and adapts the state by
episodes. The state is a stack of adapted parameters for MAML, a hidden vector for RL2, and a
posterior over a latent variable for PEARL.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from metarl.core.errors import UserError, check
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
    "check_init_std",
    "measuring_actor",
]

Metrics: TypeAlias = dict[str, float]
AgentState: TypeAlias = dict[str, Tensor | float | int]
"""The state of an agent in a checkpoint: tensors and plain numbers by name."""


class Rollout(NamedTuple):
    """The states of B tasks and the episodes that were played from them."""

    state: Any
    episodes: Episodes


class MetaAgent(Protocol):
    """An agent that learns to adapt to tasks.

    Attributes:
        device: the device of the learner.
        max_adaptations: maximum number of adaptations to a task; None for no maximum, 0 for an
            agent that does not adapt, such as an oracle.
        remembers: whether an adaptation adds its episodes to all that the state remembers, so that
            episodes of experience are played one after another; false if an adaptation takes all
            episodes of experience at once.
        max_update_kl: largest usual KL divergence, in nats, between the policies before and after
            an update; training warns at larger values. Infinite for no warnings.
    """

    device: torch.device
    max_adaptations: int | None
    remembers: bool
    max_update_kl: float

    def initial_state(self, num_tasks: int, *, training: bool = False) -> Any:
        """Return the states of B tasks before any adaptation.

        Args:
            num_tasks: B.
            training: whether `update` will be called with the rollouts from these states.
                Adaptation may differ outside training, for example by a step-size schedule.
        """
        ...

    def next_task(self, state: Any) -> Any:
        """Return the initial states of the next tasks of a sequence, given the states adapted to
        the previous tasks."""
        ...

    def actor(self, state: Any, *, deterministic: bool = False) -> Actor:
        """Return the actor that plays a batch of episodes by the states of B tasks.

        Args:
            state: the states.
            deterministic: whether to choose the best action by the state of the agent instead of
                exploring, such as the mean or the mode of the policy's distribution. Episodes that
                are only measured may be played so; `adapt` and `update` never get such episodes.
        """
        ...

    def adapt(self, state: Any, episodes: Episodes) -> Any:
        """Return the states adapted by the episodes that were played from `state`.

        The function is pure: `state` is not changed.
        """
        ...

    def update(
        self, rollouts: Sequence[Rollout], rng: np.random.Generator, timer: Timer
    ) -> Metrics:
        """Update the meta-parameters by the rollouts of one meta-batch.

        Args:
            rollouts: the rollouts before, between and after the adaptations, at least one; in
                training on sequences, those of `metarl.rollout.sampling.sequence_phases`. The last
                episodes may have a `task_weight`; see `AgentConfig.weighs_tasks`.
            rng: random number generator of the update.
            timer: measures the sections of the update.

        Returns:
            Diagnostics by name, including `outer_kl` (nats) if it is known.

        Raises:
            FloatingPointError: if a number is not finite. The agent is then unchanged.
        """
        ...

    def state_dict(self) -> AgentState:
        """Return a copy, on the CPU, of the whole learned state."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor | float | int]) -> None:
        """Load the state of another agent of the same config."""
        ...


@dataclass(frozen=True)
class AgentSetup:
    """The surroundings of an agent: spaces, device and threads.

    Attributes:
        observation_space: observation space of the task family.
        action_space: action space of the task family.
        adaptation_steps: number of adaptations in training, to all tasks of a sequence.
        rng: random number generator that initialises the meta-parameters.
        device: the device of the learner.
        num_threads: number of threads of the learner; no influence on results within
            `metarl.core.parallel.single_threaded_math`, where trainings and evaluations work.
        task_dim: number of numbers of a task of the family.
        task_adaptations: number of adaptations to each task in training.
        expected_reward: `TaskFamily.expected_reward` of the family as training plays it; None where
            it is not defined.
    """

    observation_space: Box
    action_space: Box | Discrete
    adaptation_steps: int
    rng: np.random.Generator
    device: torch.device
    num_threads: int
    task_dim: int = 0
    task_adaptations: int = 1
    expected_reward: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None


class AgentConfig(Section):
    """The config of an agent of any kind; `kind` is the tag of the union of all kinds."""

    kind: str
    """The kind of agent."""
    normalize_observations: bool = False
    """Whether observations are shifted by their mean and divided by their standard deviation, which
    are measured on one meta-batch of episodes of the untrained agent and then kept."""

    learns_sequences: ClassVar[bool] = False
    """Whether the agent can be trained on sequences of tasks (`sampling.sequence`), and on tasks
    that drift (`sampling.drift`)."""
    weighs_tasks: ClassVar[bool] = False
    """Whether `MetaAgent.update` multiplies the objective of each task by the `task_weight` of the
    last episodes."""
    of_training: ClassVar[tuple[str, ...]] = ()
    """Keys and sections that have no influence on what a trained agent does."""

    def check(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        """Check that the settings fit the task family and the sampling, also of an agent that is
        played only.

        Raises:
            ConfigError: if a setting does not fit; names the key by its path in the section.
        """

    def check_training(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        """Check that the settings of training, such as those `of_training`, fit as well.

        Raises:
            ConfigError: as `check`.
        """

    def make(self, setup: AgentSetup) -> MetaAgent:
        """Make the agent with initial meta-parameters."""
        raise NotImplementedError

    def update_memory(self, family: TaskFamily, sampling: SamplingConfig) -> int:
        """Return the bytes that an update needs at least on the learner's device, in addition to
        the episodes."""
        return 0

    def memory_advice(self, family: TaskFamily, sampling: SamplingConfig) -> list[str]:
        """Return which settings of this section need less `update_memory`, each as the end of the
        sentence "choose ...", such as "a smaller --agent.network.size"."""
        return []

    def replay_memory(self, family: TaskFamily, sampling: SamplingConfig) -> int:
        """Return the bytes of the episodes of earlier iterations that the agent keeps at most, in
        memory and in the run's folder; see `metarl.agents.optional.record`."""
        return 0

    def schedules(self) -> dict[str, int]:
        """Return the keys of this section that count the iterations until a setting is 0, with
        their values. Where a command sets the number of iterations, it sets those that are equal to
        that of the config too."""
        return {}

    def remarks(self, iterations: int) -> list[str]:
        """Return what is worth a warning before a training of a number of iterations, each on one
        line that begins with the key."""
        return []

    def may_average(self, name: str) -> bool:
        """Return whether a tensor of the agent's state may be averaged over checkpoints.

        The state of an optimiser may never be averaged.

        Args:
            name: name of the tensor in `MetaAgent.state_dict`.
        """
        return False

    def may_transfer(self, name: str) -> bool:
        """Return whether a warm start takes a tensor from the state of another agent, by default
        those that may be averaged. The state of an optimiser begins anew.

        Args:
            name: name of the tensor in `MetaAgent.state_dict`.
        """
        return self.may_average(name)

    def transferred(self, state: AgentState) -> AgentState:
        """Return the state of another agent as a warm start takes it; by default as it is."""
        return state

    def must_transfer(self, name: str) -> bool:
        """Return whether a warm start is refused if a tensor, for which `may_transfer` is true, is
        not in both agents with one shape. By default it is; otherwise the tensor begins anew."""
        return True


def measuring_actor(agent: MetaAgent, state: Any, deterministic: bool) -> Actor:
    """Return the actor that plays measured episodes by the states of B tasks.

    Raises:
        UserError: if `deterministic` and the agent has no deterministic actions, as an agent that
            was written before there were any.
    """
    if not deterministic:
        return agent.actor(state)
    if "deterministic" not in inspect.signature(agent.actor).parameters:
        raise UserError(
            f"deterministic: {agent.actor.__qualname__} has no deterministic actions; expected its "
            "argument `deterministic` (metarl.agents.base.MetaAgent)"
        )
    return agent.actor(state, deterministic=True)


def check_init_std(init_std: float, actions: Box | Discrete, section: str) -> None:
    """Check that discrete actions are not given a standard deviation other than the default, 1.

    Args:
        init_std: the configured standard deviation.
        actions: the action space.
        section: path of the section.

    Raises:
        ConfigError: if they are; names the key.
    """
    fits = init_std == 1 or not isinstance(actions, Discrete)
    check(fits, f"{section}.init_std", "1 with discrete actions, which have none", init_std)


def check_fits(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Check that a state has the same names and shapes as the state of an agent of the config.

    Args:
        state: the agent's state in a checkpoint.
        expected: the state of a new agent.

    Raises:
        UserError: if a name is missing, or a shape differs; names the first such tensor.
    """
    for name in sorted(state.keys() | expected.keys()):
        found, wanted = (shape_text(each.get(name)) for each in (state, expected))
        if found != wanted:
            raise UserError(
                f"the checkpoint does not fit the config: {name} has the shape {found}, "
                f"expected {wanted}"
            )


def shape_text(value: Any) -> str:
    """Return the shape of a tensor or number of an agent's state as text; "none" for None."""
    if value is None:
        return "none"
    return str(list(value.shape)) if isinstance(value, Tensor) else "[]"
