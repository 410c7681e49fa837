"""The keys of config sections and of task families, with their values and help texts."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, BeforeValidator

LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
"""By pydantic's name of the error: the attribute with the bound, and the bound's text in errors."""


@dataclass(frozen=True)
class Choice(BeforeValidator):
    """Validator of a tagged union of sections.

    Attributes:
        func: makes the section from its values by key.
        tag: the key whose value selects the section.
        names: the possible values of the tag.
    """

    tag: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Key:
    """A key of a config whose value is not a section.

    Attributes:
        path: dotted path, such as `agent.inner.lr`.
        type: type of the value.
        default: default value, MISSING for a required key; or the value of the instance for which
            the keys were listed.
        doc: help text.
        bounds: bounds as text, such as `at least 1`; '' for none.
    """

    path: str
    type: Any
    default: Any
    doc: str
    bounds: str = ""


def keys(cls: type, prefix: str = "", like: Any = None) -> Iterator[Key]:
    """List the keys of a section or dataclass and of its nested sections, depth first.

    Args:
        cls: the class.
        prefix: beginning of the paths.
        like: an instance whose values replace the defaults, and whose sections are listed for
            tagged unions; None lists the default sections.
    """
    for name, annotation, metadata, default, doc in _fields(cls):
        path, value = prefix + name, getattr(like, name, default)
        if isinstance(value, BaseModel):
            tags = {f"{path}.{x.tag}": x.names for x in metadata if isinstance(x, Choice)}
            for key in keys(type(value), f"{path}.", value):
                names = tags.get(key.path)
                yield replace(key, type=Literal[names]) if names else key
        else:
            yield Key(path, annotation, value, doc, bounds(metadata))


def _fields(cls: type) -> Iterator[tuple[str, Any, Sequence[Any], Any, str]]:
    """Yield name, type, metadata, default (or MISSING) and docstring of a class's fields."""
    if issubclass(cls, BaseModel):
        for name, field in cls.model_fields.items():
            default = field.get_default(call_default_factory=True)
            default = MISSING if field.is_required() else default
            doc = " ".join((field.description or "").split())
            yield name, field.annotation, field.metadata, default, doc
    else:
        hints, docs = typing.get_type_hints(cls), field_docs(cls)
        for field in dataclasses.fields(cls):
            yield field.name, hints[field.name], (), default_of(field), docs.get(field.name, "")


def plain(value: Any) -> Any:
    """Return a section or dataclass as nested dicts and lists, for YAML and JSON."""
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return value


def by_path(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted path, such as `agent.inner.lr`; `prefix` begins each path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        found |= by_path(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return found


def default_of(field: dataclasses.Field) -> Any:
    """Return a field's default, or MISSING."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def is_required(field: dataclasses.Field) -> bool:
    """Return whether a field has no default."""
    return field.default is MISSING and field.default_factory is MISSING


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstrings below the fields of a dataclass and its base classes, by field."""
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


def bounds(metadata: Sequence[Any]) -> str:
    """Return the bounds of a field as text, such as `between 0 and 1`; '' for none."""
    names = [name for name, _ in LIMITS.values()]
    limits = {n: getattr(each, n) for each in metadata for n in names if hasattr(each, n)}
    if "ge" in limits and "le" in limits:
        return f"between {limits['ge']} and {limits['le']}"
    return ", ".join(f"{word} {limits[name]}" for name, word in LIMITS.values() if name in limits)
