"""The values of a family's dataclass fields, checked by their annotations."""

from __future__ import annotations

import difflib
import typing
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

BOOLS = bool, np.bool_
LARGEST = float(np.finfo(np.float32).max)
"""The largest value of a field, that of single precision, which observations have."""
FINITE = "a finite number in single precision"


def check_fields(family: Any) -> None:
    """Check the fields of a dataclass whose annotations are `bool`, `int`, `float` or a `Literal`,
    and make numbers of those kinds of them: 3 in a field of the kind `float`, or NumPy's numbers,
    would have another text than 3.0, and so another hash.

    Other fields, and those of a class whose annotations cannot be evaluated, are left alone.

    Raises:
        ValueError: if a value is none of the choices, or not a number of its kind, or not finite in
            single precision; names the field, what was expected, and the nearest choice.
    """
    try:
        hints = typing.get_type_hints(type(family))
    except NameError:  # such as names that are only imported for type checkers
        return
    for field in fields(family):
        value, hint = getattr(family, field.name), hints[field.name]
        if expected := unmet(hint, value):
            near = difflib.get_close_matches(str(value), choices(hint), 1, cutoff=0.4)
            nearest = f" (nearest: {near[0]})" if near else ""
            raise ValueError(f"{field.name}: expected {expected}, got {value!r}{nearest}")
        if hint in (bool, int, float) and type(value) is not hint:
            object.__setattr__(family, field.name, hint(value))  # the dataclass is frozen


def unmet(hint: Any, value: object) -> str:
    """Return what an annotation expects, if a value is not that; otherwise ''."""
    number: Any = value if isinstance(value, Real) and not isinstance(value, BOOLS) else None
    if names := choices(hint):
        return "" if value in typing.get_args(hint) else f"one of {', '.join(names)}"
    if hint is bool:
        return "" if isinstance(value, BOOLS) else "true or false"
    if hint is int:
        return "" if isinstance(number, Integral) else "a whole number"
    if hint is float:
        # Infinity and NaN are refused too.
        return "" if number is not None and abs(number) <= LARGEST else FINITE
    return ""


def choices(hint: Any) -> list[str]:
    """Return the choices of a Literal as text; none of any other annotation."""
    return (
        [str(each) for each in typing.get_args(hint)] if typing.get_origin(hint) is Literal else []
    )
