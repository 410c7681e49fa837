"""The figure of one evaluation, by protocol."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.evaluation.continual import forgetting
from metarl.evaluation.protocols import PERTURBATIONS
from metarl.evaluation.result import Evaluation
from metarl.runs.atomic_io import write_atomically

COLOURS = ("#2a6fbb", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#555555")


@contextlib.contextmanager
def literal_texts() -> Iterator[None]:
    """Draw texts as they are: a dollar sign begins no formula, an unknown character is a box."""
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


@literal_texts()
def draw_evaluation(protocol: str, results: Mapping[str, Evaluation], path: Path) -> None:
    """Write the figure of an evaluation as a PNG.

    Args:
        protocol: the name of the protocol.
        results: by method, or `method, part`, on the same tasks.
        path: the file to write.

    Raises:
        StorageError: if the file cannot be written.
    """
    save_png(PROTOCOL_FIGURES.get(protocol, return_curves)(results), path)


def return_curves(results: Mapping[str, Evaluation]) -> Figure:
    """Draw mean return against x, such as adaptations made, with intervals over tasks."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, (label, result) in enumerate(results.items()):
        colour = COLOURS[number % len(COLOURS)]
        draw_curve(axes, result.mean, result.interval, label=label, colour=colour, alpha=0.18)
    longest = longest_result(results.values())
    set_x_axis(axes, longest)
    axes.set_ylabel("return (mean over tasks, 95% interval)")
    axes.set_title(figure_title(next(iter(results.values()))))
    style_axes(axes)
    return figure


def longest_result(results: Iterable[Evaluation]) -> Evaluation:
    """Return the first of the results that have the most values of x."""
    return max(results, key=lambda result: len(result.x))


def draw_curve(
    axes: Axes,
    means: np.ndarray,
    intervals: np.ndarray,
    *,
    label: str,
    colour: str,
    alpha: float,
    linewidth: float | None = None,
) -> None:
    """Draw means, (P,), with their intervals, (P, 2), at the places 0, ..., P - 1; an interval that
    is NaN is left out.

    A single mean, of an agent that cannot adapt, becomes a dashed line over all places.
    """
    if len(means) == 1:
        axes.axhspan(*intervals[0], color=colour, alpha=alpha, linewidth=0)
        axes.axhline(means[0], linestyle="--", color=colour, label=label, linewidth=linewidth)
        return
    places = np.arange(len(means))
    axes.fill_between(places, *intervals.T, color=colour, alpha=alpha, linewidth=0)
    axes.plot(places, means, marker="o", color=colour, label=label, linewidth=linewidth)


def set_x_axis(axes: Axes, result: Evaluation) -> None:
    """Label the places 0, ..., P - 1 with the x of a result."""
    axes.set_xticks(range(len(result.x)), list(map(str, result.x)))
    axes.set_xlabel(result.x_label)


def robustness_curves(results: Mapping[str, Evaluation]) -> Figure:
    """Draw return before and after adaptation against the strength of each perturbation.

    An agent that cannot adapt has one dashed curve.
    """
    nominal = ", nominal"
    methods = [name.removesuffix(nominal) for name in results if name.endswith(nominal)]
    shown = [name for name in PERTURBATIONS if any(f", {name} " in key for key in results)]
    figure = Figure(figsize=(4 * len(shown), 3.6), layout="constrained")
    all_axes = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, name in zip(all_axes, shown, strict=True):
        ticks = ["nominal", *(f"{strength:g}" for strength in PERTURBATIONS[name])]
        for method, colour in zip(methods, COLOURS, strict=False):
            parts = [f"{method}, {name} {tick}" for tick in ticks[1:]]
            found = [results[f"{method}{nominal}"], *(results[part] for part in parts)]
            adapts = any(len(result.x) > 1 for result in found)
            curves = [(-1, "o-", f"{method}, adapted"), (0, "o:", f"{method}, unadapted")]
            for place, style, label in curves if adapts else [(0, "o--", method)]:
                means = [result.mean[place] for result in found]
                axes.plot(ticks, means, style, color=colour, label=label)
        axes.set_xlabel(name.replace("_", " "))
        style_axes(axes, legend=axes is all_axes[-1])
    all_axes[0].set_ylabel("return (mean over tasks)")
    figure.suptitle(figure_title(next(iter(results.values()))))
    return figure


def forgetting_matrices(results: Mapping[str, Evaluation]) -> Figure:
    """Draw the return on each task of a sequence after each was met, as coloured matrices.

    Results of agents that cannot adapt have no matrix.
    """
    adapting = {label: result for label, result in results.items() if len(result.x) > 1}
    if not adapting:
        return return_curves(results)
    figure = Figure(figsize=(4.2 * len(adapting), 4), layout="constrained")
    all_axes = figure.subplots(1, len(adapting), squeeze=False)[0]
    matrices = [forgetting(result).matrix for result in adapting.values()]
    limits = min(map(np.min, matrices)), max(map(np.max, matrices))
    for axes, (label, result), matrix in zip(all_axes, adapting.items(), matrices, strict=True):
        axes.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap="viridis", aspect="auto")
        middle = np.mean(limits)
        for (met, place), value in np.ndenumerate(matrix):
            colour = "white" if value < middle else "black"
            text = f"{value:.0f}"
            axes.text(place, met, text, ha="center", va="center", color=colour, fontsize=8)
        axes.set_yticks(range(len(result.x)), list(map(str, result.x)))
        axes.set_xticks(range(matrix.shape[1]), [str(task + 1) for task in range(matrix.shape[1])])
        axes.set_xlabel("return on task")
        axes.set_title(label, fontsize=9)
    all_axes[0].set_ylabel("tasks met")
    return figure


PROTOCOL_FIGURES = {"robust": robustness_curves, "continual": forgetting_matrices}
"""Protocols with a figure of their own."""


def figure_title(result: Evaluation) -> str:
    """Return the family, the tasks and the number of episodes as text."""
    return f"{result.family}: {tasks_text(result)}, {result.returns.shape[2]} episodes each"


def tasks_text(result: Evaluation) -> str:
    """Return the number of tasks and their set as text, and whether some are there repeatedly."""
    text = f"{len(result.tasks)} {result.split} tasks"
    if (distinct := len(np.unique(result.tasks, axis=0))) < len(result.tasks):
        text += f" ({distinct} distinct)"
    return text


def style_axes(axes: Axes, legend: bool = True) -> None:
    """Apply the common style: grid, two spines, and a legend where asked for."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=8)


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, atomically.

    Raises:
        StorageError: if the file cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())
