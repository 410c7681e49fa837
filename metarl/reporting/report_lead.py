"""The beginning of a report: its title, and a summary in one or two sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metarl.reporting.groups import group_runs
from metarl.reporting.names import family_text, seeds_text
from metarl.reporting.report_sections import MethodRow, ScoreCell, Section
from metarl.reporting.summary import RunSummary
from metarl.runs.printing import count_text

MAX_TITLE = 3
"""Number of methods in a title."""
MAX_OTHERS = 5
"""Number of methods whose returns follow in the summary."""


def title(methods: Sequence[str]) -> str:
    """Return the methods as text, the first ones by name."""
    more = len(methods) - MAX_TITLE
    return ", ".join(methods[:MAX_TITLE]) + (f" and {more} more" if more > 0 else "")


def lead(
    summaries: Sequence[RunSummary], sections: Sequence[Section], texts: Mapping[str, str]
) -> str:
    """Return the summary of a report: the returns in its first evaluation, or in training.

    Args:
        summaries: the runs.
        sections: the evaluations; those with one part tell most, and come first.
        texts: names of the methods by label.
    """
    if not sections:
        last = summaries[0].metrics
        iterations = len(last["iteration"])
        returns = [format_number(float(last[f"return_{time}"][-1])) for time in ("before", "after")]
        return (
            f"Trained for {iterations} iterations ({int(last['env_steps'][-1]):,} env steps); the "
            f"return in the last one was {returns[0]} before and {returns[1]} after adaptation."
        )
    section = sections[0]
    own = group_runs(summaries).keys()
    rows = sorted(section.rows, key=lambda row: -last_cell(row)[1].mean)
    trained = [row for row in rows if row.method in own]
    adapting = [row for row in trained if last_cell(row)[0]]
    best = (adapting or trained or rows)[0]
    place, cell = last_cell(best)
    tasks = "task" if section.num_tasks == 1 else "tasks"
    where = f"On {section.num_tasks} {best.split} {tasks} of {family_text(section.family)}, "
    text = (
        f"{where}{texts[best.name]} ({seeds_text(best.seeds)}) has a mean return of "
        f"{number_with_interval(cell)}"
    )
    if place:
        before = best.cells[0]
        assert before is not None
        text += (
            f" after {count_text(section.x[place], section.x_label)}, from "
            f"{format_number(before.mean)} before"
        )
    others = [row for row in rows if row is not best]
    named = [f"{texts[row.name]} {format_number(last_cell(row)[1].mean)}" for row in others]
    if not named:
        return f"{text}."
    more = len(named) - MAX_OTHERS
    rest = f", and {more} more" if more > 0 else ""
    return f"{text}. For comparison: {', '.join(named[:MAX_OTHERS])}{rest}."


def last_cell(row: MethodRow) -> tuple[int, ScoreCell]:
    """Return the last cell that a row has, and its place."""
    place = max(place for place, cell in enumerate(row.cells) if cell is not None)
    cell = row.cells[place]
    assert cell is not None
    return place, cell


def number_with_interval(cell: ScoreCell) -> str:
    """Return a mean as text, with its interval if there is one."""
    if math.isnan(cell.low):
        return format_number(cell.mean)
    low, high = format_number(cell.low), format_number(cell.high)
    return f"{format_number(cell.mean)} (95% interval {low} to {high})"


def format_number(value: Any, decimals: int | None = None) -> str:
    """Return a number as text: an integer with all its digits, others with a number of decimals, by
    default those of about three digits; values of other types as they are."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-"
        if decimals is not None:
            return f"{value:z.{decimals}f}"
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value)
