"""The tables of a comparison: returns by family, and aggregates over families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.aggregates import STATISTICS
from metarl.core.csv_text import csv_content
from metarl.reporting.aggregates import FIGURE_TEXTS, Aggregates
from metarl.reporting.groups import group_runs
from metarl.reporting.names import family_text, method_texts
from metarl.reporting.report_sections import Section
from metarl.reporting.summary import RunSummary
from metarl.runs.atomic_io import write_atomically
from metarl.runs.printing import decimals

SCALE_NOTE = "Aggregates of returns on the scale of each family:"
BRACKETS = "In brackets are 95% intervals."
AGGREGATED = ("k_step", "few_episode")
"""Protocols whose results are aggregated over families: those with one part."""


def write_tables(
    out: Path,
    sections: Mapping[str, Section],
    aggregates: Aggregates | None,
    missing: Sequence[str],
) -> list[Path]:
    """Write the returns of all families as CSV and as Markdown, there with notes and the aggregates
    too, and return the files.

    Args:
        out, sections, aggregates, missing: as for `metarl.reporting.comparison_page.write_page`.
    """
    head = ["family", "method", "seeds", "x", "mean", "low", "high", "iqm", "success"]
    table: list[list[Any]] = [head]
    lines = [line for text in missing for line in (text, "")]
    names = method_texts(
        dict.fromkeys(row.name for section in sections.values() for row in section.rows)
    )
    for family, section in sections.items():
        texts = cell_texts(section)
        lines += [f"{family_text(family)}, {section.name}: {section.about}", ""]
        lines += [line for note in section.notes for line in (note, "")]
        lines += [f"Mean return by number of {section.x_label} (columns). {BRACKETS}", ""]
        lines.append(f"| method | seeds | {' | '.join(f'{x}' for x in section.x)} |")
        lines.append("|" + "---|" * (2 + len(section.x)))
        for row, cells in zip(section.rows, texts, strict=True):
            lines.append(f"| {names[row.name]} | {row.seeds} | {' | '.join(cells)} |")
            numbers = zip(section.x, row.cells, strict=True)
            measured = [(x, cell) for x, cell in numbers if cell is not None]
            table += [[family, row.name, row.seeds, x, *cell] for x, cell in measured]
        lines.append("")
    if aggregates is None:
        lines += [no_aggregates(sections), ""]
    else:
        columns, *rows = aggregate_table(aggregates)
        lines += [SCALE_NOTE, "", *(f"- {scale}" for scale in aggregates.scales), ""]
        lines += [aggregates.left_out, ""] * bool(aggregates.left_out)
        lines += [BRACKETS, "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join([names[name], *cells])} |" for name, *cells in rows]
        lines.append("")
        for name, drawing in aggregates.drawings.items():
            lines += [f"![{FIGURE_TEXTS[name]}]({name}.png)", "", drawing.caption, ""]
    files = out / "comparison.csv", out / "comparison.md"
    write_atomically(files[0], csv_content(table))
    write_atomically(files[1], "\n".join(lines).encode())
    return [*files]


def write_returns(out: Path, runs: Mapping[str, Sequence[RunSummary]], name: str) -> Path:
    """Write the mean returns of all runs on each task as CSV, a row for each run, task and x, and
    return the file.

    Args:
        out: the folder.
        runs: the runs of each family.
        name: the name of their evaluations.
    """
    columns = ["family", "method", "part", "seed", "task", "x", "return", "success"]
    lines: list[list[Any]] = [columns]
    for family, summaries in runs.items():
        for method, group in group_runs(summaries).items():
            for summary in group:
                for part, result in summary.evaluations.get(name, {}).items():
                    succeeded = result.successes
                    for (task, place), value in np.ndenumerate(result.by_task):
                        success = "" if succeeded is None else succeeded.by_task[task, place]
                        run = family, method, part, summary.run.config.seed
                        lines.append([*run, task, result.x[place], value, success])
    file = out / "comparison-returns.csv"
    write_atomically(file, csv_content(lines))
    return file


def aggregate_table(aggregates: Aggregates) -> list[list[str]]:
    """Return the rows of the table of aggregates, its head first."""
    rows = [["method", "seeds", *STATISTICS]]
    for place, (name, seeds) in enumerate(zip(aggregates.methods, aggregates.seeds, strict=True)):
        numbers = aggregates.statistics[:, place].T
        rows.append([name, str(seeds), *(interval_text(*each, digits=2) for each in numbers)])
    return rows


def cell_texts(section: Section) -> list[list[str]]:
    """Return the mean returns of a section, with their intervals if there are any, row by row; ''
    at an x that a method does not have."""
    means = [cell.mean for row in section.rows for cell in row.cells if cell is not None]
    digits = decimals(np.array(means))
    return [
        [
            "" if cell is None else interval_text(cell.mean, cell.low, cell.high, digits=digits)
            for cell in row.cells
        ]
        for row in section.rows
    ]


def interval_text(value: float, low: float, high: float, *, digits: int) -> str:
    """Return a value with its interval; the value alone where the bounds are NaN."""
    if np.isnan(low):
        return f"{value:z.{digits}f}"
    return f"{value:z.{digits}f} ({low:z.{digits}f} to {high:z.{digits}f})"


def no_aggregates(sections: Mapping[str, Section]) -> str:
    """Return why the evaluations of some families are not aggregated."""
    if any(section.name.partition("-")[0] not in AGGREGATED for section in sections.values()):
        return f"No aggregates over families: there are some of {' and '.join(AGGREGATED)} alone."
    return (
        "No aggregates over families: they need a trained method that every family has (configs "
        "with the same `method`), and returns above the untrained agent's."
    )
