"""The figures of one evaluation, by protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from metarl.evaluation.continual import forgetting
from metarl.reporting.names import PERTURBATIONS, family_text, method_texts
from metarl.reporting.pooling import MethodPart, by_label, part_styles, pooled_interval
from metarl.reporting.style import (
    Drawing,
    LineStyle,
    drawing_style,
    legend_below,
    limit_axis,
    method_styles,
    note_above,
    save_drawing,
    style_axes,
    title_above,
)
from metarl.runs.printing import decimals, played_text
from metarl.runs.result import Evaluation, Results

INTERVAL = (
    "A band is the 95% interval of the mean over seeds and tasks; of one seed, over tasks. A "
    "dashed line without markers is of an agent that does not adapt."
)
WITH_OWN_FIGURE = ("robust", "continual")
"""Protocols whose results are not curves against x."""
MAX_TICKS = 15
"""Number of values of x that are written below an axis."""
CURVE_COLUMNS = ("method", "seeds", "x", "mean", "low", "high")


@drawing_style()
def draw_evaluation(protocol: str, results: Mapping[str, Results], path: Path) -> None:
    """Write the figure of an evaluation as PNG, PDF and SVG, and its numbers as CSV.

    Args:
        protocol: the name of the protocol.
        results: by method and part, on the same tasks.
        path: the PNG to write; the other files are beside it.

    Raises:
        StorageError: if a file cannot be written.
        UserError: if the results hold numbers that cannot be drawn.
    """
    found = {
        MethodPart(method, part): [result]
        for method, parts in results.items()
        for part, result in parts.items()
    }
    save_drawing(main_figure(protocol, found), path)


def main_figure(
    protocol: str,
    results: Mapping[MethodPart, Sequence[Evaluation]],
    methods: Sequence[str] = (),
) -> Drawing:
    """Draw the results of a protocol.

    Args:
        protocol: the name of the protocol.
        results: of each method, and part, seed by seed, on the same tasks.
        methods: all methods of a set of figures; by default those of the results.
    """
    if protocol == "robust":
        return robustness_curves(results, methods)
    draw = forgetting_matrices if protocol == "continual" else adaptation_curves
    return draw(by_label(results), part_styles(results, methods))


def adaptation_curves(
    results: Mapping[str, Sequence[Evaluation]], styles: Mapping[str, LineStyle] | None = None
) -> Drawing:
    """Draw mean return, and beside it the success rate where it is known, against x, such as
    adaptations made, with intervals over seeds and tasks.

    Args:
        results: of each method, seed by seed, on the same tasks.
        styles: the style of each method; by default by its place.
    """
    successes = success_results(results)
    figure = Figure(figsize=(8.5 if successes else 5, 3.3), layout="constrained")
    all_axes = figure.subplots(1, 2 if successes else 1, squeeze=False)[0]
    styles = styles or method_styles(results)
    rows = draw_curves(all_axes[0], results, styles)
    by_seed = [np.median([seed.mean for seed in seeds], axis=0) for seeds in results.values()]
    drawn = np.array([values for _, _, *values in rows.values()], float)
    typical = with_bands(np.concatenate(by_seed), drawn[:, 1:])
    note_above(all_axes[0], limit_axis(all_axes[0], typical, drawn.ravel()))
    all_axes[0].set_ylabel("mean return (band: 95% interval)")
    longest = longest_result(seeds[0] for seeds in results.values())
    caption = f"Mean return against the number of {longest.x_label}. {INTERVAL}"
    columns = CURVE_COLUMNS
    if successes:
        found = draw_curves(all_axes[1], successes, styles, within=(0.0, 1.0))
        unknown = (None,) * 5
        rows = {key: (*row, *found.get(key, unknown)[2:]) for key, row in rows.items()}
        all_axes[1].set_ylim(-0.03, 1.03)
        all_axes[1].yaxis.set_major_formatter(PercentFormatter(1))
        all_axes[1].set_ylabel("success rate (band: 95% interval)")
        caption = caption.replace("Mean return", "Mean return and success rate", 1)
        columns += ("success", "success low", "success high")
    for axes in all_axes:
        places = range(0, len(longest.x), -(-len(longest.x) // MAX_TICKS))
        axes.set_xticks(places, [str(longest.x[place]) for place in places])
        axes.set_xlabel(longest.x_label)
        style_axes(axes)
    legend_below(figure, all_axes)
    title_above(figure, figure_title(results))
    return Drawing(figure, caption, columns, [(name, *row) for (name, _), row in rows.items()])


def with_bands(values: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Return the ends of bands around values, (n,), each as wide as the middle one of intervals,
    (m, 2), so that differences within the uncertainty are not drawn large."""
    widths = np.diff(intervals[np.isfinite(intervals).all(axis=1)]).ravel()
    reach = np.quantile(widths, 0.5, method="lower") / 2 if widths.size else 0.0
    return np.concatenate([values - reach, values + reach])


