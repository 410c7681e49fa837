"""The keys of config sections and of task families, with their values and help texts."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass, replace
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

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
            yield Key(path, annotation, value, doc, bounds(constraints(annotation, metadata)))


def _fields(cls: type) -> Iterator[tuple[str, Any, Sequence[Any], Any, str]]:
    """Yield name, type, metadata, default (or MISSING) and docstring of a class's fields."""
    docs = field_docs(cls)
    if issubclass(cls, BaseModel):
        for name, field in cls.model_fields.items():
            default = field.get_default(call_default_factory=True)
            default = MISSING if field.is_required() else default
            yield name, field.annotation, field.metadata, default, docs.get(name, "")
    else:
        hints = typing.get_type_hints(cls)
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
    """Return the docstrings below the fields of a section or dataclass and of its base classes, by
    field. A class without source code, as one from an interactive session, has none."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base is BaseModel or not (is_dataclass(base) or issubclass(base, BaseModel)):
            continue
        body = _classes(sys.modules.get(base.__module__)).get(base.__qualname__, [])
        for statement, following in itertools.pairwise(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


@functools.cache
def _classes(module: ModuleType | None) -> dict[str, list[ast.stmt]]:
    """Return the statements of the classes of a module, by qualified name.

    A module is parsed once, when a help text is asked for. (`use_attribute_docstrings` of pydantic
    searches the stack for the source of every section as it is made: 0.2 s of an import.)
    """
    try:
        source = inspect.getsource(module) if module else ""
    except (OSError, TypeError):  # typed in, or not of Python
        return {}
    return dict(_classes_in(ast.parse(source), ""))


def _classes_in(node: ast.AST, prefix: str) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Yield the qualified names and the statements of the classes in a node; `prefix` begins each
    name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, child.body
            yield from _classes_in(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef):
            yield from _classes_in(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.stmt):
            yield from _classes_in(child, prefix)


def is_union(kind: Any) -> bool:
    """Return whether a type is a union, such as `int | None`."""
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def constraints(kind: Any, metadata: Sequence[Any]) -> list[Any]:
    """Return the constraints of a value: those in its metadata, and those in the members of a
    union, such as `Annotated[int, Field(ge=1)] | None`."""
    members = typing.get_args(kind) if is_union(kind) else ()
    inside = [typing.get_args(each)[1:] for each in members if typing.get_origin(each) is Annotated]
    return [
        each
        for item in itertools.chain(metadata, *inside)
        for each in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]


def bounds(metadata: Sequence[Any]) -> str:
    """Return the bounds of a field as text, such as `between 0 and 1`; '' for none."""
    names = [name for name, _ in LIMITS.values()]
    limits = {n: getattr(each, n) for each in metadata for n in names if hasattr(each, n)}
    if "ge" in limits and "le" in limits:
        return f"between {limits['ge']} and {limits['le']}"
    return ", ".join(f"{word} {limits[name]}" for name, word in LIMITS.values() if name in limits)
