"""Sections of a config: frozen pydantic models with error messages of one line.

The bounds of a field are part of its annotation (`Field(ge=1)`), and its docstring is its help
text. Validation is strict: a bool or a text is not a number, and NaN is not allowed.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Self, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    create_model,
    model_validator,
)

from metarl.core.errors import ConfigError, check, nearest, shown
from metarl.core.schema_errors import CHOICE, error_message
from metarl.core.schema_keys import Choice, default_of, is_required, plain

LARGEST = float(np.finfo(np.float32).max)
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
LayerSize = Annotated[int, Field(ge=1, le=4096)]


class Section(BaseModel):
    """An immutable section of a config. An invalid value raises a `ConfigError` of one line."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
    )

    def __init__(self, **values: Any) -> None:
        """Validate the values.

        Raises:
            ConfigError: if a key is unknown or a value is invalid; gives the path of the key in
                this section, the expected value, the given value, and the nearest known name.
        """
        try:
            super().__init__(**{name: _plain(value) for name, value in values.items()})
        except ValidationError as error:
            raise ConfigError(error_message(type(self), error.errors()[0])) from None

    @model_validator(mode="after")
    def _single_precision(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                fits = not isinstance(number, float) or abs(number) <= LARGEST
                check(fits, name, "a finite number in single precision", number)
        return self

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values replaced; all values are validated again.

        Raises:
            ConfigError: if a value is invalid, or a key is one of a section below.
        """
        for key in changes:
            if "." in key:
                instead = "metarl.load_config(config, **changes) takes dotted keys"
                raise ConfigError(f"{key}: expected {key.partition('.')[0]}, a section; {instead}")
        return type(self)(**{**dict(self), **changes})


def _plain(value: Any) -> Any:
    """Return nested values with all lists replaced by tuples, since sections are immutable, and
    NumPy's numbers by Python's."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if isinstance(value, np.generic):
        return value.item()
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


S = TypeVar("S", bound=Section)


def one_of(tag: str, members: Mapping[str, type[Section]]) -> Choice:
    """Return the validator of a tagged union of sections.

    Args:
        tag: the key whose value selects the section, such as `update`.
        members: the sections by value of the tag; the first section is the default.
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
    """Make one section of a tagged union.

    Args:
        cls: the section.
        values: the values by key.
        where: the selection as text, such as "update is ppo".
        others: all sections of the union, by value of the tag.

    Raises:
        ConfigError: as `Section`; the error at an unknown key names the other sections with this
            key.
    """
    try:
        return cls(**values)
    except ConfigError as error:
        known = {name: other.model_fields for name, other in others.items()}
        if misplaced := key_of_others(error, where, known):
            raise misplaced from None
        key, _, reason = str(error).partition(": ")
        if not reason.startswith("unknown key") or "." in key:
            raise
        raise ConfigError(f"{key}: {CHOICE}{where}{reason[11:]}") from None


def key_of_others(
    error: ConfigError, where: str, others: Mapping[str, Collection[str]]
) -> ConfigError | None:
    """Return the error at a key that only other choices have, which it names; None for an error of
    another kind, or at a key that no choice has.

    Args:
        error: the error at the values of a choice.
        where: the choice as text, such as "update is ppo".
        others: the keys of all choices, by name.
    """
    key, _, reason = str(error).partition(": ")
    owners = [name for name, known in others.items() if key in known]
    if not (owners and reason.startswith("unknown key")):
        return None
    return ConfigError(f"{key}: {CHOICE}{where} (known where it is {' or '.join(owners)})")


def build(cls: type, values: Mapping[str, Any]) -> Any:
    """Make a plain dataclass, such as a task family, from values validated as in `Section`.

    Raises:
        ConfigError: as `Section`, or if the class raises ValueError.
    """
    section = _section_of(cls)(**values)
    try:
        return cls(**{name: getattr(section, name) for name in section.model_fields_set})
    except ValueError as error:
        raise ConfigError(str(error)) from error


@functools.cache
def _section_of(cls: type) -> type[Section]:
    """Return a section with the fields of a dataclass as keys."""
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
