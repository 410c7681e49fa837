"""Which values of a run's config may be replaced in an evaluation or a video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarl.agents import AgentConfig
from metarl.config_files import flag
from metarl.config_upgrade import ALIASES
from metarl.core.errors import ConfigError

INSTEAD = {"sampling.num_tasks": "--tasks", "sampling.num_episodes": "--episodes"}
"""What has the meaning of a key of training in an evaluation or a video."""
OF_TRAINING = (
    "method",
    "iterations",
    "checkpoint_every",
    "evaluation",
    "sampler",
    *INSTEAD,
    *(f"sampling.{each}" for each in ("train_tasks", "drift", "risk", "nuisances")),
)
"""Keys and sections of a config that have no influence on what a trained agent does."""


def check_overrides(overrides: Mapping[str, Any], agent: AgentConfig, work: str) -> None:
    """Check that all values that replace values of a run's config have an influence on what its
    agent does.

    Args:
        overrides: the values, by key.
        agent: the config of the agent.
        work: what the agent is used for, as text.

    Raises:
        ConfigError: if one has none; names it as a flag.
    """
    unused = (*OF_TRAINING, *(f"agent.{each}" for each in agent.of_training))
    for name in overrides:
        path = ALIASES.get(name, name)
        if any(f"{path}.".startswith(f"{each}.") for each in unused):
            instead = f"; expected {INSTEAD[path]}" if path in INSTEAD else ""
            raise ConfigError(
                f"{flag(name)}: is of training, and has no influence on {work}{instead}"
            )
