"""The errors that a user's input or disk can cause, and warnings."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from typing import Any

MAX_STEPS = 10**9  # environment steps in one batch of episodes
MAX_ADAPTATIONS = 1000  # adaptation steps of one task, one after another


class UserError(Exception):
    """A user's input is wrong; the message names the input and the expected one."""


class ConfigError(UserError, ValueError):
    """A config has a wrong key or value."""


class StorageError(OSError):
    """A file cannot be written, as the disk is full or its folder is gone; the message names it."""


def warn(message: str) -> None:
    """Print a warning on one line of stderr: a problem that the program has dealt with."""
    print(f"metarl: warning: {message}", file=sys.stderr, flush=True)


def check(condition: bool, field: str, expected: str, value: Any) -> None:
    """Refuse the value of a config's field unless `condition` holds.

    Raises:
        ConfigError: naming the field, the expected values and the value.
    """
    if not condition:
        raise ConfigError(f"{field}: expected {expected}, got {shown(value)}")


def check_amount(num_episodes: int, horizon: int) -> None:
    """Refuse more steps than any machine's memory holds, before an array of that size is made.

    Raises:
        ConfigError: naming the number of steps.
    """
    steps = num_episodes * horizon
    most = f"tasks, episodes and horizon that make at most {MAX_STEPS:,} steps together"
    if steps > MAX_STEPS:
        raise ConfigError(f"num_tasks: expected {most}, got {steps:.2g}")


def shown(value: Any) -> str:
    """Return the `repr` of a value for an error message, cut to about 200 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python does not write numbers of many thousand digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def check_known(name: str, names: Iterable[str], what: str) -> None:
    """Refuse a name that is not among the known names.

    Args:
        name: the name.
        names: the known names.
        what: the kind of the named object, for the message.

    Raises:
        UserError: naming the kind, the name, the nearest known name, and all known names.
    """
    names = list(names)
    if name not in names:
        known = ", ".join(names)
        raise UserError(f"{what} {name!r}{nearest(name, names)}: expected one of {known}")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ' (nearest: ...)' with the most similar known name; '' if none is similar."""
    near = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    return f" (nearest: {near[0]})" if near else ""
