"""What an agent may have besides the contract: the methods `record`, `beliefs` and `policy_module`,
and the attribute `action_space`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.agents.base import MetaAgent, Rollout
from metarl.core.errors import UserError
from metarl.core.policy_module import PolicyModule
from metarl.rollout.episodes import Episodes


class Beliefs(NamedTuple):
    """Gaussian beliefs over a latent variable of d numbers, with a diagonal covariance.

    Attributes:
        mean: (..., d).
        std: standard deviations, (..., d).
    """

    mean: np.ndarray
    std: np.ndarray


def record(agent: MetaAgent, iteration: int, phases: Sequence[Episodes]) -> int | None:
    """Give an agent the episodes of an iteration, if it learns from them again in later ones.

    Such an agent has a method `record` with the same arguments, which keeps what it needs. Training
    calls it before the update of the iteration. When training is resumed, it calls it for all
    iterations in turn of which the agent still keeps something; what the agent keeps may depend on
    nothing else, since it is not in the agent's `state_dict`.

    Args:
        agent: the agent.
        iteration: number of the iteration, from 1.
        phases: its episodes before, between and after the adaptations.

    Returns:
        The number of the oldest iteration of which the agent still keeps something; None for an
        agent that learns from the episodes of one iteration only.
    """
    if not keeps_episodes(agent):
        return None
    return agent.record(iteration, phases)  # pyright: ignore[reportAttributeAccessIssue]


def keeps_episodes(agent: MetaAgent) -> bool:
    """Return whether an agent has a method `record`; see the function `record`."""
    return hasattr(agent, "record")


def beliefs(agent: MetaAgent, rollout: Rollout) -> Beliefs | None:
    """Return the beliefs by which an agent acts at the steps of episodes, (B, E, T, d), if it has a
    belief over a latent variable that stands for the task.

    Such an agent has a method `beliefs` with the arguments `state` and `episodes`. Videos and
    reports show what it returns; what it says of steps that did not take place is not used.

    Args:
        agent: the agent.
        rollout: the states of tasks, and the episodes that were played from them.

    Returns:
        The beliefs; None for an agent without such a method.
    """
    if not has_beliefs(agent):
        return None
    return agent.beliefs(*rollout)  # pyright: ignore[reportAttributeAccessIssue]


def has_beliefs(agent: MetaAgent) -> bool:
    """Return whether an agent has a method `beliefs`; see the function `beliefs`."""
    return hasattr(agent, "beliefs")


def policy_module(agent: MetaAgent, state: Any) -> PolicyModule:
    """Return the policy by the state of one task as a torch module, if the agent can.

    Such an agent has a method `policy_module` with the argument `state`. The module chooses the
    actions of the agent's actor, in the units of the policy, and shares no memory with the agent.

    Args:
        agent: the agent.
        state: the state of one task.

    Raises:
        UserError: if the agent has no such method.
    """
    if not has_policy_module(agent):
        raise UserError(
            f"to_torch: {type(agent).__name__} cannot be exported; expected a method "
            "`policy_module` (metarl.agents.optional.policy_module)"
        )
    return agent.policy_module(state)  # pyright: ignore[reportAttributeAccessIssue]


def has_policy_module(agent: MetaAgent) -> bool:
    """Return whether an agent has a method `policy_module`; see the function `policy_module`."""
    return hasattr(agent, "policy_module")


def check_actions(agent: MetaAgent, space: Box | Discrete) -> None:
    """Check that the actions of an agent are those of a task family: choices among as many, or as
    many numbers. The bounds may be others, since families clip.

    Agents of a config have an attribute `action_space`, that of the family they were made for; of
    others nothing is known.

    Args:
        agent: the agent.
        space: the action space of the family.

    Raises:
        UserError: if they are others; gives both spaces.
    """
    own = getattr(agent, "action_space", space)
    if isinstance(own, Discrete) or isinstance(space, Discrete):
        fits = own == space
    else:
        fits = own.shape == space.shape
    if not fits:
        raise UserError(
            f"env: expected actions of {own}, for which the policy was made, got {space}: the "
            "agent comes from another task family, or from other settings of this one"
        )
