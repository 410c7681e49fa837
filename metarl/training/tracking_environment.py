"""The environment variables of Weights & Biases, which replace values of a config.

Who sets a variable is at the keyboard; the config may come with somebody else's run. This module
does not import W&B, so a command can check the variables before it begins its work.
"""

from __future__ import annotations

import os

from metarl.core.errors import UserError, check, nearest

MODES = ("auto", "online", "offline", "disabled")
SYNONYMS = {"run": "online", "dryrun": "offline"}
"""Older names of modes, which W&B still accepts."""

MAX_PROJECT = 128  # characters of the name of a project
NOT_IN_PROJECT = "/\\#?%:"
NOT_IN_ID = ":;,#?/'"


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


def check_project(configured: str) -> None:
    """Check the name of the project in W&B: WANDB_PROJECT if it is set, or that of the config. W&B
    would refuse it when the training begins, which would go on without being tracked.

    Raises:
        UserError: if W&B does not accept it; names the variable or the key.
    """
    project = from_environment("PROJECT", configured)
    name = "WANDB_PROJECT" if os.environ.get("WANDB_PROJECT") else "tracking.project"
    fits = 0 < len(project) <= MAX_PROJECT and not set(project) & set(NOT_IN_PROJECT)
    expected = f"1 to {MAX_PROJECT} characters, none of them {' '.join(NOT_IN_PROJECT)}"
    check(fits, name, expected, project)


def check_environment() -> None:
    """Check the variables of W&B that have only certain values. W&B would refuse them when the
    work begins, which would go on without being tracked.

    Raises:
        UserError: if one has another value; names the variable.
    """
    if tracking_mode("auto") == "disabled":
        return
    if os.environ.get("WANDB_PROJECT"):
        check_project("")
    run_id = from_environment("RUN_ID", "")
    expected = f"at most {MAX_PROJECT} characters, none of them {' '.join(NOT_IN_ID)}"
    expected += ", and no space at its ends"
    fits = len(run_id) <= MAX_PROJECT and not set(run_id) & set(NOT_IN_ID)
    fits = fits and run_id == run_id.strip()
    check(fits, "WANDB_RUN_ID", expected, run_id)
    for name in ("INIT_TIMEOUT", "FINISH_TIMEOUT"):
        seconds = from_environment(name, "1")
        number = parsed_number(seconds)
        fits = number is not None and number > 0
        check(fits, f"WANDB_{name}", "a number of seconds above 0", seconds)


def parsed_number(text: str) -> float | None:
    """Return the number of a text; None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def from_environment(name: str, default: str) -> str:
    """Return the environment variable WANDB_`name`, or the default if it is not set or empty."""
    return os.environ.get(f"WANDB_{name}") or default
