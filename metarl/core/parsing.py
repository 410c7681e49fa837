"""Texts that may come from anybody, read as data: whole, or refused in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from metarl.core.errors import UserError

MOST_VALUES = 10_000  # of a YAML text: aliases let few bytes stand for any number of values
DEEPEST = 20  # levels of nesting

# YAML 1.1, which PyYAML reads and writes, takes 1e-3 for a text, as it has no dot.
EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


class YAMLLoader(yaml.SafeLoader):
    """Reads plain values, and 1e-3 as a number."""


class YAMLDumper(yaml.SafeDumper):
    """Writes plain values, and a text such as 1e-3 in quotes."""


for _each in (YAMLLoader, YAMLDumper):
    _each.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


def read_yaml(text: str, source: str) -> Any:
    """Return what a YAML text holds: plain values, no objects.

    Raises:
        UserError: naming the source, if it is not readable, too deep, or holds too many values.
    """
    try:
        check_depth(text, source)
        data = YAMLLoader(text).get_single_data()
    except UserError:
        raise
    except Exception as error:  # PyYAML raises almost anything at a wrong tag, date or number
        raise UserError(f"{source}: not readable as YAML: {brief(error)}") from error
    check_size(data, source)
    return data


def dump_yaml(data: Any) -> str:
    """Return plain values as a YAML text, which `read_yaml` reads as the same values."""
    return yaml.dump(data, Dumper=YAMLDumper, sort_keys=False)


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
