"""The figures of a report, drawn by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from metarl.core.errors import UserError
from metarl.core.statistics import performance_profile
from metarl.evaluation.result import Evaluation, pooled_interval
from metarl.reporting.figures import COLOURS, draw_curve, set_x_axis, style_axes
from metarl.reporting.groups import group_runs
from metarl.reporting.pooling import final_scores, pooled_scores
from metarl.reporting.summary import RETURNS, RunSummary

CURVE_POINTS = 100
"""Number of points of a learning curve."""
NOT_DIAGNOSTIC = ("iteration", "env_steps", *RETURNS, "adaptation_gain")
"""Metrics that the diagnostics leave out."""


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element for an HTML page.

    Raises:
        UserError: if its numbers are too far apart, or too close together, to be drawn.
    """
    text = io.StringIO()
    # The same figure gives the same text.
    with rc_context({"svg.hashsalt": "metarl", "svg.fonttype": "path"}):
        try:
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        except np.linalg.LinAlgError as error:
            raise UserError(f"the results hold numbers that no axis can show ({error})") from error
    whole = text.getvalue()
    return whole[whole.index("<svg") :]


def learning_curves(summaries: Sequence[RunSummary]) -> Figure:
    """Draw return before and after adaptation in training, against env steps and against hours.

    A line is the mean over the seeds of a method, the band their range.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    groups = group_runs(summaries)
    for axes, name in zip(panels, ("million env steps", "hours of training"), strict=True):
        for (method, runs), colour in zip(groups.items(), COLOURS * 9, strict=False):
            for metric, style in zip(RETURNS, (":", "-"), strict=True):
                grid, curves = on_one_grid(runs, metric, hours=name.startswith("hours"))
                axes.plot(grid, curves.mean(0), style, color=colour, linewidth=1.3)
                if len(runs) > 1:
                    low, high = curves.min(0), curves.max(0)
                    axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot([], [], color=colour, label=f"{method} ({len(runs)})")
        axes.set_xlabel(name)
        axes.locator_params(axis="x", nbins=6)
        style_axes(axes, legend=axes is panels[0])
    panels[0].set_ylabel("return: after (line), before (dots)")
    return figure


def on_one_grid(
    runs: Sequence[RunSummary], metric: str, *, hours: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid (n,) of hours, or million env steps, and a metric of each run on it, (S, n).

    The grid spans the range that all runs have.
    """
    spent = [run.hours if hours else run.metrics["env_steps"] / 1e6 for run in runs]
    start, end = max(each[0] for each in spent), min(each[-1] for each in spent)
    grid = np.linspace(start, end, CURVE_POINTS)
    width = max(1, min(len(each) for each in spent) // CURVE_POINTS)
    smooth = [moving_mean(run.metrics[metric], width) for run in runs]
    pairs = zip(spent, smooth, strict=True)
    return grid, np.stack([interpolate(grid, x, values) for x, values in pairs])


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


def adaptation_curves(results: Mapping[str, Sequence[Evaluation]], longest: Evaluation) -> Figure:
    """Draw mean return against x, such as adaptations made, with intervals over seeds and tasks.

    Args:
        results: of each method, seed by seed.
        longest: a result with all values of x.
    """
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    for (name, seeds), colour in zip(results.items(), COLOURS * 9, strict=False):
        means, intervals = pooled_scores(seeds).mean((0, 1)), pooled_interval(seeds)
        draw_curve(axes, means, intervals, label=name, colour=colour, alpha=0.15, linewidth=1.3)
    set_x_axis(axes, longest)
    axes.set_ylabel("return")
    style_axes(axes)
    return figure


def profiles(results: Mapping[str, Sequence[Evaluation]]) -> Figure:
    """Draw the performance profile of each method after the last adaptation.

    A profile is the fraction of runs and tasks above each return (Agarwal et al. 2021).

    Args:
        results: of each method, seed by seed.
    """
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    last = final_scores(results)
    low, high = np.quantile(np.concatenate([each.ravel() for each in last.values()]), [0.01, 1.0])
    levels = np.linspace(low, high, 200)
    for (name, values), colour in zip(last.items(), COLOURS * 9, strict=False):
        axes.plot(levels, performance_profile(values, levels), color=colour, label=name)
    axes.set_xlabel("return")
    axes.set_ylabel("share of runs and tasks above")
    style_axes(axes)
    return figure


def returns_by_task(results: Mapping[str, Evaluation]) -> Figure | None:
    """Draw the return before and after adaptation against the task.

    A task of one number is on the x axis; a task of two numbers is a place in the plane, with the
    return after adaptation as colour. None for tasks of more numbers.
    """
    first = next(iter(results.values()))
    task_dim = first.tasks.shape[1]
    if task_dim > 2:
        return None
    count = len(results)
    figure = Figure(figsize=(4.6 * count, 3.6), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    for axes, (name, result) in zip(panels, results.items(), strict=True):
        if task_dim == 1:
            places = [(0, "#999999"), (-1, COLOURS[0])]
            for place, colour in places if len(result.x) > 1 else places[1:]:
                axes.plot(
                    result.tasks[:, 0],
                    result.by_task[:, place],
                    "o",
                    ms=4,
                    color=colour,
                    label=f"{result.x_label}: {result.x[place]}",
                )
            axes.set_xlabel("task")
            style_axes(axes)
        else:
            x, y = result.tasks.T
            points = axes.scatter(x, y, c=result.by_task[:, -1], s=30, cmap="viridis")
            figure.colorbar(points, ax=axes, label=f"return, {result.x_label}: {result.x[-1]}")
            axes.set_aspect("equal")
        axes.set_title(name, fontsize=9)
    if task_dim == 1:
        panels[0].set_ylabel("return")
    return figure


def diagnostics(summaries: Sequence[RunSummary]) -> Figure:
    """Draw small plots of all other metrics of training, which explain a run that failed."""
    names = {
        name: None
        for summary in summaries
        for name in summary.metrics
        if name not in NOT_DIAGNOSTIC
    }
    columns = 3
    rows = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(9, 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    groups = group_runs(summaries)
    for axes, name in zip(panels, names, strict=False):
        for (_, runs), colour in zip(groups.items(), COLOURS * 9, strict=False):
            for run in runs:
                if name in run.metrics:
                    steps = run.metrics["env_steps"] / 1e6
                    axes.plot(steps, run.metrics[name], color=colour, linewidth=0.8)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        style_axes(axes, legend=False)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("million env steps", fontsize=9)
    return figure
