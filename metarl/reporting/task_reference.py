"""The reference page of the task families, generated from the code.

    python -m metarl.reporting.task_reference > docs/tasks.md

A test compares that file with the output of the command.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING

from gymnasium.spaces import Box, Discrete

from metarl.core.parsing import format_value
from metarl.core.schema_errors import type_name
from metarl.core.schema_keys import keys
from metarl.envs import FAMILIES, ExternalFamily, TaskFamily, make_family
from metarl.envs.mujoco.family import MujocoFamily
from metarl.reporting.names import TASKS
from metarl.reporting.tables import action_text, space_text

EXTERNAL_SPACE = "as its environment has"
"""Text for the spaces of external families, whose environments may not be installed."""

ENDS = {"point_nav": "at the goal, unless `ends_at_goal` is false"}
"""What ends the episodes of families that have no method for it."""

HEAD = """\
# Task families

<!-- Written by: python -m metarl.reporting.task_reference > docs/tasks.md -->

A config names a family and its fields under `env` (`family: point_nav`, `horizon: 50`); each field
is a flag too (`--env.horizon 50`). With `observe_task: true` the observations of any family show
the task. `metarl list families` prints the table, and `metarl check-env FAMILY` checks the contract
that training relies on, also for a family of your own.

Every task is also a Gymnasium environment, whose further arguments are the fields. The import of
`metarl.envs` registers the ids, and an id with the module in front of it imports it:
`gymnasium.make("metarl.envs:metarl/PointNav-v0", task=[0.2, -0.3])`. The registered environments
take actions from -1 to 1; everywhere else a family's `action_scale` is the largest action.

Positions and velocities of the robots equal those of Gymnasium's v5 environments, bit for bit, at
any number of threads. The published variants (ranges, horizons, observations, costs) are fields. On
`gridworld` and `bandit` the best possible agent is known exactly ([optima.md](optima.md)).

A task is a row of numbers. `n x [low, high]` stands for n numbers with the same bounds.
"""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Return the reference as Markdown."""
    families = [make_family(name) for name in FAMILIES]
    sections = [family_section(family) for family in families]
    return "\n".join([HEAD, *overview(families), "", "\n\n".join(sections), ""])


def overview(families: list[TaskFamily]) -> Iterator[str]:
    """Return the lines of a table with a row for each family."""
    yield "| Family | Task | Horizon | Observation | Action | Source |"
    yield "|---|---|---|---|---|---|"
    for family in families:
        name = f"[`{family.name}`](#{family.name})"
        task = space_text(family.task_space)
        yield markdown_row(name, task, str(family.horizon), *space_sizes(family), family.source)


def space_sizes(family: TaskFamily) -> tuple[str, str]:
    """Return the numbers of dimensions of an observation and an action as texts."""
    if isinstance(family, ExternalFamily):
        return EXTERNAL_SPACE, EXTERNAL_SPACE
    return str(family.observation_space.shape[0]), action_text(family)


def family_section(family: TaskFamily) -> str:
    """Return the section of a family: its docstring, a table of properties, a table of fields."""
    cls = type(family)
    lines = [f"## {family.name}", "", inspect.cleandoc(cls.__doc__ or ""), "", "| | |", "|---|---|"]
    lines += [markdown_row(f"**{name}**", text) for name, text in properties(family)]
    lines += ["", "| Field | Type | Default | Meaning |", "|---|---|---|---|"]
    for key in keys(cls):
        default = "" if key.default is MISSING else f"`{format_value(key.default)}`"
        lines.append(markdown_row(f"`{key.path}`", type_name(key.type), default, key.doc))
    return "\n".join(lines)


def properties(family: TaskFamily) -> Iterator[tuple[str, str]]:
    """Yield the names and the texts of the properties of a family."""
    yield "Gymnasium id", f"`metarl/{type(family).__name__}-v0`"
    yield "Source", family.source
    names = TASKS.get(family.name)
    yield "Task", box_text(family.task_space) + (f": {', '.join(names)}" if names else "")
    if family.ood_space != family.task_space:
        yield "Task out of distribution", f"{box_text(family.ood_space)}, but not in distribution"
    yield "Task sets", task_sets(family)
    step = f" of {family.dt:g} s" if isinstance(family, MujocoFamily) else ""
    beyond = (
        "what would follow the last one counts nothing"
        if family.finite_horizon
        else "the value of the last state stands for what would follow"
    )
    yield "Horizon", f"{family.horizon} control steps{step}; {beyond}"
    yield "Ends early", ends_early(type(family))
    if isinstance(family, ExternalFamily):
        yield "Observation and action", EXTERNAL_SPACE
    else:
        yield "Observation", box_text(family.observation_space, with_bounds=False)
        yield "Action", action_space_text(family.action_space)


def task_sets(family: TaskFamily) -> str:
    """Return the names of the task sets as text, and whether they share tasks."""
    number = family.num_all_tasks
    shared = "no task in common" if number is None else f"the same {number} tasks in each"
    absent = "" if "ood" in family.splits else f"; no ood: {family.no_ood_reason}"
    return f"{', '.join(family.splits)}; {shared}{absent}"


def ends_early(cls: type[TaskFamily]) -> str:
    """Return the condition that ends an episode before its horizon, from the code, as text."""
    owner = next((base for base in cls.__mro__ if "terminated" in vars(base)), None)
    if issubclass(cls, ExternalFamily):
        return "as its environment does"
    if owner is None:
        return ENDS.get(cls.name, "never")
    if owner is MujocoFamily:
        return "never"
    doc = inspect.cleandoc(vars(owner)["terminated"].__doc__ or "").partition("\n\n")[0]
    return " ".join(doc.split()) or f"where `{owner.__name__}.terminated` says so"


def action_space_text(space: Box | Discrete) -> str:
    """Return an action space as text."""
    return f"one of {space.n}" if isinstance(space, Discrete) else box_text(space)


def box_text(space: Box, with_bounds: bool = True) -> str:
    """Return the number of dimensions of a vector, and their bounds, as text."""
    size, bounds = space.shape[0], space_text(space)
    count = f"{size} number{'s' * (size > 1)}"
    if not with_bounds:
        return count
    shared = bounds.removeprefix(f"{size} x ")
    return f"{count}{':' if size > 1 and shared == bounds else ' in'} {shared}"


def markdown_row(*cells: str) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    main()
