"""The figures of a report, on matplotlib, without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from metarl.core.errors import UserError
from metarl.core.rng import Purpose, make_rng
from metarl.core.statistics import interval, performance_profile
from metarl.evaluation.evaluate import Evaluation
from metarl.reporting.figures import COLOURS, finish
from metarl.reporting.summary import RETURNS, Story, by_method

SMOOTH = 100  # points of a learning curve
HIDDEN = ("iteration", "env_steps", *RETURNS, "adaptation_gain")


def svg(figure: Figure) -> str:
    """Return a figure as SVG, fit to stand inside a page.

    Raises:
        UserError: if its numbers lie too far apart, or too close together, to be drawn.
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


def learning_curves(stories: Sequence[Story]) -> Figure:
    """Draw return before and after adaptation in training, against env steps and against hours.

    A line is the mean over the seeds of a method, the band their range.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("million env steps", "hours of training"), strict=True):
        for (method, runs), colour in zip(by_method(stories).items(), COLOURS * 9, strict=False):
            for metric, style in zip(RETURNS, (":", "-"), strict=True):
                grid, curves = on_one_grid(runs, metric, hours=name.startswith("hours"))
                axes.plot(grid, curves.mean(0), style, color=colour, linewidth=1.3)
                if len(runs) > 1:
                    low, high = curves.min(0), curves.max(0)
                    axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot([], [], color=colour, label=f"{method} ({len(runs)})")
        axes.set_xlabel(name)
        axes.locator_params(axis="x", nbins=6)
        finish(axes, legend=axes is panels[0])
    panels[0].set_ylabel("return: after (line), before (dots)")
    return figure


def on_one_grid(
    runs: Sequence[Story], metric: str, *, hours: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return points (n,) that all runs have come to, and the metric of each run there, (S, n)."""
    axes = [run.hours if hours else run.metrics["env_steps"] / 1e6 for run in runs]
    grid = np.linspace(max(each[0] for each in axes), min(each[-1] for each in axes), SMOOTH)
    width = max(1, min(len(each) for each in axes) // SMOOTH)
    smooth = [moving_mean(run.metrics[metric], width) for run in runs]
    pairs = zip(axes, smooth, strict=True)
    return grid, np.stack([interpolated(grid, axis, values) for axis, values in pairs])


def interpolated(grid: np.ndarray, axis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the values, of which some are NaN, on a grid; NaN if all are."""
    known = np.isfinite(values)
    if not known.any():
        return np.full(grid.shape, np.nan)
    return np.interp(grid, axis[known], values[known])


def moving_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean of each value and those before it, at most `width` of them, NaN left out."""
    known = np.isfinite(values)
    sums = np.cumsum(np.concatenate([[0.0], np.where(known, values, 0)]))
    counts = np.cumsum(np.concatenate([[0], known]))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - width, 0)
    count = counts[last] - counts[first]
    total = sums[last] - sums[first]
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def adaptation_curves(scores: Mapping[str, np.ndarray], shown: Evaluation) -> Figure:
    """Draw mean return at each point of adaptation, with intervals over seeds and tasks."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(shown.points))
    for (name, values), colour in zip(scores.items(), COLOURS * 9, strict=False):
        rng = make_rng(0, Purpose.BOOTSTRAP)
        bounds = np.array([interval(each, rng) for each in np.moveaxis(values, 2, 0)])
        axes.fill_between(places, *bounds.T, color=colour, alpha=0.15, linewidth=0)
        axes.plot(places, values.mean((0, 1)), "o-", color=colour, label=name, linewidth=1.3)
    axes.set_xticks(places, list(map(str, shown.points)))
    axes.set_xlabel(shown.axis)
    axes.set_ylabel("return")
    finish(axes)
    return figure


def profiles(scores: Mapping[str, np.ndarray]) -> Figure:
    """Draw which share of runs and tasks comes above each return after the last step."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    last = {name: values[:, :, -1] for name, values in scores.items()}
    low, high = np.quantile(np.concatenate([each.ravel() for each in last.values()]), [0.01, 1.0])
    levels = np.linspace(low, high, 200)
    for (name, values), colour in zip(last.items(), COLOURS * 9, strict=False):
        axes.plot(levels, performance_profile(values, levels), color=colour, label=name)
    axes.set_xlabel("return")
    axes.set_ylabel("share of runs and tasks above")
    finish(axes)
    return figure


def by_task_parameter(results: Mapping[str, Evaluation]) -> Figure | None:
    """Draw the return before and after adaptation against the task; None for tasks of many numbers.

    One number on the axis, two as places in the plane with the return as colour.
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
            for place, colour in ((0, "#999999"), (-1, COLOURS[0])):
                tick = f"{result.axis}: {result.points[place]}"
                axes.plot(
                    result.tasks[:, 0],
                    result.by_task[:, place],
                    "o",
                    ms=4,
                    color=colour,
                    label=tick,
                )
            axes.set_xlabel("task")
            finish(axes)
        else:
            x, y = result.tasks.T
            drawn = axes.scatter(x, y, c=result.by_task[:, -1], s=30, cmap="viridis")
            figure.colorbar(drawn, ax=axes, label=f"return, {result.axis}: {result.points[-1]}")
            axes.set_aspect("equal")
        axes.set_title(name, fontsize=9)
    if task_dim == 1:
        panels[0].set_ylabel("return")
    return figure


def diagnostics(stories: Sequence[Story]) -> Figure:
    """Draw every other metric of training, small: what explains a run that failed."""
    names = {name: None for story in stories for name in story.metrics if name not in HIDDEN}
    columns = 3
    rows = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(9, 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    groups = by_method(stories)
    for axes, name in zip(panels, names, strict=False):
        for (_, runs), colour in zip(groups.items(), COLOURS * 9, strict=False):
            for run in runs:
                if name in run.metrics:
                    steps = run.metrics["env_steps"] / 1e6
                    axes.plot(steps, run.metrics[name], color=colour, linewidth=0.8)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        finish(axes, legend=False)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("million env steps", fontsize=9)
    return figure
