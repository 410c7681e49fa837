"""Task families by name."""

from __future__ import annotations

import difflib
import importlib
import inspect
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from metarl.envs.bandit import Bandit
from metarl.envs.base import TaskFamily, is_class_variable
from metarl.envs.errors import located
from metarl.envs.external import GymnasiumFamily, MetaWorld
from metarl.envs.gridworld import GridWorld
from metarl.envs.mujoco.ant import AntDir, AntGoal, AntVel
from metarl.envs.mujoco.half_cheetah import HalfCheetahBody, HalfCheetahDir, HalfCheetahVel
from metarl.envs.mujoco.humanoid import HumanoidDir
from metarl.envs.mujoco.planar import HopperParams, WalkerParams, WalkerVel
from metarl.envs.point import PointNav
from metarl.envs.tabular import TabularMDP
from metarl.envs.wrappers.observed import TaskObserved

FAMILIES: dict[str, type[TaskFamily]] = {
    family.name: family
    for family in (
        PointNav,
        GridWorld,
        Bandit,
        TabularMDP,
        HalfCheetahVel,
        HalfCheetahDir,
        HalfCheetahBody,
        AntVel,
        AntDir,
        AntGoal,
        HumanoidDir,
        WalkerVel,
        WalkerParams,
        HopperParams,
        GymnasiumFamily,
        MetaWorld,
    )
}


def family_class(name: str) -> type[TaskFamily]:
    """Return the class of a registered family, or a user's own, named `package.module:Class`.

    Raises:
        ValueError: if there is no such family; the message names the nearest.
    """
    if not isinstance(name, str):
        raise ValueError(f"expected the name of a family, got {name!r}")
    if name in FAMILIES:
        return FAMILIES[name]
    if name in gymnasium.registry:
        raise ValueError(
            f"{name!r} is an environment of Gymnasium: expected the family gymnasium, with env_id: "
            f"{name} and the parameters that differ between tasks"
        )
    if ":" not in name:
        near = difflib.get_close_matches(name.lower(), FAMILIES, 1, cutoff=0.4)
        hint = f" (nearest: {near[0]})" if near else ""
        raise ValueError(
            f"unknown family {name!r}{hint}: expected one of {', '.join(FAMILIES)}, "
            "or your own as package.module:Class"
        )
    family = import_object(name)
    if not (isinstance(family, type) and issubclass(family, TaskFamily)):
        raise ValueError(f"{name!r} is not a subclass of metarl.envs.TaskFamily")
    if taken := name_of_another(family):
        raise ValueError(taken)
    return family


def name_of_another(family: type[TaskFamily]) -> str:
    """Return why the `name` of a family does not tell it from others; '' if it does. Runs and
    results with equal names are taken for ones on the same tasks."""
    name = getattr(family, "name", "")
    own = FAMILIES.get(name) is family
    bases = [base for base in family.__mro__[1:] if vars(base).get("name") == name]
    others = [] if own else [*filter(None, [FAMILIES.get(name)]), *bases]
    if not others:
        return ""
    named, other = (f"{cls.__module__}:{cls.__qualname__}" for cls in (family, others[0]))
    return f"{named} has the name {name!r} of {other}: expected a `name` of its own"


def undefined_members(cls: type[TaskFamily]) -> list[str]:
    """Return the names of the abstract methods, and of the class variables without a value, that a
    family has to define."""
    declared = {
        name
        for base in cls.__mro__
        for name, kind in inspect.get_annotations(base).items()
        if is_class_variable(kind) and not hasattr(cls, name)
    }
    return sorted(declared | cls.__abstractmethods__)


def import_object(name: str) -> Any:
    """Import the object named `package.module:name`.

    Raises:
        ValueError: if it cannot be imported; the message names the place in the user's code.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = _import_module(module_name)
        return getattr(module, attribute)
    except ValueError as error:
        raise ValueError(f"cannot import {name!r}: {error}") from error
    except AttributeError as error:
        near = difflib.get_close_matches(attribute, vars(module), 1, cutoff=0.6)
        hint = f" (nearest: {near[0]})" if near else ""
        raise ValueError(f"cannot import {name!r}: {error}{hint}") from error


def _import_module(name: str) -> ModuleType:
    """Import a module; any error of its code is a ValueError, whose message is one line."""
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        parts = Path(name.removesuffix(".py")).parts
        is_file = name.endswith(".py") and all(part.isidentifier() for part in parts)
        module = ".".join(parts) if is_file else "my_package.my_module"
        example = f"{module}:MyClass for a class of {module.replace('.', '/')}.py"
        raise ValueError(f"expected package.module:Class, such as {example}")
    try:
        return importlib.import_module(name)
    except SyntaxError as error:  # names file and line by itself
        raise ValueError(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            where = "run in the folder that holds it, or add that folder to PYTHONPATH"
            raise ValueError(f"{error} ({where})") from error
        raise ValueError(located(error)) from error


def family_name(family: TaskFamily) -> str:
    """Return the name by which `family_class` finds a family's class, wrapped or not."""
    cls = type(unwrapped(family))
    return cls.name if FAMILIES.get(cls.name) is cls else f"{cls.__module__}:{cls.__qualname__}"


def family_settings(family: TaskFamily) -> dict[str, Any]:
    """Return the keyword arguments with which `make_family` makes the same family again."""
    observed = {"observe_task": True} if isinstance(family, TaskObserved) else {}
    return {**asdict(unwrapped(family)), **observed}


def make_family(name: str, *, observe_task: bool = False, **fields: Any) -> TaskFamily:
    """Make a family by name, with its fields set as given.

    With `observe_task` every observation shows the task too: see `TaskObserved`.
    """
    family = family_class(name)(**fields)
    return TaskObserved(family) if observe_task else family


def unwrapped(family: TaskFamily) -> TaskFamily:
    """Return the family whose tasks `TaskObserved` shows, or the family itself."""
    return family.family if isinstance(family, TaskObserved) else family
