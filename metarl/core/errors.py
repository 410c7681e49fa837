"""Errors that a user's input or disk can cause, and warnings."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Integral
from pathlib import Path
from typing import Any

MAX_STEPS = 10**9  # environment steps of one batch of episodes
MAX_ADAPTATIONS = 1000  # adaptation steps to one task
MAX_SEQUENCE = 100  # tasks of a sequence in training
MAX_THREADS = 1024


class UserError(Exception):
    """A value given by the user is wrong; the message names the value and the expected one."""


class ConfigError(UserError, ValueError):
    """A config has a wrong key or value."""


class StorageError(OSError):
    """A file cannot be written (a full disk, a missing folder); the message names the file."""


def warn(message: str) -> None:
    """Print a warning to stderr, on one line: a problem occurred, and the program continues."""
    print(f"metarl: warning: {message}", file=sys.stderr, flush=True)


def check_arguments(
    key: str, name: str, function: Callable[..., object], arguments: Sequence[str]
) -> None:
    """Check that a class or function of the user's can be called with these positional arguments.

    Args:
        key: the key that it is a value of.
        name: its name.
        function: the class or function.
        arguments: names of the arguments.

    Raises:
        ConfigError: if it cannot; names it, and the arguments.
    """
    signature = inspect.signature(function)
    try:
        signature.bind(*arguments)
    except TypeError:
        expected = ", ".join(arguments)
        raise ConfigError(
            f"{key}: {name} takes {signature}, expected ({expected}); see docs/extending.md"
        ) from None


def check(condition: bool, field: str, expected: str, value: Any) -> None:
    """Check a condition on the value of a field.

    Raises:
        ConfigError: if `condition` is false; names the field, the expected value and `value`.
    """
    if not condition:
        raise ConfigError(f"{field}: expected {expected}, got {shown(value)}")


def as_path(field: str, value: Any) -> Path:
    """Return the value of a field as a path.

    Raises:
        ConfigError: if it is none, or empty; names the field.
    """
    check(isinstance(value, str | os.PathLike) and os.fspath(value) != "", field, "a path", value)
    return Path(value)


def check_flag(field: str, value: Any) -> None:
    """Check that the value of a field is True or False.

    Raises:
        ConfigError: if it is not; names the field and the value.
    """
    check(value is True or value is False, field, "True or False", value)


def check_whole(field: str, value: Any, least: int, most: int | None = None) -> None:
    """Check that the value of a field is a whole number between `least` and `most`, if there is a
    largest one.

    Raises:
        ConfigError: if it is not; names the field, what was expected and the value.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    check(is_whole, field, "a whole number", value)
    expected = f"at least {least}" if most is None else f"between {least} and {most}"
    within = least <= int(value) and (most is None or int(value) <= most)
    check(within, field, expected, value)


def check_amount(amounts: Mapping[str, int]) -> None:
    """Check that all steps of a batch of episodes fit into memory, before it is allocated.

    Args:
        amounts: the numbers of tasks, of episodes per task and of steps per episode, by field.

    Raises:
        ConfigError: if there are more than `MAX_STEPS` steps; gives their number, and names the
            field with the largest amount.
    """
    steps = math.prod(amounts.values())
    most = f"tasks, episodes and horizon that make at most {MAX_STEPS:,} steps together"
    if steps > MAX_STEPS:
        found = f"{Decimal(steps).normalize():.2g}"  # which may be beyond all floats
        raise ConfigError(f"{max(amounts, key=amounts.__getitem__)}: expected {most}, got {found}")


def shown(value: Any) -> str:
    """Return the text of a value for an error message: one line, at most about 200 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python does not write numbers of many thousand digits
        text = f"a {type(value).__name__}"
    text = re.sub(r"\s*\n\s*", " ", text)  # of arrays
    return text if len(text) <= 200 else f"{text[:200]}..."


def check_known(name: str, names: Iterable[str], what: str) -> None:
    """Check that a name is a known one.

    Args:
        name: the name to check; what is no text is unknown.
        names: the known names.
        what: the beginning of the error message, such as "unknown split".

    Raises:
        UserError: if the name is unknown; gives the nearest known name, and all known names.
    """
    names = list(names)
    if name not in names:
        known, near = ", ".join(names), nearest(name, names) if isinstance(name, str) else ""
        raise UserError(f"{what} {shown(name)}{near}: expected one of {known}")


def nearest_path(path: str, paths: Iterable[str]) -> str:
    """Return ' (nearest: ...)' with up to three of the known dotted paths that are most similar to
    `path`, or ''.

    Those are the paths that end in the same name as `path`; if there are none, the paths whose last
    name has that name as a word; otherwise the one that is spelled most alike, by its last name or
    as a whole.
    """
    names = {each: each.rpartition(".")[2] for each in paths}
    wanted = path.rpartition(".")[2]
    found = [each for each, name in names.items() if name == wanted]
    if not found:
        found = [each for each, name in names.items() if wanted in re.split("[-_]", name)]
    if not found:
        spelled = {name: each for each, name in reversed(names.items())} | {n: n for n in names}
        near = difflib.get_close_matches(path, spelled, 1, cutoff=0.7)
        found = [spelled[name] for name in near]
    return f" (nearest: {', '.join(found[:3])})" if found else ""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ' (nearest: ...)' with the known name most similar to `name`, in upper or lower case,
    or ''."""
    known = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), known, 1, cutoff=0.5)
    return f" (nearest: {known[near[0]]})" if near else ""
