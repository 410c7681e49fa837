"""The environment variables of Weights & Biases, which replace values of a config.

Who sets a variable is at the keyboard; the config may come with somebody else's run. This module
does not import W&B, so a command can check the variables before it begins its work.
"""

from __future__ import annotations

import os

from metarl.core.errors import UserError, nearest

MODES = ("auto", "online", "offline", "disabled")
SYNONYMS = {"run": "online", "dryrun": "offline"}
"""Older names of modes, which W&B still accepts."""


def tracking_mode(configured: str) -> str:
    """Return the mode of tracking: WANDB_MODE if it is set, or the mode of the config.

    Args:
        configured: the mode of the config, one of `MODES`.

    Raises:
        UserError: if WANDB_MODE is no mode; names the nearest one.
    """
    mode = from_environment("MODE", configured)
    if mode not in (*MODES, *SYNONYMS):
        raise UserError(
            f"WANDB_MODE: expected {', '.join(MODES[:-1])} or {MODES[-1]}, "
            f"got {mode!r}{nearest(mode.lower(), MODES)}"
        )
    return SYNONYMS.get(mode, mode)


def check_environment() -> None:
    """Check the variables of W&B that have only certain values.

    Raises:
        UserError: if WANDB_MODE is no mode; names the nearest one.
    """
    tracking_mode("auto")


def from_environment(name: str, default: str) -> str:
    """Return the environment variable WANDB_`name`, or the default if it is not set or empty."""
    return os.environ.get(f"WANDB_{name}") or default
