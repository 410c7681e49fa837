"""Nested plain values of a config, and their replacement by others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from metarl.core.errors import ConfigError, shown
from metarl.core.schema import Section
from metarl.core.schema_keys import plain

SECTIONS = ("agent", "evaluation", "sampling", "tracking")
"""Sections that have other sections and values inside, and no mappings as values."""
TAGS = {"agent": ("kind", "maml"), "agent.outer": ("update", "trpo")}
"""The keys that choose the kind of a section, and its default kind."""


def merged(data: Mapping[str, Any], values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested values with some of them replaced, key by key; a section of another kind is
    replaced as a whole.

    Args:
        data: the nested values.
        values: those that replace them.
        above: the path of the section that they are in, with a dot at its end.
    """
    found = dict(data)
    for key, value in values.items():
        inside, path = found.get(key), f"{above}{key}"
        if isinstance(inside, Mapping) and isinstance(value, Mapping):
            value = merged(inside if is_of_kind(path, value, inside) else {}, value, f"{path}.")
        found[key] = value
    return found


def is_of_kind(path: str, value: Mapping[str, Any], inside: Mapping[str, Any]) -> bool:
    """Return whether the section at a path keeps its kind where the values `inside` are replaced by
    those in `value`."""
    tag, default = TAGS.get(path, ("", ""))
    return tag not in value or value[tag] == inside.get(tag, default)


def value_at(data: Any, path: str) -> Any:
    """Return the value at a dotted path of nested values; None where there is none."""
    for key in path.split("."):
        data = plain(data)
        data = data.get(key) if isinstance(data, Mapping) else None
    return plain(data)


def own_values(path: str, value: Any, data: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of an override with their values: of a section those that are given,
    so that its other keys stay as they are in `data`. A section of another kind is replaced as a
    whole; so are mappings that are no sections, such as parameters of an environment."""
    inside = value_at(data, path)
    kept = (
        path.partition(".")[0] in SECTIONS
        and isinstance(value, Mapping)
        and isinstance(inside, Mapping)
        and is_of_kind(path, value, inside)
    )
    if not (kept and value):
        yield path, value
        return
    for key, each in value.items():
        yield from own_values(f"{path}.{key}", each, data)


def replaced(
    data: Mapping[str, Any], path: list[str], value: Any, source: str, above: str = ""
) -> dict[str, Any]:
    """Return nested values with the value at a path replaced.

    Args:
        data: the nested values.
        path: the keys from the outermost section to the value.
        value: the new value.
        source: name of the config in error messages.
        above: beginning of the path in error messages.

    Raises:
        ConfigError: if a section on the path is neither missing nor a mapping.
    """
    key, *rest = path
    if not rest:
        return {**data, key: value}
    inside = data.get(key)
    inside = {} if inside is None else inside
    if isinstance(inside, Section):
        inside = plain(inside)
    if not isinstance(inside, Mapping):
        raise ConfigError(f"{source}: {above}{key}: expected keys with values, got {shown(inside)}")
    return {**data, key: replaced(inside, rest, value, source, f"{above}{key}.")}


def paths_above(path: str) -> list[str]:
    """Return the dotted paths of the lists and sections that a path is in, the nearest first."""
    return [path[: match.start()] for match in re.finditer(r"[.\[]", path)][::-1]
