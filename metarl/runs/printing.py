"""An evaluation as text and as HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from metarl.runs.result import Evaluation


def decimals(values: np.ndarray) -> int:
    """Return the number of decimals of returns in a table: those of three digits of the largest of
    them, from 1 to 6.

    Args:
        values: the mean returns, any shape; NaN where one is missing.
    """
    largest = np.nanmax(np.abs(values), initial=0.0)
    return 1 if largest == 0 else min(max(1, 2 - math.floor(math.log10(largest))), 6)


def table(result: Evaluation) -> list[list[str]]:
    """Return an evaluation as rows of texts, the head first, with one row for each x; without rows
    if no task was played to the end."""
    head = [result.x_label, "return", "95% interval", "IQM", "tasks made worse"]
    rates = result.success_rate
    rows = [head if rates is None else [*head, "success"]]
    if not result.complete_tasks.any():
        return rows
    digits = decimals(result.mean)
    for index, x in enumerate(result.x):
        low, high = result.interval[index]
        row = [
            str(x),
            f"{result.mean[index]:z.{digits}f}",
            f"{low:z.{digits}f} to {high:z.{digits}f}" if math.isfinite(low) else "none",
            f"{result.iqm[index]:z.{digits}f}",
            f"{result.fraction_worse[index]:.0%}" if index else "",
        ]
        rows.append(row if rates is None else [*row, f"{rates[index]:.0%}"])
    return rows


def heading(result: Evaluation) -> str:
    """Return family, tasks and episodes of an evaluation on one line."""
    return f"{result.family}: {played_text([result])}"


def played_text(results: Iterable[Evaluation]) -> str:
    """Return the tasks and the numbers of episodes of evaluations as text, each once."""
    every = [*results]
    tasks = " and ".join(dict.fromkeys(map(tasks_text, every)))
    return f"{tasks}, {episodes_text(every)} each"


def tasks_text(result: Evaluation) -> str:
    """Return the number of tasks and their set as text, and whether some are there repeatedly."""
    number = len(result.tasks)
    text = f"{number} {result.split} task{'s' * (number > 1)}"
    if (distinct := len(np.unique(result.tasks, axis=0))) < number:
        text += f" ({distinct} distinct)"
    return text


def episodes_text(results: Iterable[Evaluation]) -> str:
    """Return the number of episodes of a task in evaluations as text, such as `2 or 5 episodes`
    where it differs."""
    *others, most = sorted({result.returns.shape[2] for result in results})
    return " or ".join([*map(str, others), count_text(most, "episodes")])


def count_text(count: int, label: str) -> str:
    """Return a number of things as text, such as `1 adaptation`."""
    if count == 1:
        label = label.replace("adaptations", "adaptation").replace("episodes", "episode")
    return f"{count} {label}"


def as_text(result: Evaluation) -> str:
    """Return a heading and a table with columns of equal width."""
    rows = table(result)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.rjust(size) for cell, size in zip(row, widths, strict=True)] for row in rows]
    lines = ["  ".join(row).rstrip() for row in padded]
    return "\n".join([heading(result), *lines, *notes(result)])


def as_html(result: Evaluation) -> str:
    """Return the same as HTML, for notebooks."""
    head, *rows = table(result)
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in (cells, *lines))
    texts = "<br>".join(map(html.escape, [heading(result), *notes(result)]))
    return f"<p>{texts}</p><table>{body}</table>"


def notes(result: Evaluation) -> list[str]:
    """Return a line about what was left out, if anything was."""
    return [result.note] if result.note else []


def as_repr(result: Evaluation) -> str:
    """Return a short text: what was measured, and the first and the last mean return."""
    if not result.complete_tasks.any():
        return f"<Evaluation {heading(result)}, no task played to the end>"
    digits = decimals(result.mean)
    means = f"{result.mean[0]:z.{digits}f}"
    if len(result.x) > 1:
        last = count_text(result.x[-1], result.x_label)
        means += f" -> {result.mean[-1]:z.{digits}f} after {last}"
    return f"<Evaluation {heading(result)}, mean return {means}>"
