"""Meta-agents: the registered kinds, and the construction of an agent from its config.

A kind of agent is a package in this folder with a config class (`metarl.agents.base.AgentConfig`)
and an entry in `KINDS`, or a config class of the user, named as `package.module:Class`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from metarl.agents.base import (
    AgentConfig,
    AgentSetup,
    MetaAgent,
    Rollout,
    check_fits,
    measuring_actor,
)
from metarl.agents.normalization import NormalizedAgent
from metarl.core.errors import ConfigError, nearest, shown
from metarl.core.schema import make_member
from metarl.core.schema_keys import plain
from metarl.envs.registry import import_object

__all__ = [
    "KINDS",
    "AgentConfig",
    "AgentSetup",
    "MetaAgent",
    "Rollout",
    "agent_config_class",
    "check_fits",
    "is_available",
    "make_agent",
    "measuring_actor",
]

KINDS = {
    "maml": "metarl.agents.maml.config:MAMLConfig",
    "rl2": "metarl.agents.rl2.config:RL2Config",
    "varibad": "metarl.agents.varibad.config:VariBADConfig",
    "pearl": "metarl.agents.pearl.config:PEARLConfig",
}
"""The config class of each kind of agent, as `module:Class`."""

MEMBERS = sorted(
    name for name in {*MetaAgent.__annotations__, *vars(MetaAgent)} if not name.startswith("_")
)
"""The attributes and methods of the contract."""


def agent_config_class(kind: str) -> type[AgentConfig]:
    """Return the config class of a kind of agent.

    Args:
        kind: a name in `KINDS`, or `package.module:Class` for a class of the user.

    Raises:
        ConfigError: if the kind is unknown, or the class cannot be imported or is no
            `AgentConfig` with a method `make`; names the nearest kind.
    """
    if kind not in KINDS and ":" not in kind:
        known = ", ".join(KINDS)
        raise ConfigError(
            f"kind: expected one of {known}, or your own as package.module:Class, "
            f"got {shown(kind)}{nearest(kind, KINDS)}"
        )
    try:
        cls = import_object(KINDS.get(kind, kind))
    except ValueError as error:
        raise ConfigError(f"kind: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, AgentConfig)):
        raise ConfigError(f"kind: {kind} is not a subclass of metarl.agents.AgentConfig")
    if cls.make is AgentConfig.make:
        raise ConfigError(f"kind: {kind} does not define make")
    return cls


def make_agent_config(values: Any) -> AgentConfig:
    """Make the config of an agent from the section `agent` of a config.

    Args:
        values: the values by key, or an `AgentConfig`, which is returned.

    Raises:
        ConfigError: if a key or a value is wrong; names the key by its path in the section.
        ValueError: if `values` are not values by key.
    """
    if isinstance(values, AgentConfig):
        return values
    if not isinstance(values, Mapping):
        raise ValueError(f"expected keys with values, got {shown(plain(values))}")
    kind = values.get("kind", next(iter(KINDS)))
    if not isinstance(kind, str):
        raise ConfigError(f"kind: expected the name of a kind of agent, got {shown(kind)}")
    cls = agent_config_class(kind)
    others = {name: agent_config_class(name) for name in KINDS}
    return make_member(cls, {**values, "kind": kind}, f"kind is {kind}", others)


def is_available(device: torch.device) -> bool:
    """Return whether this machine has a device, the CPU or a CUDA device."""
    return device.type == "cpu" or (device.index or 0) < torch.cuda.device_count()


def make_agent(
    config: AgentConfig, setup: AgentSetup, state: Mapping[str, Any] | None = None
) -> MetaAgent:
    """Make an agent with initial meta-parameters, or with the state of a checkpoint.

    On a GPU this turns off TF32 in cuDNN: its recurrent networks would be other ones than those
    that the agent acts with.

    Args:
        config: the config of the agent.
        setup: spaces, random number generator, device and threads.
        state: the agent's state in a checkpoint; None initialises the agent by `setup.rng`.

    Raises:
        ConfigError: if the device is not available, or a setting does not fit the task family.
        UserError: if the checkpoint does not fit the config.
    """
    if not is_available(setup.device):
        raise ConfigError(
            f"device: {setup.device} is not available here "
            f"({torch.cuda.device_count()} CUDA devices found); choose another with --device cpu"
        )
    if setup.device.type == "cuda":
        # cuDNN's recurrent networks would round to ten bits, unlike torch's matrix products.
        torch.backends.cudnn.allow_tf32 = False
    try:
        agent: MetaAgent = config.make(setup)
    except ConfigError as error:
        raise ConfigError(f"agent.{error}") from None
    if missing := [name for name in MEMBERS if not hasattr(agent, name)]:
        raise ConfigError(
            f"agent.kind: the agent of {config.kind} does not define {', '.join(missing)} "
            "(metarl.agents.MetaAgent)"
        )
    if config.normalize_observations:
        agent = NormalizedAgent(agent, int(np.prod(setup.observation_space.shape)))
    # Beside the contract: see `metarl.agents.optional.check_actions`.
    agent.action_space = setup.action_space  # pyright: ignore[reportAttributeAccessIssue]
    if state is not None:
        check_fits(state, agent.state_dict())
        agent.load_state_dict(state)
    return agent
