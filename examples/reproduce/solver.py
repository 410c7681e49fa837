"""The settings of TRPO's conjugate gradient with which the runs of the reproduction were made."""

from __future__ import annotations

from typing import Any

from metarl.config_upgrade import EARLIER_TRPO

AS_CONFIGURED = ("point_nav/", "half_cheetah_dir/", "half_cheetah_vel/maml_trpo_tuned")
"""Families and configs whose runs have the settings of the config, as it is now."""
EARLIER = {f"agent.outer.{key}": value for key, value in EARLIER_TRPO.items()}
"""The settings of all others, whose published numbers are older."""
FEW_TASKS = ("/maml_trpo_tuned", "/cavia_tuned")
"""Endings of the names of configs whose earlier runs used all the steps before adaptation."""


def solver(name: str) -> dict[str, Any]:
    """Return the settings of the conjugate gradient with which the runs of a config were made."""
    if name.startswith(AS_CONFIGURED):
        return {}
    return (
        {**EARLIER, "agent.outer.jacobian_fraction": 1.0} if name.endswith(FEW_TASKS) else EARLIER
    )
