"""The figures of training in a report: learning curves, and diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from metarl.config_sections import ValidationConfig
from metarl.reporting.groups import group_runs
from metarl.reporting.names import method_texts, seeds_text, time_unit
from metarl.reporting.style import (
    TEXT,
    Drawing,
    LineStyle,
    legend_below,
    limit_axis,
    method_styles,
    note_above,
    style_axes,
)
from metarl.reporting.summary import RETURNS, RunSummary
from metarl.runs.logs import VALIDATION
from metarl.training.validation import RETURN_AFTER

ENV_STEPS = "env steps"
CURVE_POINTS = 100
"""Number of points of a learning curve."""
NOT_DIAGNOSTIC = ("iteration", "env_steps", *RETURNS, "adaptation_gain")
"""Metrics that the diagnostics leave out."""
VALIDATED = (0, (7, 3))
"""Long dashes, the line of the return on validation tasks."""
MARKS = 5
"""Number of markers on a curve."""
SHORT = 0.9
"""A seed that ends before this share of the longest one is told to be short."""
TYPICAL = (0.02, 0.98)
"""Quantiles of the values of a curve between which its values are typical."""


def learning_curves(
    summaries: Sequence[RunSummary],
    styles: Mapping[str, LineStyle] | None = None,
    *,
    hours: bool = False,
) -> Drawing:
    """Draw return before and after adaptation in training, against env steps or against time.

    A thick line is the mean over the seeds of a method, thin ones are its seeds. Runs with
    evaluations while training also have the return after adaptation on validation tasks.

    Args:
        summaries: the runs.
        styles: the style of each method; by default by its place.
        hours: draw against the time, in hours, or in minutes or seconds if it is short.
    """
    figure = Figure(figsize=(5, 3.3), layout="constrained")
    axes = figure.subplots()
    unit, per_hour = time_unit(max(run.hours[-1] for run in summaries))
    rows, typical, drawn, validated = [], [], [], False
    widths = set()  # numbers of iterations of which curves are means
    short: dict[str, None] = {}  # methods with a seed that ends long before another
    groups = group_runs(summaries)
    names = method_texts(groups)
    styles = styles or method_styles(groups)
    for method, runs in groups.items():
        style = styles[method]
        lines = dict(zip(RETURNS, (":", style.line), strict=True)) | {RETURN_AFTER: VALIDATED}
        alike = [
            (metric, line, measured)
            for metric, line in lines.items()
            for measured in measured_alike(runs, metric)
        ]
        for metric, line, measured in alike:
            validated |= metric == RETURN_AFTER
            widths.add(smoothing(measured))
            ends = [(run.hours if hours else run.metrics["env_steps"])[-1] for run in measured]
            short |= {names[method]: None} if min(ends) < SHORT * max(ends) else {}
            grid, curves = on_one_grid(measured, metric, hours=hours)
            grid = grid * per_hour if hours else grid
            mean = curves.mean(axis=0)
            look = {"linestyle": line, "color": style.colour, "linewidth": 1.6}
            look |= mark(style, len(grid), hollow=metric == RETURNS[0])
            axes.plot(grid, mean, **look)
            if len(measured) > 1:
                thin = {"linestyle": line, "color": style.colour, "alpha": 0.5}
                axes.plot(grid, curves.T, linewidth=0.6, **thin)
            middle = np.median(curves, axis=0)
            typical.append(typical_values(middle))
            drawn += [mean, curves.ravel()]
            name = "validation" if metric == RETURN_AFTER else metric.removeprefix("return_")
            rows += [(method, "mean", name, *each) for each in zip(grid, mean, strict=True)]
            for run, curve in zip(measured, curves, strict=True):
                seed = run.run.config.seed
                rows += [(method, seed, name, *each) for each in zip(grid, curve, strict=True)]
        label = f"{names[method]}, {seeds_text(len(runs))}"
        look = {"linestyle": style.line, "color": style.colour} | mark(style, 1)
        axes.plot([], [], label=label, **look)
    note_above(axes, limit_axis(axes, np.concatenate(typical), np.concatenate(drawn)))
    x_label = f"training time ({unit})" if hours else ENV_STEPS
    axes.set_xlabel(x_label)
    if not hours:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 500k, 2M
    axes.set_ylabel("return in training")
    axes.locator_params(axis="x", nbins=6)
    style_axes(axes)
    shown = {"before adaptation": Line2D([], [], linestyle=":", color=TEXT)}
    if validated:
        shown["validation tasks"] = Line2D([], [], linestyle=VALIDATED, color=TEXT)
    legend_below(figure, [axes], shown)
    caption = (
        f"Return of the meta-batches in training against {x_label}: after adaptation, and before "
        "it (dotted). "
        + ("Long dashes are the return after adaptation on validation tasks. " if validated else "")
        + "A thick line is the mean over the seeds of a method, thin ones are the seeds."
    )
    if (most := max(widths, default=1)) > 1:
        *_, few = sorted(widths, reverse=True)
        span = f"{most}" if few == most else f"{few} to {most}"
        caption += f" Each point is the mean of the last {span} iterations."
    if short:
        caption += f" Cut off where the shortest seed ends: {', '.join(short)}."
    return Drawing(figure, caption, ("method", "seed", "adaptation", x_label, "return"), rows)


def mark(style: LineStyle, points: int, *, hollow: bool = False) -> dict[str, Any]:
    """Return how a line of some points is marked, a few times: where colours repeat, and all lines
    of returns before adaptation are dotted, markers tell methods apart."""
    every = max(1, points // MARKS)
    shape = {"marker": style.marker, "markersize": 4, "markevery": (every // 2, every)}
    return shape | {"fillstyle": "none" if hollow else "full"}


def typical_values(values: np.ndarray) -> np.ndarray:
    """Return the values between the quantiles `TYPICAL`, without NaN."""
    known = values[np.isfinite(values)]
    return np.quantile(known, TYPICAL) if known.size else known


def measured_alike(runs: Sequence[RunSummary], metric: str) -> list[list[RunSummary]]:
    """Return the runs that have a metric: all together, but those that measured the return on
    validation tasks otherwise, on more tasks for instance, apart."""
    found: dict[ValidationConfig | None, list[RunSummary]] = {}
    for run in runs:
        if metric in run.metrics:
            validation = run.run.config.evaluation.replace(every=0)
            found.setdefault(validation if metric == RETURN_AFTER else None, []).append(run)
    return [*found.values()]


def on_one_grid(
    runs: Sequence[RunSummary], metric: str, *, hours: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid (n,) of hours, or of env steps, and a metric of each run on it, (S, n).

    The grid spans the range in which all runs have the metric; one point if there is none.
    """
    spent = [run.hours if hours else run.metrics["env_steps"] for run in runs]
    known = [np.isfinite(run.metrics[metric]) for run in runs]
    pairs = list(zip(spent, known, strict=True))
    start = max(each[here.argmax()] for each, here in pairs)
    end = min(each[-1 - here[::-1].argmax()] for each, here in pairs)
    grid = np.linspace(start, end, CURVE_POINTS) if start < end else np.array([end])
    smooth = [moving_mean(run.metrics[metric], smoothing(runs)) for run in runs]
    pairs = zip(spent, smooth, strict=True)
    return grid, np.stack([interpolate(grid, x, values) for x, values in pairs])


