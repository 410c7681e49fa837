"""Texts that may come from anybody, read as data: whole, or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from metarl.core.errors import UserError

MOST_VALUES = 10_000  # of a YAML text: aliases let few bytes stand for any number of values
DEEPEST = 20  # levels of nesting


def read_yaml(text: str, source: str) -> Any:
    """Return what a YAML text holds: plain values, no objects.

    Raises:
        UserError: naming the source, if it is not readable, too deep, or holds too many values.
    """
    try:
        check_depth(text, source)
        data = yaml.safe_load(text)
    except UserError:
        raise
    except Exception as error:  # PyYAML raises almost anything at a wrong tag, date or number
        raise UserError(f"{source}: not readable as YAML: {brief(error)}") from error
    check_size(data, source)
    return data


def check_depth(text: str, source: str) -> None:
    """Refuse a YAML text that is nested deeper than is useful, which PyYAML would take minutes for.

    Raises:
        UserError: naming the source.
    """
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise UserError(f"{source}: expected at most {DEEPEST} levels of nesting")


def check_size(data: Any, source: str) -> None:
    """Refuse nested values that are too many to work with: an alias may even hold itself.

    Raises:
        UserError: naming the source.
    """
    count, level = 0, [data]
    while level:
        below: list[Any] = []
        for value in level:
            inside = [*value, *value.values()] if isinstance(value, Mapping) else value
            below += inside if isinstance(inside, list | tuple | set) else []
            if count + len(below) > MOST_VALUES:
                raise UserError(f"{source}: expected at most {MOST_VALUES} values")
        count, level = count + len(below), below


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        UserError: naming the file, if it is not readable.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON: {brief(error)}") from error


def brief(error: BaseException) -> str:
    """Return what an error says, short and on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return printable(text if len(text) <= 200 else f"{text[:200]}...")


def printable(text: str) -> str:
    """Return a text without control characters, which would steer a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def is_number(value: Any) -> TypeGuard[float]:
    """Say whether a value is a finite number, of a size that can be worked with."""
    return type(value) in (int, float) and abs(value) < 1e300


def format_value(value: Any) -> str:
    """Return a config value as a user would write it in YAML."""
    if isinstance(value, tuple):
        return str(list(value))
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
