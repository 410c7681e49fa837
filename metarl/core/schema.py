"""The sections of a config: frozen pydantic models whose errors are one line, and their keys.

A field's bounds stand beside it (`Field(ge=1)`), and its docstring is its help text. Values are
taken strictly: no bool for a number, no text for a number, no NaN.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, InstanceOf, ValidationError
from pydantic import create_model as create_pydantic_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from metarl.core.errors import ConfigError, nearest, shown


class Section(BaseModel):
    """A section of a config, immutable. Wrong values raise a `ConfigError` of one line."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def __init__(self, **values: Any) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the key by its path within this section, what was expected, the
                value, and the nearest known key or value.
        """
        try:
            super().__init__(**{name: _tuples(value) for name, value in values.items()})
        except ValidationError as error:
            raise ConfigError(_message(type(self), error.errors()[0])) from None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values replaced, checked like new ones."""
        return type(self)(**{**dict(self), **changes})


def _tuples(value: Any) -> Any:
    """Return YAML's and JSON's lists as tuples, which frozen sections hold."""
    if isinstance(value, list | tuple):
        return tuple(map(_tuples, value))
    return {k: _tuples(v) for k, v in value.items()} if isinstance(value, dict) else value


LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
"""What pydantic calls a broken bound, the bound's name, and how an error says it."""


def _message(cls: type[BaseModel], error: ErrorDetails) -> str:
    """Return an error of pydantic as one line: `key: expected ..., got ...`."""
    loc, kind = error["loc"], error["type"]
    if kind == "missing" and isinstance(loc[-1], int):
        loc = loc[:-1]  # not the missing element is wrong, but the number of elements
    path = _path(loc)
    if kind == "extra_forbidden":
        return f"{path}: unknown key{nearest(path, cls.model_fields)}"
    if kind == "missing" and len(loc) == 1 and loc == error["loc"]:
        return f"{path}: missing"
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, ConfigError):  # of a section within this one, or of a check of ours
        return f"{path}.{reason}".removeprefix(".")
    if isinstance(reason, ValueError):
        return f"{path}: {reason}"
    field = cls.model_fields[str(loc[0])]
    annotation, metadata = _element(field.annotation, field.metadata, loc[1:])
    wanted, hint = type_name(annotation), ""
    if kind in LIMITS:
        wanted = bounds(metadata)
    elif kind == "literal_error":
        hint = nearest(str(error["input"]), map(str, typing.get_args(annotation)))
    return f"{path}: expected {wanted}, got {shown(plain(error['input']))}{hint}"


def _path(loc: Sequence[int | str]) -> str:
    """Return the place of an error: `key`, `key[2]`, `key.name`, `key: a name`."""
    if loc and loc[-1] == "[key]":  # after the key itself
        return f"{_path(loc[:-2])}: a name"
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return path.removeprefix(".")


def _element(
    annotation: Any, metadata: Sequence[Any], loc: Sequence[int | str]
) -> tuple[Any, Sequence[Any]]:
    """Return type and metadata of an element of a value, given those of the value."""
    for part in loc:
        args = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        if typing.get_origin(annotation) in (typing.Union, types.UnionType) and len(args) == 1:
            args = list(typing.get_args(args[0]))
        if not args:
            break
        annotation, metadata = args[0 if isinstance(part, int) or part == "[key]" else -1], ()
        if typing.get_origin(annotation) is Annotated:
            annotation, *metadata = typing.get_args(annotation)
            metadata = _constraints(metadata)
    return annotation, metadata


def _constraints(metadata: Sequence[Any]) -> list[Any]:
    """Return the constraints of an annotation, those inside of pydantic's `Field` too."""
    return [
        each
        for item in metadata
        for each in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]


def one_of(tag: str, members: Mapping[str, type[Section]]) -> BeforeValidator:
    """Return what makes one of several sections from its keys, of which `tag` tells which.

    Without the tag it is the first one.

    Args:
        tag: the key, such as `update`.
        members: by the tag's value.
    """

    def make(value: Any) -> Any:
        if isinstance(value, tuple(members.values())):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"expected keys with values, got {shown(plain(value))}")
        name = value.get(tag, next(iter(members)))
        if not isinstance(name, str) or name not in members:
            near = nearest(str(name), members)
            known = ", ".join(members)
            raise ConfigError(f"{tag}: expected one of {known}, got {shown(name)}{near}")
        return make_member(members[name], value, f"{tag} is {name}", members)

    return BeforeValidator(make)