def smoothing(runs: Sequence[RunSummary]) -> int:
    """Return the number of iterations over which the curves of runs are means."""
    return max(1, min(len(run.metrics["env_steps"]) for run in runs) // CURVE_POINTS)


def interpolate(grid: np.ndarray, x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values (m,) at x (m,) on a grid (n,), without those that are NaN; NaN if all are."""
    known = np.isfinite(values)
    if not known.any():
        return np.full(grid.shape, np.nan)
    return np.interp(grid, x[known], values[known])


def moving_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean of each value and its predecessors, `width` values at most, without NaN."""
    known = np.isfinite(values)
    sums = np.cumsum(np.concatenate([[0.0], np.where(known, values, 0)]))
    counts = np.cumsum(np.concatenate([[0], known]))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - width, 0)
    count = counts[last] - counts[first]
    total = sums[last] - sums[first]
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def diagnostics(
    summaries: Sequence[RunSummary], styles: Mapping[str, LineStyle] | None = None
) -> Drawing:
    """Draw small plots of all other metrics of training, which explain a run that failed.

    Args:
        summaries: the runs.
        styles: the style of each method; by default by its place.
    """
    names = {
        name: None
        for summary in summaries
        for name in summary.metrics
        if name not in NOT_DIAGNOSTIC and not name.startswith(VALIDATION)
    }
    columns = 3
    lines = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(10, 1.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    groups = group_runs(summaries)
    texts, rows = method_texts(groups), []
    styles = styles or method_styles(groups)
    for axes, name in zip(panels, names, strict=False):
        drawn = []
        for method, runs in groups.items():
            style = styles[method]
            look = {"linestyle": style.line, "color": style.colour, "linewidth": 0.8}
            for run in runs:
                if name in run.metrics:
                    steps, values = run.metrics["env_steps"], run.metrics[name]
                    axes.plot(steps, values, label=texts[method], **look)
                    drawn.append(values)
                    seed = run.run.config.seed
                    numbers = zip(steps, values, strict=True)
                    rows += [(name, method, seed, *each) for each in numbers]
        values = np.concatenate(drawn)
        note = limit_axis(axes, typical_values(values), values)
        axes.set_title(name.replace("_", " ") + (f" ({note})" if note else ""), fontsize=8)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        style_axes(axes)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(names) - columns) : len(names)]:
        axes.set_xlabel(ENV_STEPS, fontsize=9)
    if len(groups) > 1:
        legend_below(figure, list(panels))
    caption = "Other metrics of training against env steps, a line for each run."
    columns_of_rows = ("metric", "method", "seed", ENV_STEPS, "value")
    return Drawing(figure, caption, columns_of_rows, rows)
