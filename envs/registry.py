"""Task families by name."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from envs.base import TaskFamily
from envs.half_cheetah import HalfCheetahDir, HalfCheetahVel
from envs.point import PointNav

FAMILIES: dict[str, type[TaskFamily]] = {
    family.name: family for family in (PointNav, HalfCheetahVel, HalfCheetahDir)
}


def family_class(name: str) -> type[TaskFamily]:
    """Find a family by its registered name, or one of the user's own by `package.module:Class`.

    Raises:
        ValueError: if there is none; names the nearest.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, FAMILIES, 1, cutoff=0.4)
        hint = f" (nearest: {near[0]})" if near else ""
        raise ValueError(
            f"unknown family {name!r}{hint}: expected one of {', '.join(FAMILIES)}, "
            "or your own as package.module:Class"
        )
    module_name, _, class_name = name.partition(":")
    try:
        family = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import the family {name!r}: {error}") from error
    if not (isinstance(family, type) and issubclass(family, TaskFamily)):
        raise ValueError(f"{name!r} is not a subclass of envs.TaskFamily")
    return family


def family_name(family: TaskFamily) -> str:
    """Return the name by which `family_class` finds a family's class."""
    cls = type(family)
    return cls.name if FAMILIES.get(cls.name) is cls else f"{cls.__module__}:{cls.__qualname__}"


def make_family(name: str, **fields: Any) -> TaskFamily:
    """Make a family by name, with its fields set as given."""
    return family_class(name)(**fields)
