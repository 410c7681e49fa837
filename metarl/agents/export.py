"""The adapted policy of an agent as a torch module, which acts without the agent."""

from __future__ import annotations

from typing import Any

from metarl.agents.base import MetaAgent
from metarl.core.errors import UserError
from metarl.core.policy_module import PolicyModule


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
            "`policy_module` (metarl.agents.export.policy_module)"
        )
    return agent.policy_module(state)  # pyright: ignore[reportAttributeAccessIssue]


def has_policy_module(agent: MetaAgent) -> bool:
    """Return whether an agent has a method `policy_module`; see the function `policy_module`."""
    return hasattr(agent, "policy_module")
