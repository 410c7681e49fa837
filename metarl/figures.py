"""Figures of results."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from metarl.checkpoint import write_atomically
from metarl.evaluation import Evaluation

COLOURS = ("#2a6fbb", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#555555")


def adaptation_curve(evaluations: Mapping[str, Evaluation], path: Path) -> None:
    """Draw return against adaptation steps, with intervals over tasks, as a PNG.

    Args:
        evaluations: by label, on the same tasks.
        path: the file to write.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (label, result), colour in zip(evaluations.items(), COLOURS, strict=False):
        steps = range(len(result.mean))
        low, high = result.interval.T
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(steps, result.mean, marker="o", color=colour, label=label)
    first = next(iter(evaluations.values()))
    axes.set_xticks(range(len(first.mean)))
    axes.set_xlabel("adaptation steps")
    axes.set_ylabel("return (mean over tasks, 95% interval)")
    axes.set_title(
        f"{first.family}: {first.returns.shape[0]} {first.split} tasks, "
        f"{first.returns.shape[2]} episodes per step"
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())