def success_results(
    results: Mapping[str, Sequence[Evaluation]],
) -> dict[str, list[Evaluation]]:
    """Return the evaluations of success of the methods of which all seeds have one."""
    found = {name: [seed.successes for seed in seeds] for name, seeds in results.items()}
    known = {name: [each for each in seeds if each is not None] for name, seeds in found.items()}
    return {name: seeds for name, seeds in known.items() if len(seeds) == len(results[name])}


def draw_curves(
    axes: Axes,
    results: Mapping[str, Sequence[Evaluation]],
    styles: Mapping[str, LineStyle],
    within: tuple[float, float] = (-np.inf, np.inf),
) -> dict[tuple[str, int], tuple[Any, ...]]:
    """Draw the means of methods against x, and their intervals as far as values are possible.

    Returns:
        By method and x the number of seeds, x, the mean and its interval.
    """
    rows, names = {}, method_texts(styles)
    for name, seeds in results.items():
        means = np.mean([seed.mean for seed in seeds], axis=0)
        intervals = np.clip(pooled_interval(seeds), *within)
        draw_curve(axes, means, intervals, names[name], styles[name])
        for x, *values in zip(seeds[0].x, means, *intervals.T, strict=True):
            rows[name, x] = (len(seeds), x, *values)
    return rows


def longest_result(results: Iterable[Evaluation]) -> Evaluation:
    """Return the first of the results that have the most values of x."""
    return max(results, key=lambda result: len(result.x))


def draw_curve(
    axes: Axes, means: np.ndarray, intervals: np.ndarray, label: str, style: LineStyle
) -> None:
    """Draw means, (P,), with their intervals, (P, 2), at the places 0, ..., P - 1; an interval that
    is NaN is left out.

    A single mean, of an agent that cannot adapt, becomes a dashed line over all places.
    """
    colour = style.colour
    if len(means) == 1:
        axes.axhspan(*intervals[0], color=colour, alpha=0.15, linewidth=0)
        line = "--" if style.filled else (0, (2, 2))
        axes.axhline(means[0], linestyle=line, color=colour, label=label)
        return
    places = np.arange(len(means))
    axes.fill_between(places, *intervals.T, color=colour, alpha=0.15, linewidth=0)
    look = {"linestyle": style.line, "marker": style.marker, "color": colour}
    look["fillstyle"] = "full" if style.filled else "none"
    axes.plot(places, means, label=label, **look)


