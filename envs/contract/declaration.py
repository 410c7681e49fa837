"""Checks of a family's declaration: its fields, its spaces, and whether it runs here."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import TaskFamily, is_class_variable
from metarl.envs.contract.recording import Skipped, expect
from metarl.envs.errors import located
from metarl.envs.external.process import WorkerError
from metarl.envs.registry import name_of_another

UNAVAILABLE = (ImportError, OSError, RuntimeError)
"""Errors of a family that lacks a package, a program or a library here."""


def availability(family: TaskFamily) -> str:
    """A batch environment can be made here: nothing that the family needs is missing."""
    try:
        env = family.make_batch(2, 2)
    except UNAVAILABLE as error:
        reason = error if isinstance(error, WorkerError) else located(error)
        raise Skipped(f"it cannot be made here: {reason}") from error
    for name, expected in (("num_episodes", 2), ("num_threads", 2), ("family", family)):
        got = getattr(env, name, None)
        expect(
            got == expected,
            f"batch environment: expected {name} to be {expected!r}, got {got!r}; "
            "call BatchEnv.__init__(family, num_episodes, num_threads)",
        )
    return ""


def declaration(family: TaskFamily) -> str:
    """A frozen dataclass with a name, a source and a docstring, made again from its fields."""
    cls = type(family)
    for name in ("name", "source"):
        text = getattr(family, name, None)
        expect(isinstance(text, str) and text, f"{name}: expected a text, got {text!r}; set it")
    doc = (cls.__doc__ or "").strip()
    generated = doc.startswith(f"{cls.__name__}(")  # by the dataclass decorator
    expect(doc and not generated, f"{cls.__name__} has no docstring; say what is to be done")
    fields = {field.name for field in dataclasses.fields(family)}
    own = {
        name for name, kind in inspect.get_annotations(cls).items() if not is_class_variable(kind)
    }
    expect(
        own <= fields,
        f"{', '.join(sorted(own - fields))}: no field of the dataclass; put "
        f"@dataclass(frozen=True) above {cls.__name__}, or declare it as a ClassVar",
    )
    values = {f.name: getattr(family, f.name) for f in dataclasses.fields(family) if f.init}
    expect(cls(**values) == family, "made again from its fields, the family is another")
    tasks = family.sample_tasks(np.random.default_rng(0), 2)
    changed = dataclasses.replace(family, **_other_horizon(family))
    expect(
        family.task_hash(tasks) == cls(**values).task_hash(tasks) != changed.task_hash(tasks),
        "task_hash: expected the same for the same fields, and another for another horizon",
    )
    expect(not (taken := name_of_another(cls)), f"name: {taken}")
    return ""


def _other_horizon(family: TaskFamily) -> dict[str, object]:
    """Return fields that give a family, or the family that it wraps, another horizon."""
    if {field.name: field.init for field in dataclasses.fields(family)}["horizon"]:
        # Shorter if possible: an environment may have a maximum horizon.
        return {"horizon": family.horizon - 1 or 2}
    inner = {
        field.name: getattr(family, field.name)
        for field in dataclasses.fields(family)
        if isinstance(getattr(family, field.name), TaskFamily)
    }
    return {
        name: dataclasses.replace(wrapped, **_other_horizon(wrapped))
        for name, wrapped in inner.items()
    }


def spaces(family: TaskFamily) -> str:
    """Observation and task spaces are Boxes of one axis, the action space is such or Discrete."""
    for name in ("observation_space", "task_space"):
        _expect_vector(name, getattr(family, name))
        expect(
            getattr(family, name) == getattr(family, name),
            f"{name}: expected the same each time it is asked for",
        )
    space = family.action_space
    if isinstance(space, Discrete):
        expect(space.start == 0, f"action_space: expected to start at 0, got {space.start}")
        size = 1
    else:
        _expect_vector("action_space", space)
        expect((space.low < space.high).all(), "action_space: expected low below high")
        size = space.shape[0]
    expect(
        family.action_dim == size,
        f"action_dim: expected {size}, its space's, got {family.action_dim}; do not override it",
    )
    rate = family.frames_per_second
    expect(rate > 0, f"frames_per_second: expected more than 0, got {rate}")
    return ""


def _expect_vector(name: str, space: object) -> None:
    expect(isinstance(space, Box), f"{name}: expected a Box, got {type(space).__name__}")
    assert isinstance(space, Box)
    expect(
        len(space.shape) == 1 and space.shape[0] > 0,
        f"{name}: expected one axis, (n,), got the shape {space.shape}; flatten it",
    )
    expect(
        np.issubdtype(space.dtype, np.floating),
        f"{name}: expected a floating dtype, got {space.dtype}; use np.float64 or np.float32",
    )
