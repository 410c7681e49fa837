"""The sections of a config: frozen pydantic models whose errors are one line.

A field's bounds stand beside it (`Field(ge=1)`), and its docstring is its help text. Values are
taken strictly: no bool for a number, no text for a number, no NaN.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    InstanceOf,
    ValidationError,
    create_model,
)

from metarl.core.errors import ConfigError, nearest, shown
from metarl.core.schema_errors import CHOICE, error_message
from metarl.core.schema_keys import Choice, default_of, is_required, plain


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
            raise ConfigError(error_message(type(self), error.errors()[0])) from None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values replaced, checked like new ones."""
        return type(self)(**{**dict(self), **changes})


def _tuples(value: Any) -> Any:
    """Return YAML's and JSON's lists as tuples, which frozen sections hold."""
    if isinstance(value, list | tuple):
        return tuple(map(_tuples, value))
    return {k: _tuples(v) for k, v in value.items()} if isinstance(value, dict) else value


S = TypeVar("S", bound=Section)


def one_of(tag: str, members: Mapping[str, type[Section]]) -> Choice:
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

    return Choice(make, tag=tag, names=tuple(members))


def make_member(
    cls: type[S], values: Mapping[str, Any], where: str, others: Mapping[str, type[Section]]
) -> S:
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
        raise ConfigError(f"{key}: {CHOICE}{where}{hint}") from None


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
            if dataclasses.is_dataclass(hints[field.name])
            else hints[field.name],
            ... if is_required(field) else default_of(field),
        )
        for field in dataclasses.fields(cls)
        if field.init
    }
    return create_model(cls.__name__, __base__=Section, **fields)
