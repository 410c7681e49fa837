"""The figure of docs/objectives_measured.md: what each objective costs and gains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from examples.agents.measure import NOMINAL, SEQUENTIAL, SHOCKS
from examples.agents.scores import (
    FORGOTTEN,
    MET,
    WORST,
    evaluation,
    having,
    sequence_scores,
    worst_scores,
)
from metarl.core.errors import UserError
from metarl.core.statistics import difference_interval, mean_interval
from metarl.reporting.names import family_text, method_text
from metarl.reporting.style import (
    GRID,
    MARKERS,
    REFERENCE,
    Drawing,
    drawing_style,
    legend_below,
    limit_axis,
    method_style,
    note_above,
    save_drawing,
    style_axes,
)

REFERENCES = ("maml_trpo", "maml_trpo_tuned", "rl2")
"""What the other methods of a family are compared with: the first of these that it has."""
UNPREPARED = "pretrained"
"""A method that adapts with steps that it was not trained for: it does not set limits of axes."""
COLUMNS = ("family", "method", "condition", "value", "low", "high")
Looks = Mapping[str, Mapping[str, Any]]


@drawing_style()
def draw(stored: Mapping[str, Any], path: Path) -> list[Path]:
    """Draw a row of two panels for each family that has sequences, and a reference with several
    seeds, and return the files.

    On the left the return on the current task against what is forgotten of it, with the region that
    has half the forgetting of the reference at a return within 10%; on the right the change of the
    return against the reference under each condition that both were measured under.

    Raises:
        UserError: if there is no such family.
    """
    families = {name: having(SEQUENTIAL, methods) for name, methods in stored.items()}
    references = {name: reference_of(methods) for name, methods in families.items()}
    families = {
        name: methods
        for name, methods in families.items()
        if len(methods.get(references[name], ())) > 1
    }
    if not families:
        raise UserError(
            "no family has sequences (--measure continual) of several seeds of one of "
            + ", ".join(REFERENCES)
        )
    names = dict.fromkeys(name for family in families for name in stored[family])
    order = list(dict.fromkeys(map(untuned, names)))  # tuned or not, a method has one look
    looks = {name: look(name, order.index(untuned(name))) for name in names}
    figure = Figure(figsize=(12, 3.4 * len(families)), layout="constrained")
    panels = figure.subplots(len(families), 2, squeeze=False, width_ratios=(5, 6))
    rows: list[tuple] = []
    for (left, right), (family, measured) in zip(panels, families.items(), strict=True):
        reference = references[family]
        rows += draw_forgetting(left, family, measured, reference, looks)
        rows += draw_changes(right, family, having(NOMINAL, stored[family]), reference, looks)
        left.set_title(family_text(family.partition(",")[0]))
        for axes in (left, right):
            style_axes(axes)
    legend_below(figure, list(panels.flat))
    caption = (
        "Left: the return on the current task against what is forgotten of it; the region has half "
        "the forgetting at a return within 10%. Right: change of the return. Bars are 95% "
        "intervals over seeds and tasks."
    )
    return save_drawing(Drawing(figure, caption, COLUMNS, rows), path)


def reference_of(methods: Mapping[str, Any]) -> str:
    """Return the method that others are compared with; '' if none of `REFERENCES` is there."""
    return next((name for name in REFERENCES if name in methods), "")


def untuned(method: str) -> str:
    """Return the name of a method without the ending of tuned settings."""
    return method.removesuffix("_tuned")


def draw_forgetting(
    axes: Axes, family: str, methods: Mapping[str, Any], reference: str, looks: Looks
) -> list[tuple]:
    """Draw plasticity against forgetting, and return the plotted numbers."""
    rows: list[tuple] = []
    means: dict[str, np.ndarray] = {}
    for name, seeds in methods.items():
        found = sequence_scores(family, seeds)
        scores = np.array([found[FORGOTTEN], found[MET]])  # (2, S, sequences)
        means[name] = mean = scores.mean(axis=(1, 2))
        bounds = np.array(mean_interval(scores))  # (2 bounds, 2)
        x_error, y_error = np.abs(bounds - mean).T[:, :, None]
        axes.errorbar(mean[0], mean[1], y_error, x_error, **looks[name])
        for label, value, low, high in zip((FORGOTTEN, MET), mean, *bounds, strict=True):
            rows.append((family, name, label, value, low, high))
    forgotten, met = means[reference]
    typical = np.array([mean for name, mean in means.items() if name != UNPREPARED])
    left = min(0.0, typical[:, 0].min())
    top = max(typical[:, 1].max(), met)
    floor = met - 0.1 * abs(met)
    goal = Rectangle((left, floor), forgotten / 2 - left, top - floor, color=GRID, zorder=0)
    goal.set_label("Half the forgetting, return within 10%")
    axes.add_patch(goal)
    note_above(axes, limit_axis(axes, typical[:, 1], np.array([row[3:] for row in rows[1::2]])))
    axes.set_xlabel(FORGOTTEN)
    axes.set_ylabel("return on the current task")
    return rows


def draw_changes(
    axes: Axes, family: str, methods: Mapping[str, Any], reference: str, looks: Looks
) -> list[tuple]:
    """Draw the changes of returns against the reference, and return the plotted numbers."""
    baseline = by_condition(family, methods.get(reference, {}))
    fixed = all_tasks_known(family, methods)
    rows: list[tuple] = []
    others = [name for name in methods if name != reference]
    conditions = list(baseline)
    for number, name in enumerate(others):
        found = by_condition(family, methods[name])
        for condition in [each for each in conditions if each in found]:
            scores = found[condition]
            change = scores.mean() - baseline[condition].mean()
            bounds = difference_interval(scores, baseline[condition], fixed_tasks=fixed)
            low, high = map(float, bounds)
            x = conditions.index(condition) + 0.8 * ((number + 0.5) / len(others) - 0.5)
            axes.errorbar(x, change, [[change - low], [high - change]], **looks[name])
            rows.append((family, name, condition, float(change), low, high))
    axes.axhline(0, color=REFERENCE)
    typical = [row[3] for row in rows if row[1] != UNPREPARED]
    note_above(axes, limit_axis(axes, np.array(typical), np.array([row[3:] for row in rows])))
    axes.set_xticks(range(len(conditions)), conditions, fontsize=9)
    axes.set_ylabel(f"change against {method_text(reference)}")
    return rows


def by_condition(family: str, seeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the scores of a method on distinct tasks under each condition, (S, D), and those of
    the worst fifth of the undisturbed tasks, (S, 1); nothing without seeds."""
    found: dict[str, np.ndarray] = {}
    for part, title in SHOCKS.items():
        runs = [evaluation(family, seed[part]) for seed in seeds.values() if part in seed]
        if runs:
            found[title] = np.array([run.scores[:, -1] for run in runs])
        if part == NOMINAL and runs:
            found[WORST] = worst_scores(runs)
    return found


def all_tasks_known(family: str, methods: Mapping[str, Any]) -> bool:
    """Return whether the undisturbed tasks are all tasks that the family has."""
    parts = [seed[NOMINAL] for seeds in methods.values() for seed in seeds.values()]
    return bool(parts) and evaluation(family, parts[0]).has_all_tasks


def look(name: str, number: int) -> dict[str, Any]:
    """Return the settings of a point with bars, of the method of a number, from 0. Where styles
    repeat, points are hollow. Tuned or not, a method has one label, and one entry in a legend."""
    style, text = method_style(number), method_text(untuned(name))
    return {
        "color": style.colour,
        "markerfacecolor": style.colour if number < len(MARKERS) else "white",
        "marker": style.marker,
        "linestyle": "none",
        "elinewidth": 1,
        "label": text[:1].upper() + text[1:],
    }
