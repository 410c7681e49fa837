"""Presentation of one evaluation: terminal table, figure and W&B."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from metarl.evaluation.result_file import writing_results
from metarl.reporting.figures import draw_evaluation, longest_result
from metarl.runs.printing import decimals, episodes_text, tasks_text
from metarl.runs.result import Evaluation
from metarl.runs.result_files import read_results, read_settings
from metarl.runs.run import Run
from metarl.training.tracking import start_tracker

MAX_ROWS = 20
"""Rows of the table of returns by task, at most."""
MAX_COLUMNS = 8
"""Its columns of returns, at most."""
MAX_NUMBERS = 4
"""Numbers of a task in it, at most; of more, the first half of so many."""


def publish_evaluation(run: Run, file: Path, results: Mapping[str, Evaluation]) -> Path:
    """Draw the figure of a result file beside it, and send the results to W&B if tracked.

    Args:
        run: the evaluated run.
        file: the result file. The figure shows all of it.
        results: the new evaluations in it by method, or `method, part`.

    Returns:
        The figure, a PNG.

    Raises:
        StorageError: if the figure cannot be written.
    """
    figure = file.with_suffix(".png")
    with writing_results(file):
        draw_evaluation(str(read_settings(file).get("protocol")), read_results(file), figure)
    tracker = start_tracker(run, job="evaluate")
    columns = ["method", "x", "mean", "low", "high", "iqm", "fraction_worse", "success"]
    known = any(result.success is not None for result in results.values())
    columns = columns if known else columns[:-1]
    rows = [row[: len(columns)] for row in evaluation_rows(results)]
    tracker.scalars(scalars(f"eval/{file.stem}", results))
    tracker.table(f"eval/{file.stem}", columns, rows)
    tracker.image(f"eval/{file.stem} curve", figure)
    tracker.finish()
    return figure


def scalars(prefix: str, results: Mapping[str, Evaluation]) -> dict[str, float]:
    """Return the mean return of each method at each x, by `PREFIX/METHOD/return/X`, and its success
    rate, if it is known, by `PREFIX/METHOD/success/X`."""
    found = {}
    for label, x, mean, *_, success in evaluation_rows(results):
        found[f"{prefix}/{label}/return/{x}"] = mean
        if success is not None:
            found[f"{prefix}/{label}/success/{x}"] = success
    return found


def evaluation_rows(results: Mapping[str, Evaluation]) -> list[list]:
    """Return a row for each method and x: method, x, mean, interval (low, high; None where there
    is none), IQM, fraction of the tasks made worse, and success rate (None where it is unknown)."""
    rows = []
    for label, result in results.items():
        columns = (result.mean, *result.interval.T, result.iqm, result.fraction_worse)
        rate = result.success_rate
        for index, (x, *values) in enumerate(zip(result.x, *columns, strict=True)):
            numbers = [None if np.isnan(value) else float(value) for value in values]
            rows.append([label, x, *numbers, None if rate is None else float(rate[index])])
    return rows


def evaluation_title(results: Mapping[str, Evaluation]) -> str:
    """Return the family, the tasks and the number of episodes as text."""
    first = next(iter(results.values()))
    return f"{first.family}: {evaluation_text(results.values())}"


def evaluation_text(results: Iterable[Evaluation]) -> str:
    """Return the tasks and the numbers of episodes of the results of an evaluation as text."""
    every = [*results]
    sets = dict.fromkeys(f"{tasks_text(each)}, hash {each.task_hash}" for each in every)
    text, result = f"{' and '.join(sets)}, {episodes_text(every)} each", every[0]
    if result.deterministic:
        text += ", deterministic actions"
    if (length := result.sequence_length) > 1:
        text += f", in sequences of {length}, over which intervals are"
    if result.has_all_tasks:
        text += "; these are all tasks of the distribution, so the tasks of training too"
    return text


def evaluation_notes(results: Mapping[str, Evaluation]) -> list[str]:
    """Return a note for each method with episodes that were left out."""
    return [f"{label}: {each.note}" for label, each in results.items() if each.note]


def task_table(results: Mapping[str, Evaluation]) -> Table | None:
    """Return the mean return on each task as a table for the terminal; None for an only task, whose
    returns are the means over tasks, and for more rows than `MAX_ROWS`."""
    counts = [result.num_distinct for result in results.values()]
    if max(counts) == 1 or sum(counts) > MAX_ROWS:
        return None
    longest = longest_result(results.values())
    columns = spaced(len(longest.x), MAX_COLUMNS)
    shown, known = len(columns), len(longest.x)
    which = f"at {shown} of {known} numbers" if shown < known else "at each number"
    title = f"return by task, {which} of {longest.x_label}"
    table = Table("method", "task", title=title, title_justify="left")
    for column in columns:
        table.add_column(str(longest.x[column]), justify="right")
    digits = decimals(np.concatenate([result.scores.ravel() for result in results.values()]))
    for label, result in results.items():
        for row, (task, means) in enumerate(zip(result.distinct_tasks, result.scores, strict=True)):
            numbers = task_text(task)
            returns = (f"{means[k]:z.{digits}f}" for k in columns if k < len(means))
            table.add_row(escape(label) if row == 0 else "", numbers, *returns)
    return table


def task_text(task: np.ndarray) -> str:
    """Return the numbers of a task, (k,), as text: the first ones of many."""
    shown = task if len(task) <= MAX_NUMBERS else task[: MAX_NUMBERS // 2]
    text = ", ".join(f"{number:z.4g}" for number in shown)
    return text if len(shown) == len(task) else f"{text}, ... ({len(task)} numbers)"


def spaced(count: int, most: int) -> list[int]:
    """Return at most `most` of the indices below `count`, evenly, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def evaluation_table(results: Mapping[str, Evaluation]) -> Table:
    """Return the evaluations as a table for the terminal."""
    table = Table()
    x_label = next(iter(results.values())).x_label
    columns = ["method", x_label, "return", "95% interval", "IQM", "tasks made worse"]
    succeeds = any(result.success is not None for result in results.values())
    for column in [*columns, *["success"] * succeeds]:
        justify = "left" if column == "method" else "right"
        table.add_column(column, justify=justify, overflow="fold")
    digits = decimals(np.concatenate([result.mean for result in results.values()]))
    for label, x, mean, low, high, iqm, worse, success in evaluation_rows(results):
        table.add_row(
            escape(label) if x == 0 else "",
            str(x),
            f"{mean:z.{digits}f}",
            "none" if low is None else f"{low:z.{digits}f} to {high:z.{digits}f}",
            f"{iqm:z.{digits}f}",
            f"{worse:.0%}" if x else "",
            *([] if success is None else [f"{success:.0%}"]),
        )
    return table
