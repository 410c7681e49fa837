"""Figures of results."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.evaluation.evaluate import Evaluation
from metarl.evaluation.protocols import STRENGTHS, forgetting
from metarl.runs.atomic_io import write_atomically

COLOURS = ("#2a6fbb", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#555555")


@contextlib.contextmanager
def literal_texts() -> Iterator[None]:
    """Draw texts as they are: a dollar sign begins no formula, an unknown character is a box."""
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


@literal_texts()
def draw(protocol: str, results: Mapping[str, Evaluation], path: Path) -> None:
    """Draw what a protocol found, as a PNG.

    Args:
        protocol: its name.
        results: by method, or `method, part`, on the same tasks.
        path: the file to write.
    """
    save(PANELS.get(protocol, curves)(results), path)


def curves(results: Mapping[str, Evaluation]) -> Figure:
    """Draw return against what was spent on adaptation, with intervals over tasks."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, (label, result) in enumerate(results.items()):
        places = np.arange(len(result.points))
        low, high = result.interval.T
        colour = COLOURS[number % len(COLOURS)]
        axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(places, result.mean, marker="o", color=colour, label=label)
    first = next(iter(results.values()))
    axes.set_xticks(range(len(first.points)), list(map(str, first.points)))
    axes.set_xlabel(first.axis)
    axes.set_ylabel("return (mean over tasks, 95% interval)")
    axes.set_title(title(first))
    finish(axes)
    return figure


def robustness(results: Mapping[str, Evaluation]) -> Figure:
    """Draw return before and after adaptation against the strength of each perturbation."""
    methods = [name.removesuffix(", usual") for name in results if name.endswith(", usual")]
    shown = [name for name in STRENGTHS if any(f", {name} " in key for key in results)]
    figure = Figure(figsize=(4 * len(shown), 3.6), layout="constrained")
    all_axes = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, name in zip(all_axes, shown, strict=True):
        strengths = STRENGTHS[name]
        ticks = ["usual", *(f"{strength:g}" for strength in strengths)]
        for method, colour in zip(methods, COLOURS, strict=False):
            parts = [f"{method}, {name} {tick}" for tick in ticks[1:]]
            found = [results[f"{method}, usual"], *(results[part] for part in parts)]
            for place, style, when in ((-1, "o-", "adapted"), (0, "o:", "unadapted")):
                means = [result.mean[place] for result in found]
                axes.plot(ticks, means, style, color=colour, label=f"{method}, {when}")
        axes.set_xlabel(name.replace("_", " "))
        finish(axes, legend=axes is all_axes[-1])
    all_axes[0].set_ylabel("return (mean over tasks)")
    figure.suptitle(title(next(iter(results.values()))))
    return figure


def forgetting_matrices(results: Mapping[str, Evaluation]) -> Figure:
    """Draw the return on each task of a sequence after each has been met, as a map of numbers."""
    figure = Figure(figsize=(4.2 * len(results), 4), layout="constrained")
    all_axes = figure.subplots(1, len(results), squeeze=False)[0]
    matrices = [forgetting(result).matrix for result in results.values()]
    limits = min(map(np.min, matrices)), max(map(np.max, matrices))
    for axes, (label, result), matrix in zip(all_axes, results.items(), matrices, strict=True):
        axes.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap="viridis", aspect="auto")
        middle = np.mean(limits)
        for (met, place), value in np.ndenumerate(matrix):
            ink = "white" if value < middle else "black"
            axes.text(place, met, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=8)
        axes.set_yticks(range(len(result.points)), list(map(str, result.points)))
        axes.set_xticks(range(matrix.shape[1]), [str(task + 1) for task in range(matrix.shape[1])])
        axes.set_xlabel("return on task")
        axes.set_title(label, fontsize=9)
    all_axes[0].set_ylabel("tasks met")
    return figure


PANELS = {"robust": robustness, "continual": forgetting_matrices}
"""Protocols whose results have a figure of their own."""


def title(result: Evaluation) -> str:
    """Say what was evaluated."""
    count, _, episodes = result.returns.shape
    return f"{result.family}: {count} {result.split} tasks, {episodes} episodes each"


def finish(axes: Axes, legend: bool = True) -> None:
    """Give axes the look of all of them."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=8)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())