def robustness_curves(
    results: Mapping[MethodPart, Sequence[Evaluation]], order: Sequence[str] = ()
) -> Drawing:
    """Draw return before and after adaptation against the strength of each perturbation, means over
    seeds and tasks. An agent that cannot adapt has one dashed curve.

    Args:
        results: of each method, and part, seed by seed, on the same tasks.
        order: all methods of a set of figures; by default those of the results.
    """
    methods = [key.method for key in results if key.part == "nominal"]
    names = method_texts(methods)
    styles = method_styles(dict.fromkeys([*order, *methods]))
    first = [key.part for key in results if key.method == methods[0]]
    strengths = {
        name: [part.removeprefix(f"{name} ") for part in first if part.startswith(f"{name} ")]
        for name in PERTURBATIONS
    }
    shown = [name for name in PERTURBATIONS if strengths[name]]
    figure = Figure(figsize=(3.8 * len(shown), 3.4), layout="constrained")
    all_axes = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    rows = []
    for axes, name in zip(all_axes, shown, strict=True):
        ticks = ["nominal", *strengths[name]]
        parts = ["nominal", *(f"{name} {strength}" for strength in strengths[name])]
        for method in methods:
            found = [results[MethodPart(method, part)] for part in parts]
            style = styles[method]
            adapts = any(len(seeds[0].x) > 1 for seeds in found)
            curves = [(-1, style.line, f"{names[method]}, adapted")]
            curves += [(0, ":", f"{names[method]}, unadapted")]
            for place, line, label in curves if adapts else [(0, "--", names[method])]:
                means = [np.mean([seed.mean[place] for seed in seeds]) for seeds in found]
                look = {"color": style.colour, "marker": style.marker, "linestyle": line}
                axes.plot(ticks, means, label=label, **look)
                rows += [(label, name, *each) for each in zip(ticks, means, strict=True)]
        axes.set_xlabel(PERTURBATIONS[name])
        style_axes(axes)
    all_axes[0].set_ylabel("mean return over tasks")
    legend_below(figure, all_axes)
    title_above(figure, figure_title(results))
    caption = (
        "Mean return over seeds and tasks under perturbations that are absent in training, one at "
        "a time. Dotted: before adaptation. Without intervals: these are in the table."
    )
    return Drawing(figure, caption, ("curve", "perturbation", "strength", "mean"), rows)


def forgetting_matrices(
    results: Mapping[str, Sequence[Evaluation]], styles: Mapping[str, LineStyle] | None = None
) -> Drawing:
    """Draw the return on each task of a sequence after each was met, means over seeds and
    sequences, as matrices on one scale. Results of agents that cannot adapt have no matrix.

    Args:
        results: of each `method, part`, seed by seed, on the same tasks.
        styles: the style of each method, and part; by default by its place.
    """
    adapting = {label: seeds for label, seeds in results.items() if len(seeds[0].x) > 1}
    if not adapting:
        return adaptation_curves(results, styles)
    columns = 2 if len(adapting) == 4 else min(3, len(adapting))
    lines = -(-len(adapting) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.6, 3.4 * lines), layout="constrained")
    all_axes = figure.subplots(lines, columns, squeeze=False)
    matrices = [
        np.mean([forgetting(seed).matrix for seed in seeds], axis=0) for seeds in adapting.values()
    ]
    low, high = min(map(np.min, matrices)), max(map(np.max, matrices))
    digits = decimals(np.array(matrices)) - 1
    names, rows = method_texts(adapting), []
    scale = ScalarMappable(Normalize(low, high), "viridis")
    for axes, (label, (result, *_)), matrix in zip(
        all_axes.flat, adapting.items(), matrices, strict=False
    ):
        axes.imshow(matrix, norm=scale.norm, cmap=scale.cmap, aspect="auto")
        for (met, place), value in np.ndenumerate(matrix):
            colour = "#ffffff" if value < (low + high) / 2 else "#000000"
            text = f"{value:z.{digits}f}"
            axes.text(place, met, text, ha="center", va="center", color=colour, fontsize=9)
            rows.append((label, result.x[met], place + 1, value))
        axes.set_yticks(range(len(result.x)), list(map(str, result.x)))
        axes.set_xticks(range(matrix.shape[1]), [str(task + 1) for task in range(matrix.shape[1])])
        axes.set_xlabel("task of the sequence")
        axes.set_title(names[label], fontsize=9)
    for axes in all_axes.flat[len(adapting) :]:
        axes.set_visible(False)
    for axes in all_axes[:, 0]:
        axes.set_ylabel("tasks met")
    figure.colorbar(scale, ax=all_axes, label="mean return")
    title_above(figure, figure_title(adapting))
    caption = (
        "Mean return on each task of a sequence after each number of tasks met, over seeds and "
        "sequences."
    )
    return Drawing(figure, caption, ("method", "tasks met", "task", "mean"), rows)


def figure_title(results: Mapping[Any, Sequence[Evaluation]]) -> str:
    """Return the family, the tasks and the numbers of episodes of results, seed by seed, as
    text."""
    every = [seed for seeds in results.values() for seed in seeds]
    text = re.sub(r"\bood (tasks?)\b", r"\1 out of distribution", played_text(every))
    return f"{family_text(every[0].family)}: {text}"
