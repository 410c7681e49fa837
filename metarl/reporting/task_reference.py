"""The reference of the task families, written from the code.

    python -m metarl.reporting.task_reference > docs/tasks.md

A test compares that file with what the command prints.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING

from gymnasium.spaces import Box, Discrete

from metarl.core.parsing import plain_text
from metarl.core.schema_errors import type_name
from metarl.core.schema_keys import keys
from metarl.envs import FAMILIES, ExternalFamily, TaskFamily, make_family
from metarl.envs.mujoco.family import MujocoFamily
from metarl.reporting.tables import action_text, space_text

THEIRS = "as its environment has"
"""Said of families whose environments this page must not need: they may not be installed."""

HEAD = """\
# Task families

<!-- Written by: python -m metarl.reporting.task_reference > docs/tasks.md -->

A config names a family and its fields under `env` (`family: point_nav`, `horizon: 50`); each field
is a flag too (`--env.horizon 50`). With `observe_task: true` any family shows its task to the
policy. `metarl list families` prints the table, and `metarl check-env FAMILY` checks a family,
yours too, against what training relies on.

Every task is also a Gymnasium environment, whose further arguments are the fields:
`gymnasium.make("metarl/PointNav-v0", task=[0.2, -0.3])`. The registered environments take actions
up to 1; everywhere else a family's `action_scale` says which action is the largest.

A task is a row of numbers. `n x [low, high]` are n of them with the same bounds.
"""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Return the reference as Markdown."""
    families = [make_family(name) for name in FAMILIES]
    sections = [section(family) for family in families]
    return "\n".join([HEAD, *overview(families), "", "\n\n".join(sections), ""])


def overview(families: list[TaskFamily]) -> Iterator[str]:
    """Return the lines of a table with a row for each family."""
    yield "| Family | Task | Horizon | Observation | Action | Source |"
    yield "|---|---|---|---|---|---|"
    for family in families:
        name = f"[`{family.name}`](#{family.name})"
        task = space_text(family.task_space)
        yield row(name, task, str(family.horizon), *sizes(family), family.source)


def sizes(family: TaskFamily) -> tuple[str, str]:
    """Write how many numbers an observation and an action have."""
    if isinstance(family, ExternalFamily):
        return THEIRS, THEIRS
    return str(family.observation_space.shape[0]), action_text(family)


def section(family: TaskFamily) -> str:
    """Return what there is to know of a family: its text, its facts, its fields."""
    cls = type(family)
    lines = [f"## {family.name}", "", inspect.cleandoc(cls.__doc__ or ""), "", "| | |", "|---|---|"]
    lines += [row(f"**{name}**", text) for name, text in facts(family)]
    lines += ["", "| Field | Type | Default | |", "|---|---|---|---|"]
    for key in keys(cls):
        default = "" if key.default is MISSING else f"`{plain_text(key.default)}`"
        lines.append(row(f"`{key.path}`", type_name(key.type), default, key.doc))
    return "\n".join(lines)


def facts(family: TaskFamily) -> Iterator[tuple[str, str]]:
    """Return names and texts of what the family says of itself."""
    yield "Gymnasium id", f"`metarl/{type(family).__name__}-v0`"
    yield "Source", family.source
    yield "Task", numbers(family.task_space)
    if family.ood_space != family.task_space:
        yield "Task out of distribution", f"{numbers(family.ood_space)}, but not in distribution"
    yield "Task sets", task_sets(family)
    step = f" of {family.dt:g} s" if isinstance(family, MujocoFamily) else ""
    beyond = "nothing beyond counts" if family.finite_horizon else "the last state's value counts"
    yield "Horizon", f"{family.horizon} control steps{step}; {beyond}"
    yield "Ends early", ends_early(type(family))
    if isinstance(family, ExternalFamily):
        yield "Observation and action", THEIRS
    else:
        yield "Observation", numbers(family.observation_space, with_bounds=False)
        yield "Action", actions(family.action_space)


def task_sets(family: TaskFamily) -> str:
    """Write which task sets there are, and whether they share tasks."""
    shared = "no task in common" if family.splits_are_disjoint else "the same tasks in several"
    absent = "" if "ood" in family.splits else f"; no ood: {family.no_ood_reason}"
    return f"{', '.join(family.splits)}; {shared}{absent}"


def ends_early(cls: type[TaskFamily]) -> str:
    """Write when an episode ends before its horizon, as far as the code tells."""
    owner = next((base for base in cls.__mro__ if "terminated" in vars(base)), None)
    if owner is None:
        return "if the text above says so"
    if owner is MujocoFamily:
        return "never"
    doc = inspect.cleandoc(vars(owner)["terminated"].__doc__ or "").partition("\n\n")[0]
    return " ".join(doc.split()) or f"where `{owner.__name__}.terminated` says so"


def actions(space: Box | Discrete) -> str:
    """Write an action space."""
    return f"one of {space.n}" if isinstance(space, Discrete) else numbers(space)


def numbers(space: Box, with_bounds: bool = True) -> str:
    """Write how many numbers a vector has, and their bounds."""
    size, bounds = space.shape[0], space_text(space)
    count = f"{size} number{'s' * (size > 1)}"
    if not with_bounds:
        return count
    shared = bounds.removeprefix(f"{size} x ")
    return f"{count}{':' if size > 1 and shared == bounds else ' in'} {shared}"


def row(*cells: str) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    main()
