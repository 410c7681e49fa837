"""Frozen dataclasses as the only schema of a config: strict reading, writing, and help texts."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal

from metarl.checks import ConfigError, nearest


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
        raise ConfigError(f"{path or 'config'}: expected keys with values, got {data!r}")
    types_by_name = hints(cls)
    names = [field.name for field in fields(cls)]
    for name in data:
        if name not in names:
            raise ConfigError(f"{prefix}{name}: unknown key{nearest(str(name), names)}")
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
    if is_dataclass(kind):
        cls = typing.cast(type, kind)
        return value if isinstance(value, cls) else build(cls, value, path)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = [arg for arg in args if arg is not type(None)]
        return convert(inner, value, path)
    if origin is Literal:
        if value not in args:
            hint = nearest(str(value), [str(arg) for arg in args])
            raise ConfigError(f"{path}: expected {type_name(kind)}, got {value!r}{hint}")
        return value
    if origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(convert(args[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    elif kind is float:
        number = _number(value)
        if number is not None:
            return number
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{path}: expected {type_name(kind)}, got {value!r}")


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        # YAML 1.1 reads 1e-3 (without a dot) as text.
        try:
            return float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def type_name(kind: Any) -> str:
    """Say a type in the words of a config's author."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if arg is type(None) else type_name(arg) for arg in args)
    if origin is tuple:
        return f"a list of {type_name(args[0])}s"
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def plain(value: Any) -> Any:
    """Return a dataclass as nested dicts and lists, fit for YAML and JSON."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return found


def keys(cls: type, prefix: str = "") -> Iterator[Key]:
    """List the leaves of a schema, depth first."""
    docs, types_by_name = field_docs(cls), hints(cls)
    for field in fields(cls):
        kind = types_by_name[field.name]
        if is_dataclass(kind) and not inspect.isabstract(kind):
            yield from keys(typing.cast(type, kind), f"{prefix}{field.name}.")
        else:
            yield Key(prefix + field.name, kind, default_of(field), docs.get(field.name, ""))


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
