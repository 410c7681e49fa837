"""Frozen dataclasses as the only schema of a config: strict reading, writing, and help texts."""

from __future__ import annotations

import ast
import functools
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from metarl.core.errors import ConfigError, nearest, shown


@dataclass(frozen=True)
class Key:
    """One leaf of a schema: its path ('inner.lr'), type, default (or MISSING) and docstring."""

    path: str
    type: Any
    default: Any
    doc: str


def build(cls: type, data: Any, path: str = "") -> Any:
    """Make a dataclass from nested mappings, checking every key and value.

    Raises:
        ConfigError: naming the key by its path, what was expected, and the nearest known key.
    """
    prefix = f"{path}." if path else ""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path or 'config'}: expected keys with values, got {shown(data)}")
    types_by_name = hints(cls)
    names = [field.name for field in fields(cls)]
    for name in data:
        if name not in names:
            key = name if isinstance(name, str) else shown(name)
            raise ConfigError(f"{prefix}{key}: unknown key{nearest(key, names)}")
    values = {name: convert(types_by_name[name], data[name], prefix + name) for name in data}
    missing = [field.name for field in fields(cls) if is_required(field) and field.name not in data]
    if missing:
        raise ConfigError(f"{prefix}{missing[0]}: missing")
    try:
        return cls(**values)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{prefix}{error}") from error


def convert(kind: Any, value: Any, path: str) -> Any:
    """Check a plain value against a type, and return it as that type.

    Raises:
        ConfigError: if it does not fit.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        cls = typing.cast(type, kind)
        return value if isinstance(value, cls) else build(cls, value, path)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        members = [arg for arg in args if arg is not type(None)]
        if len(members) > 1:
            return build_choice(members, value, path)
        return convert(members[0], value, path)
    if origin is Literal:
        if value not in args:
            hint = nearest(str(value), [str(arg) for arg in args])
            raise ConfigError(f"{path}: expected {type_name(kind)}, got {shown(value)}{hint}")
        return value
    if origin is tuple:
        if isinstance(value, list | tuple) and (args[-1] is ... or len(value) == len(args)):
            return tuple(convert(args[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    elif origin is Mapping:
        if isinstance(value, Mapping):
            return {
                convert(args[0], name, f"{path}: a name"): convert(args[1], item, f"{path}.{name}")
                for name, item in value.items()
            }
    elif kind is float:
        number = _number(value)
        if number is not None:
            return number
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{path}: expected {type_name(kind)}, got {shown(value)}")


def build_choice(members: Sequence[type], value: Any, path: str) -> Any:
    """Make one of several dataclasses: their first field, a `Literal`, tells which.

    Raises:
        ConfigError: as `build`, and if it tells of none of them.
    """
    if isinstance(value, tuple(members)):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: expected keys with values, got {shown(value)}")
    tag, tags = choices(members)
    name = value.get(tag, next(iter(tags)))
    if not isinstance(name, str) or name not in tags:
        hint = nearest(str(name), tags)
        expected = "one of " + ", ".join(tags)
        raise ConfigError(f"{path}.{tag}: expected {expected}, got {shown(name)}{hint}")
    try:
        return build(tags[name], value, path)
    except ConfigError as error:
        # The same key may well be known where another member is chosen.
        raise ConfigError(
            str(error).replace("unknown key", f"unknown key where {path}.{tag} is {name}")
        ) from None


def choices(members: Sequence[type]) -> tuple[str, dict[str, type]]:
    """Return the name of the field that tells dataclasses apart, and them by its value."""
    tag = fields(members[0])[0].name
    return tag, {typing.get_args(hints(member)[tag])[0]: member for member in members}


def _number(value: Any) -> float | None:
    """Return a finite number; of a text too, as YAML 1.1 reads 1e-3 (without a dot) as one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def type_name(kind: Any) -> str:
    """Say a type in the words of a config's author."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if arg is type(None) else type_name(arg) for arg in args)
    if origin is tuple:
        count = "" if args[-1] is ... else f"{len(args)} "
        return f"a list of {count}{type_name(args[0])}s"
    if origin is Mapping:
        return f"names with {type_name(args[1])} each"
    names = {
        int: "whole number",
        float: "number",
        bool: "true or false",
        str: "text",
        Any: "a value",
    }
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def plain(value: Any) -> Any:
    """Return a dataclass as nested dicts and lists, fit for YAML and JSON."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return found


def keys(cls: type, prefix: str = "", like: Any = None) -> Iterator[Key]:
    """List the leaves of a schema, depth first.

    Args:
        cls: a dataclass.
        prefix: of the paths.
        like: an instance, whose choices are made where there are some; by default the first ones.
    """
    docs, types_by_name = field_docs(cls), hints(cls)
    for field in fields(cls):
        kind, path = types_by_name[field.name], prefix + field.name
        chosen = getattr(like, field.name, None)
        members = [typing.cast(type, arg) for arg in typing.get_args(kind) if is_dataclass(arg)]
        if members:
            tag, tags = choices(members)
            member = type(chosen) if chosen is not None else members[0]
            for key in keys(member, f"{path}.", chosen):
                is_tag = key.path == f"{path}.{tag}"
                yield replace(key, type=Literal[tuple(tags)]) if is_tag else key
        elif is_dataclass(kind) and not inspect.isabstract(kind):
            yield from keys(typing.cast(type, kind), f"{path}.", chosen)
        else:
            yield Key(path, kind, default_of(field), docs.get(field.name, ""))


def default_of(field: Any) -> Any:
    """Return a field's default, or MISSING."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def is_required(field: Any) -> bool:
    """Say whether a field has no default."""
    return field.default is MISSING and field.default_factory is MISSING


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Return the types of a class's annotations, evaluated."""
    return typing.get_type_hints(cls)


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstrings that stand below the fields of a dataclass and its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs
