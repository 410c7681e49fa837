"""Error messages of config sections, and names of types, for readers who know YAML, not Python."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from metarl.core.errors import ConfigError, nearest, shown
from metarl.core.schema_keys import LIMITS, bounds, constraints, is_union, plain

LISTS = {
    "a list of whole numbers": '"[32, 32]"',
    "a list of numbers": '"[0.1, 0.2]"',
    "a list of texts": '"[a, b]"',
}
"""Lists as they are written in a command line, by what is expected."""
CHOICE = "unknown key where "
"""Beginning of the error at a key of another section of a tagged union, before the selection."""


def error_message(cls: type[BaseModel], error: ErrorDetails) -> str:
    """Return an error of pydantic as one line: `key: expected ..., got ...`.

    Args:
        cls: the section that raised the error.
        error: the first error of the section.
    """
    loc, kind = error["loc"], error["type"]
    if kind == "missing" and isinstance(loc[-1], int):
        loc = loc[:-1]  # a list with too few elements: the error is of the list
    path = _path(loc)
    if kind == "extra_forbidden":
        return f"{path}: unknown key{nearest(path, cls.model_fields)}"
    if kind == "missing" and len(loc) == 1 and loc == error["loc"]:
        return f"{path}: missing"
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, ConfigError):  # raised by a nested section, or by `check`
        inside = f"{path}." if path else ""
        return inside + str(reason).replace(CHOICE, f"{CHOICE}{inside}")
    if isinstance(reason, ValueError):
        return f"{path}: {reason}"
    field = cls.model_fields[str(loc[0])]
    annotation, metadata = _element(field.annotation, field.metadata, loc[1:])
    wanted, hint = type_name(annotation), ""
    if kind in LIMITS:
        wanted = bounds(constraints(annotation, metadata))
    elif kind == "literal_error":
        hint = nearest(str(error["input"]), map(str, typing.get_args(annotation)))
    elif wanted in LISTS and not isinstance(error["input"], (list, tuple)):
        wanted += f", such as {LISTS[wanted]}"
    return f"{path}: expected {wanted}, got {shown(plain(error['input']))}{hint}"


def _path(loc: Sequence[int | str]) -> str:
    """Return the location of an error as text: `key`, `key[2]`, `key.name`, `key: a name`."""
    if loc and loc[-1] == "[key]":  # pydantic's mark of an invalid key of a mapping
        return f"{_path(loc[:-2])}: a name"
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return path.removeprefix(".")


def _element(
    annotation: Any, metadata: Sequence[Any], loc: Sequence[int | str]
) -> tuple[Any, Sequence[Any]]:
    """Return type and metadata of a nested element, given type and metadata of the whole value."""
    for part in loc:
        args = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        if is_union(annotation) and len(args) == 1:
            args = list(typing.get_args(args[0]))
        if not args:
            break
        annotation, metadata = args[0 if isinstance(part, int) or part == "[key]" else -1], ()
        if typing.get_origin(annotation) is Annotated:
            annotation, *metadata = typing.get_args(annotation)
    return annotation, metadata


def type_name(kind: Any) -> str:
    """Return the name of a type in error messages and help texts, such as "whole number"."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return type_name(args[0])
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if is_union(kind):
        return " or ".join("null" if arg is type(None) else type_name(arg) for arg in args)
    if origin is tuple:
        count = "" if args[-1] is ... else f"{len(args)} "
        return f"a list of {count}{type_name(args[0])}s"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"names with {type_name(args[1])} each"
    names = {
        int: "whole number",
        float: "number",
        bool: "true or false",
        str: "text",
        Any: "a value",
    }
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "keys with values"
    return names.get(kind, getattr(kind, "__name__", str(kind)))
