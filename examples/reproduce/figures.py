"""The tables and figures of docs/reproduction.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.reproduce.measure import evaluations
from examples.reproduce.published import BUDGETS, PUBLISHED
from metarl.reporting.figures import draw_curve
from metarl.reporting.names import family_text, method_text
from metarl.reporting.pooling import pooled_interval
from metarl.reporting.style import (
    REFERENCE,
    TEXT,
    Drawing,
    drawing_style,
    legend_below,
    method_style,
    save_drawing,
    style_axes,
)
from metarl.runs.result import Evaluation

SHOWN = (
    "maml_trpo",
    "maml_trpo_tuned",
    "cavia_tuned",
    "pretrained, best step",
    "cavia_ppo",
    "maml_trpo, whole budget",
    "random, best step",
)
"""The rows that are drawn."""
LEARNING = ("maml_trpo, whole budget", "maml_trpo", "maml_trpo_tuned", "cavia_tuned", "cavia_ppo")
"""Those whose learning curves are drawn."""
MAX_COLUMNS = 3  # of panels: more in a row are too small to be read on a page
RETURN = {
    "adaptation": "mean return (band: 95% interval)",
    "learning": "return in training (dotted: before adaptation)",
}
COLUMNS = {
    "adaptation": ("method", "adaptations", "mean", "low", "high"),
    "learning": ("method", "seed", "env steps", "before", "after"),
}
"""Labels of the y axis, and names of the plotted numbers, by figure."""


def table(results: dict[str, Any]) -> list[str]:
    """Return the lines of a Markdown table: the paper's numbers above ours, family by family."""
    lines = [
        "| Family | Method | 0 | 1 | 2 | 3 | by seed, after 1 | env steps | hours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for family, rows in results.items():
        lines += [f"| **{family}** | *{line}" for line in published_rows(family)]
        for method, row in rows.items():
            found = evaluations(family, row)
            cells = [cell(mean, low, high) for mean, low, high in means(found)]
            cells += [""] * (len(PUBLISHED[family].maml) - len(cells))  # an oracle does not adapt
            by_seed = np.array([result.mean for result in found])  # (S, K + 1)
            seeds = ", ".join(f"{value:.1f}" for value in by_seed[:, min(1, by_seed.shape[1] - 1)])
            if method.startswith("oracle"):
                # It is told the task: that a step only harms it tells nothing.
                cells, seeds = [cells[0], "", "", ""], ""
            millions = max(row["env_steps"], default=0) / 1e6
            steps = f"{millions:.{1 if millions < 10 else 0}f}M" if millions else "0"
            hours = f"{np.mean(row['hours']):.1f}" if row["hours"] else ""
            name = f"**{family}** | {label(method, row)}"
            lines.append(f"| {name} | {' | '.join(cells)} | {seeds} | {steps} | {hours} |")
    return lines


def published_rows(family: str) -> list[str]:
    """Return the paper's rows of the table, less their first cell."""
    paper = PUBLISHED[family]
    ends = {"pretrained": paper.pretrained, "random": paper.random}
    rows = [
        f"paper, MAML* | {' | '.join(str(value) for value in paper.maml)} | | "
        f"{BUDGETS[family] / 1e6:.0f}M | |",
        f"paper, oracle* | {paper.oracle} | | | | | | |",
    ]
    for name, values in ends.items():
        if values is not None:
            rows.append(f"paper, {name}* | {values[0]} | | | {values[1]} | | | |")
    return rows


def label(method: str, row: dict[str, Any]) -> str:
    """Name a row, with the factor on its step size where that was chosen."""
    return f"{method} (x {row['step_scales'][0]:g})" if "best step" in method else method


def cell(mean: float, low: float, high: float) -> str:
    """Return a mean and its interval as text."""
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def means(seeds: Sequence[Evaluation]) -> np.ndarray:
    """Return mean and 95% interval over seeds and tasks after each of K steps, (K + 1, 3)."""
    mean = np.mean([result.mean for result in seeds], axis=0)
    return np.column_stack([mean, pooled_interval(seeds)])


@drawing_style()
def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the adaptation curves and the learning curves, and return the files."""
    made: list[Path] = []
    for name, panel in (("adaptation", adaptation), ("learning", learning)):
        columns = min(MAX_COLUMNS, len(results))
        lines = -(-len(results) // columns)
        figure = Figure(figsize=(3.6 * columns, 3.2 * lines + 0.4), layout="constrained")
        places = figure.subplots(lines, columns, squeeze=False)
        for unused in places.flat[len(results) :]:
            unused.remove()
        all_axes: list[Axes] = list(places.flat[: len(results)])
        rows: list[tuple] = []
        for axes, (family, methods) in zip(all_axes, results.items(), strict=True):
            drawn = panel(axes, family, methods)
            rows += [(family, *row) for row in drawn]
            axes.set_title(family_text(family))
            style_axes(axes)
        figure.supylabel(RETURN[name], fontsize="medium")
        legend_below(figure, all_axes)
        drawing = Drawing(figure, RETURN[name], ("family", *COLUMNS[name]), rows)
        made += save_drawing(drawing, folder / f"reproduction-{name}.png")
    return made


def adaptation(axes: Axes, family: str, methods: dict[str, Any]) -> list[tuple]:
    """Draw return against adaptations: solid lines are this code's, dashed lines the paper's.

    Returns:
        The plotted numbers.
    """
    paper = PUBLISHED[family]
    steps = range(len(paper.maml))
    axes.plot(steps, paper.maml, "--", color=TEXT, label="the paper's MAML")
    axes.axhline(paper.oracle, linestyle="--", color=REFERENCE, label="the paper's oracle")
    rows: list[tuple] = [
        ("the paper's MAML", step, value, "", "") for step, value in enumerate(paper.maml)
    ]
    rows.append(("the paper's oracle", "", paper.oracle, "", ""))
    oracles = [
        means(evaluations(family, row))[0, 0]
        for method, row in methods.items()
        if method.startswith("oracle")
    ]
    if oracles:
        axes.axhline(max(oracles), color=REFERENCE, label="oracle, the better one")
        rows.append(("oracle, the better one", "", max(oracles), "", ""))
    for number, method in enumerate(SHOWN):
        if method in methods:
            found = means(evaluations(family, methods[method]))
            style = method_style(number)
            draw_curve(axes, found[:, 0], found[:, 1:], method_text(method), style)
            rows += [(method, step, *values) for step, values in enumerate(found)]
    axes.set_xticks(steps)
    axes.set_xlabel("adaptations")
    return rows


def learning(axes: Axes, family: str, methods: dict[str, Any]) -> list[tuple]:
    """Draw the training returns of each seed against env steps: dotted before adaptation.

    Returns:
        The plotted numbers.
    """
    axes.axhline(
        PUBLISHED[family].maml[1], linestyle="--", color=TEXT, label="the paper's, in the end"
    )
    rows: list[tuple] = []
    for method in LEARNING:
        row = methods.get(method, {})
        colour = method_style(SHOWN.index(method)).colour
        for seed, points in zip(row.get("seeds", []), row.get("curve", []), strict=True):
            steps, before, after = np.transpose(points)
            axes.plot(steps / 1e6, after, color=colour, linewidth=1, label=method_text(method))
            axes.plot(steps / 1e6, before, ":", color=colour, linewidth=0.8)
            rows += [(method, seed, *point) for point in points]
    axes.set_xlabel("env steps (millions)")
    return rows
