"""The errors a user's input or disk can cause, and warnings."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from typing import Any

MAX_STEPS = 10**9  # that are played and learned from at once
MAX_ADAPTATIONS = 1000  # steps, one after another


class UserError(Exception):
    """Something the user gave is wrong; the message says what, and what was expected."""


class ConfigError(UserError):
    """A config has a wrong key or value."""


class StorageError(OSError):
    """A file cannot be written, as the disk is full or the folder gone; the message names it."""


def warn(message: str) -> None:
    """Tell the user, on a line of stderr, of something that went wrong and is mended."""
    print(f"metarl: warning: {message}", file=sys.stderr, flush=True)


def check(condition: bool, field: str, expected: str, value: Any) -> None:
    """Refuse a field's value.

    Raises:
        ConfigError: if `condition` is false; names the field, what was expected and the value.
    """
    if not condition:
        raise ConfigError(f"{field}: expected {expected}, got {shown(value)}")


def check_amount(num_episodes: int, horizon: int) -> None:
    """Refuse more steps than any machine's memory holds, before anything is made of that size.

    Raises:
        ConfigError: saying how many there would be.
    """
    steps = num_episodes * horizon
    most = f"tasks, episodes and horizon that make at most {MAX_STEPS:,} steps together"
    if steps > MAX_STEPS:
        raise ConfigError(f"num_tasks: expected {most}, got {steps:.2g}")


def shown(value: Any) -> str:
    """Return a value as an error shows it, cut short where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python does not write numbers of many thousand digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def check_known(name: str, names: Iterable[str], what: str) -> None:
    """Refuse a name that is not one of those known.

    Raises:
        UserError: naming it as `what`, the nearest known name, and all of them.
    """
    names = list(names)
    if name not in names:
        known = ", ".join(names)
        raise UserError(f"{what} {name!r}{nearest(name, names)}: expected one of {known}")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ' (nearest: ...)' with the known name most like `name`, or '' if none is."""
    near = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    return f" (nearest: {near[0]})" if near else ""