SectionType = TypeVar("SectionType", bound=Section)


def make_member(
    cls: type[SectionType],
    values: Mapping[str, Any],
    where: str,
    others: Mapping[str, type[Section]],
) -> SectionType:
    """Make one of several sections; a key that others have is refused saying which.

    Args:
        cls: the section.
        values: its keys.
        where: the choice that was made, in words.
        others: all of the sections, by name.

    Raises:
        ConfigError: as `Section`.
    """
    try:
        return cls(**values)
    except ConfigError as error:
        key, _, reason = str(error).partition(": ")
        if not reason.startswith("unknown key") or "." in key:
            raise
        owners = [name for name, other in others.items() if key in other.model_fields]
        hint = f" (known where it is {' or '.join(owners)})" if owners else reason[11:]
        raise ConfigError(f"{key}: unknown key where {where}{hint}") from None


def build(cls: type, values: Mapping[str, Any]) -> Any:
    """Make a plain dataclass, such as a task family, from values checked like a section's.

    Raises:
        ConfigError: as `Section`, and where the class itself refuses a value.
    """
    section = _section_of(cls)(**values)
    try:
        return cls(**{name: getattr(section, name) for name in section.model_fields_set})
    except ValueError as error:
        raise ConfigError(str(error)) from error


@functools.cache
def _section_of(cls: type) -> type[Section]:
    """Return the section whose keys are the fields of a dataclass."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields: dict[str, Any] = {
        field.name: (
            Annotated[InstanceOf[hints[field.name]], ...]
            if is_dataclass(hints[field.name])
            else hints[field.name],
            ... if is_required(field) else default_of(field),
        )
        for field in dataclasses.fields(cls)
        if field.init
    }
    return create_pydantic_model(cls.__name__, __base__=Section, **fields)


@dataclass(frozen=True)
class Key:
    """One leaf of a schema.

    Attributes:
        path: such as `agent.inner.lr`.
        type: of its values.
        default: the value without one given, MISSING if one must be; in a listing like an
            instance, that instance's value.
        doc: its help text.
        bounds: in words, such as `at least 1`; '' for none.
    """

    path: str
    type: Any
    default: Any
    doc: str
    bounds: str = ""


def keys(cls: type, prefix: str = "", like: Any = None) -> Iterator[Key]:
    """List the leaves of a section or dataclass, depth first.

    Args:
        cls: the class.
        prefix: of the paths.
        like: an instance, whose values are the defaults and whose choices are made where there
            are some; by default the first ones.
    """
    for name, annotation, metadata, default, doc in _fields(cls):
        path, value = prefix + name, getattr(like, name, default)
        if isinstance(value, Section):
            yield from keys(type(value), f"{path}.", value)
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
    """Return a section or dataclass as nested dicts and lists, fit for YAML and JSON."""
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


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return found


def bounds(metadata: Sequence[Any]) -> str:
    """Return the bounds of a number, such as `between 0 and 1`; '' for none."""
    names = [name for name, _ in LIMITS.values()]
    limits = {n: getattr(each, n) for each in metadata for n in names if hasattr(each, n)}
    if "ge" in limits and "le" in limits:
        return f"between {limits['ge']} and {limits['le']}"
    return ", ".join(f"{word} {limits[name]}" for name, word in LIMITS.values() if name in limits)


def type_name(kind: Any) -> str:
    """Return a type in the words of a config's author."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return type_name(args[0])
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin in (typing.Union, types.UnionType):
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
    if isinstance(kind, type) and issubclass(kind, Section):
        return "keys with values"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def default_of(field: dataclasses.Field) -> Any:
    """Return a field's default, or MISSING."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def is_required(field: dataclasses.Field) -> bool:
    """Return whether a field has no default."""
    return field.default is MISSING and field.default_factory is MISSING


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
