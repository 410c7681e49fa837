"""The tables and figures of docs/reproduction.md."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.reproduce.measure import evaluations
from examples.reproduce.published import BUDGETS, PUBLISHED
from metarl.evaluation.result import Evaluation, pooled_interval
from metarl.reporting.figures import COLOURS, save_png, style_axes

SHOWN = dict(
    zip(
        (
            "maml_trpo",
            "maml_trpo_tuned",
            "cavia_tuned",
            "pretrained, best step",
            "random, best step",
            "maml_trpo, whole budget",
        ),
        COLOURS,
        strict=True,
    )
)
"""The rows that are drawn, and their colours."""


def table(results: dict[str, Any]) -> list[str]:
    """Return the lines of a Markdown table: the paper's numbers above ours, family by family."""
    lines = [
        "| Family | | 0 | 1 | 2 | 3 | by seed, after 1 | env steps | hours |",
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
            steps = f"{max(row['env_steps']) / 1e6:.0f}M" if row["env_steps"] else "0"
            hours = f"{np.mean(row['hours']):.1f}" if row["hours"] else ""
            lines.append(
                f"| | {label(method, row)} | {' | '.join(cells)} | {seeds} | {steps} | {hours} |"
            )
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


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the adaptation curves and the learning curves, and return the files."""
    made = []
    for name, panel in (("adaptation", adaptation), ("learning", learning)):
        figure = Figure(figsize=(4.4 * len(results), 4.2), layout="constrained")
        all_axes = figure.subplots(1, len(results), squeeze=False)[0]
        for axes, (family, rows) in zip(all_axes, results.items(), strict=True):
            panel(axes, family, rows)
            axes.set_title(family)
            style_axes(axes, legend=False)
        all_axes[0].set_ylabel("return")
        pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in all_axes]
        legend = {label: handle for handle, label in chain(*pairs)}  # one for all panels
        figure.legend(
            legend.values(), legend.keys(), loc="outside lower center", ncols=4, frameon=False
        )
        made.append(folder / f"reproduction-{name}.png")
        save_png(figure, made[-1])
    return made


def adaptation(axes: Axes, family: str, rows: dict[str, Any]) -> None:
    """Draw return against adaptations: solid lines are this code's, dashed lines the paper's."""
    paper = PUBLISHED[family]
    steps = range(len(paper.maml))
    axes.plot(steps, paper.maml, "--", color="black", label="the paper's MAML")
    axes.axhline(paper.oracle, linestyle="--", color="#999999", label="the paper's oracle")
    oracles = [
        means(evaluations(family, row))[0, 0]
        for method, row in rows.items()
        if method.startswith("oracle")
    ]
    if oracles:
        axes.axhline(max(oracles), color="#999999", label="oracle, the better one")
    for method, colour in SHOWN.items():
        if method in rows:
            mean, low, high = means(evaluations(family, rows[method])).T
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(steps, mean, marker="o", color=colour, label=method)
    axes.set_xticks(steps)
    axes.set_xlabel("adaptations")


def learning(axes: Axes, family: str, rows: dict[str, Any]) -> None:
    """Draw the training returns of each seed against env steps: dotted before adaptation."""
    axes.axhline(
        PUBLISHED[family].maml[1], linestyle="--", color="black", label="the paper's, in the end"
    )
    for method in ("maml_trpo, whole budget", "maml_trpo", "maml_trpo_tuned", "cavia_tuned"):
        for points in rows.get(method, {}).get("curve", []):
            steps, before, after = np.transpose(points)
            axes.plot(steps / 1e6, after, color=SHOWN[method], linewidth=1, label=method)
            axes.plot(steps / 1e6, before, ":", color=SHOWN[method], linewidth=0.8)
    axes.set_xlabel("million env steps in training")
