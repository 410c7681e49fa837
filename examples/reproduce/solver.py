"""The settings of TRPO's conjugate gradient with which the runs of the reproduction were made."""

from __future__ import annotations

from typing import Any

from metarl.config_upgrade import EARLIER_TRPO

EARLIER_FAMILY = "ant_vel"
"""The family whose runs, and numbers, are older than the settings of its configs."""


def solver(name: str) -> dict[str, Any]:
    """Return the settings of the conjugate gradient with which the runs of a config were made,
    where they are not those of the config."""
    if name.partition("/")[0] != EARLIER_FAMILY:
        return {}
    earlier = {f"agent.outer.{key}": value for key, value in EARLIER_TRPO.items()}
    return {**earlier, "agent.outer.jacobian_fraction": 1.0}
