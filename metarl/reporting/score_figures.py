"""The figures of the scores in an evaluation: performance profiles, and returns by task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarl.core.statistics import performance_profile
from metarl.reporting.figures import longest_result
from metarl.reporting.names import method_texts, task_texts
from metarl.reporting.pooling import final_scores
from metarl.reporting.style import (
    REFERENCE,
    Drawing,
    LineStyle,
    legend_below,
    method_styles,
    note_above,
    shown_range,
    style_axes,
)
from metarl.runs.result import Evaluation

MAX_TICKS = 5
"""Number of intervals between ticks of an axis of tasks, and of distinct tasks that are marked."""
NICE = (1, 2, 5, 10)
"""Steps between ticks, times a power of ten."""
APART = 0.15
"""Share of the axis by which distinct tasks are apart that are all marked."""


def profiles(
    results: Mapping[str, Sequence[Evaluation]], styles: Mapping[str, LineStyle] | None = None
) -> Drawing:
    """Draw the performance profile of each method at the last x.

    A profile is the fraction of runs and tasks above each return (Agarwal et al. 2021).

    Args:
        results: of each method, seed by seed.
        styles: the style of each method; by default by its place.
    """
    last = final_scores(results)
    levels, note = profile_levels(list(last.values()), 200)
    shares = np.array([performance_profile(scores, levels) for scores in last.values()])
    when = when_text(seeds[0] for seeds in results.values())
    return draw_profiles(list(last), levels, shares, "return", when, note=note, styles=styles)


def when_text(results: Iterable[Evaluation]) -> str:
    """Return at which x the last scores of results are, as text for a caption; '' if there is only
    one x."""
    longest = longest_result(results)
    return f" at the largest number of {longest.x_label}" if len(longest.x) > 1 else ""


def profile_levels(
    scores: Sequence[np.ndarray], number: int, also: float | None = None
) -> tuple[np.ndarray, str]:
    """Return the levels of performance profiles, (number,), and how far the scores go that are cut
    off, since single scores far away would squash the profiles ('' if none is).

    Typical are the medians over seeds, but for the lowest hundredth, as in `limit_axis`.

    Args:
        scores: of S seeds on B tasks each, (S, B).
        number: number of levels.
        also: a further typical score.
    """
    drawn = np.concatenate([each.ravel() for each in scores])
    typical = np.concatenate([np.median(each, axis=0) for each in scores])
    typical = typical[typical >= np.quantile(typical, 0.01, method="lower")]
    if also is not None:
        drawn, typical = np.append(drawn, also), np.append(typical, also)
    low, high, note = drawn.min(), drawn.max(), ""
    if np.ptp(typical) > 0:
        low, high, note = shown_range(typical, drawn)
    margin = 0.02 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, number), note


def draw_profiles(
    names: Sequence[str],
    levels: np.ndarray,
    shares: np.ndarray,
    x_label: str,
    when: str = "",
    bounds: np.ndarray | None = None,
    note: str = "",
    styles: Mapping[str, LineStyle] | None = None,
) -> Drawing:
    """Draw performance profiles.

    Args:
        names: labels of M methods.
        levels: levels of the scores, (n,).
        shares: the fraction of the scores of each method above each level, (M, n).
        x_label: what the scores are.
        when: at which x they are, as `when_text`.
        bounds: lower and upper bounds of the shares, (2, M, n); None for no bands.
        note: a note above the axis.
        styles: the style of each method; by default by its place.
    """
    figure = Figure(figsize=(5, 3.3), layout="constrained")
    axes = figure.subplots()
    texts, rows = method_texts(names), []
    styles = styles or method_styles(names)
    for number, name in enumerate(names):
        style, values = styles[name], [shares[number]]
        if bounds is not None:
            values += [*bounds[:, number]]
            axes.fill_between(levels, *values[1:], color=style.colour, alpha=0.15, linewidth=0)
        axes.plot(levels, values[0], linestyle=style.line, color=style.colour, label=texts[name])
        rows += [(name, *each) for each in zip(levels, *values, strict=True)]
    axes.set_xlabel(x_label)
    axes.set_ylabel("share of runs and tasks above")
    axes.set_ylim(-0.03, 1.03)
    note_above(axes, note)
    style_axes(axes)
    legend_below(figure, [axes])
    caption = (
        f"Performance profiles: the share of runs and tasks with a {x_label} above the one on the "
        f"axis{when}. A higher line is better."
    )
    columns = ("method", x_label, "share above", *(["low", "high"] if bounds is not None else []))
    return Drawing(figure, caption, columns, rows)


def returns_by_task(
    results: Mapping[str, Evaluation], styles: Mapping[str, LineStyle] | None = None
) -> Drawing | None:
    """Draw the return at the first and at the last x against the task, all methods on one scale.

    A task of one number is on the x axis; a task of two numbers is a place in the plane, with the
    return at the last x as colour. None for tasks of more numbers.

    Args:
        results: one of each method.
        styles: the style of each method; by default by its place.
    """
    first = next(iter(results.values()))
    task_dim = first.tasks.shape[1]
    if task_dim > 2:
        return None
    count = len(results)
    figure = Figure(
        figsize=(max(5 if task_dim == 1 else 4.4, 3.5 * count + 0.8), 3.3), layout="constrained"
    )
    panels = figure.subplots(1, count, squeeze=False, sharex=True, sharey=True)[0]
    names, texts = method_texts(results), task_texts(first.family, first.tasks)
    styles = styles or method_styles(results)
    last = np.concatenate([result.by_task[:, -1] for result in results.values()])
    low, high = np.nanmin(last), np.nanmax(last)
    every, when = np.concatenate([r.tasks for r in results.values()]), when_text(results.values())
    rows, points = [], None
    for axes, (name, result) in zip(panels, results.items(), strict=True):
        axes.set_title(names[name], fontsize=9)
        axes.set_xlabel(texts[0])
        mark_tasks(axes, every)
        style_axes(axes)
        places = [0, len(result.x) - 1] if len(result.x) > 1 else [0]
        for place in places:
            numbers = zip(result.tasks, result.by_task[:, place], strict=True)
            rows += [(name, result.x[place], *task, value) for task, value in numbers]
        if task_dim == 1:
            draw_on_line(axes, result, places, styles[name].colour)
        else:
            points = draw_in_plane(axes, result, low, high)
    panels[0].set_ylabel("mean return" if task_dim == 1 else texts[1])
    if points is not None:
        figure.colorbar(points, ax=panels, label="mean return")
    caption = f"Mean return of each task{', a place in the plane,' * (task_dim == 2)}{when}."
    if task_dim == 1 and when:
        caption = caption.removesuffix(".") + ", and at the smallest one (grey)."
    return Drawing(figure, caption, ("method", first.x_label, *texts, "mean return"), rows)


def mark_tasks(axes: Axes, tasks: np.ndarray) -> None:
    """Set the ticks of axes of tasks, (n, 1) or (n, 2): the tasks themselves where they are few and
    far apart, otherwise even numbers, whole ones for tasks of whole numbers."""
    distinct = np.unique(tasks[:, 0])
    gaps = np.diff(distinct)
    if tasks.shape[1] == 1 and len(gaps) < MAX_TICKS and (gaps >= APART * gaps.sum()).all():
        axes.set_xticks(distinct, [f"{number:.4g}" for number in distinct])
        return
    whole = bool((tasks == tasks.round()).all())
    axes.xaxis.set_major_locator(MaxNLocator(MAX_TICKS, steps=NICE, integer=whole))
    if tasks.shape[1] == 2:
        axes.yaxis.set_major_locator(MaxNLocator(MAX_TICKS, steps=NICE, integer=whole))


def draw_on_line(axes: Axes, result: Evaluation, places: Sequence[int], colour: str) -> None:
    """Draw the returns against tasks of one number, at places of x; those at the last in colour."""
    for place in places:
        is_last = place == places[-1]
        axes.plot(
            result.tasks[:, 0],
            result.by_task[:, place],
            "o",
            ms=4,
            label=f"{result.x_label}: {result.x[place]}",
            color=colour if is_last else REFERENCE,
            fillstyle="full" if is_last else "none",
        )
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=2)


def draw_in_plane(axes: Axes, result: Evaluation, low: float, high: float) -> PathCollection:
    """Draw the returns at the last x as the colours of tasks of two numbers, and return the points.

    Args:
        axes: where to draw.
        result: the evaluation.
        low, high: the returns at the ends of the colours.
    """
    points = axes.scatter(
        *result.tasks.T,
        c=result.by_task[:, -1],
        s=34,
        cmap="viridis",
        vmin=low,
        vmax=high,
        edgecolors=REFERENCE,  # for a dark page
        linewidths=0.5,
    )
    axes.set_aspect("equal")
    return points
