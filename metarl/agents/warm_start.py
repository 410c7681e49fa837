"""Warm start: a new agent with the meta-parameters of another agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metarl.agents.base import AgentConfig, AgentState, shape_text
from metarl.agents.normalization import PREFIX
from metarl.core.errors import UserError
from metarl.core.parsing import format_value
from metarl.core.schema_keys import by_path, plain


@dataclass(frozen=True)
class WarmStart:
    """The state of an agent that begins with meta-parameters of another one.

    Attributes:
        state: the whole state.
        taken: names in `state` whose values are the other agent's.
        anew: names in `state` whose values are those of a new agent.
        left: names of meta-parameters of the other agent that are not in `state`.
    """

    state: AgentState
    taken: tuple[str, ...]
    anew: tuple[str, ...]
    left: tuple[str, ...]


NETWORKS = ("policy", "network", "encoder")
"""Sections of the agents' configs that say what the parameters of networks mean."""
INITIAL = ("init_std", "initialisation", "hidden_gain", "output_gain")
"""Keys of these sections that matter to a new agent only."""


def other_meaning(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the settings by which the same parameters are another policy, as text, such as its
    activation, the units of observations and the bounds of actions.

    Args:
        own: the values of the new agent's config, nested.
        other: those of the other agent's, which the text has.
    """
    wanted = by_path(own)
    return [
        f"{path} was {format_value(value)}"
        for path, value in by_path(other).items()
        if path.partition(".")[0] in NETWORKS
        and path.rpartition(".")[2] not in INITIAL
        and path in wanted
        and plain(wanted[path]) != plain(value)
    ]


def is_parameter(config: AgentConfig, name: str) -> bool:
    """Return whether a tensor of an agent's state is a meta-parameter, or a constant measured
    before training, and not the state of an optimiser."""
    return name.startswith(PREFIX) or config.may_transfer(name)


def take_parameters(config: AgentConfig, own: AgentState, other: Mapping[str, Any]) -> WarmStart:
    """Return the state of a new agent with the meta-parameters of another agent.

    The other state, such as that of the optimiser, begins anew; so do meta-parameters that the
    other agent does not have, or has in another shape, unless `config` needs them.

    Args:
        config: the config of the new agent.
        own: the state of the new agent.
        other: the state of the other agent.

    Raises:
        UserError: if the other agent does not have a needed tensor, or has it in another shape, or
            has a needed tensor that the new agent does not have; names the first one.
    """
    other = config.transferred(dict(other))
    names = sorted(own.keys() | other.keys())
    offered = [name for name in names if is_parameter(config, name)]
    for name in offered:
        found, wanted = (shape_text(each.get(name)) for each in (other, own))
        if found != wanted and config.must_transfer(name):
            raise UserError(
                f"its parameters do not fit: {name} has the shape {found}, expected {wanted}"
            )
    taken = [
        name
        for name in offered
        if name in own and shape_text(other.get(name)) == shape_text(own[name])
    ]
    if not any(map(config.may_transfer, own)):
        raise UserError(
            f"the agent's kind {config.kind} lets no tensor be taken (AgentConfig.may_transfer)"
        )
    if not taken:
        raise UserError(f"it has no parameters of an agent of the kind {config.kind}")
    return WarmStart(
        {**own, **{name: other[name] for name in taken}},
        tuple(taken),
        tuple(name for name in names if name in own and name not in taken),
        tuple(name for name in offered if name not in own),
    )
