"""Aggregates of a comparison over all its task families: table, figures and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from matplotlib.figure import Figure

from metarl.core import aggregates
from metarl.evaluation.compare import RANDOM, UNTRAINED
from metarl.reporting.names import family_text, method_text, method_texts
from metarl.reporting.pooling import final_places
from metarl.reporting.score_figures import draw_profiles, profile_levels, when_text
from metarl.reporting.style import (
    Drawing,
    LineStyle,
    drawing_style,
    method_styles,
    style_axes,
    title_above,
)
from metarl.runs.printing import decimals
from metarl.runs.result import Evaluation

LEVELS = 101
"""Number of levels of a performance profile."""
BOOTSTRAP = (
    "Bars and bands are 95% intervals of a bootstrap over seeds and tasks, stratified by family; "
    "with few seeds they are too narrow. One seed on all tasks of a family has none."
)
SCALE = "normalised return"
LETTER = 0.08
"""Mean width of a letter of a label, inches."""


FIGURES = MEANS, PROFILES, IMPROVEMENT = (
    "aggregate",
    "aggregate-profiles",
    "aggregate-improvement",
)
"""Names of the figures."""
FIGURE_TEXTS = {
    MEANS: "IQM, mean and optimality gap of each method, with intervals",
    PROFILES: "The share of runs and tasks of each method above each normalised return",
    IMPROVEMENT: "The probability that one method is better than another, by pairs",
}
"""What the figures show."""


@dataclass(frozen=True)
class FamilyScores:
    """The normalised scores of a family.

    Attributes:
        scale: which returns are 0 and 1, as text.
        scores: by method, of S seeds on B tasks, (S, B). Repeated tasks are there as often as they
            were played, so that a family of few tasks has the weight of the others.
        has_all_tasks: whether the tasks are all tasks of the distribution.
    """

    scale: str
    scores: Mapping[str, np.ndarray]
    has_all_tasks: bool


@dataclass(frozen=True)
class Aggregates:
    """Aggregates over families.

    Attributes:
        methods: the methods that every family has, the highest IQM first.
        seeds: the smallest number of seeds of each.
        scales: which returns are 0 and 1 in each family, a line each; or why a family was left out.
        left_out: which methods are left out and why, as a sentence; '' if none is.
        statistics: values and bounds of `metarl.core.aggregates.STATISTICS`, (3, M, 3); the bounds
            are NaN where there is no interval.
        drawings: figures by name.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    scales: Sequence[str]
    left_out: str
    statistics: np.ndarray
    drawings: Mapping[str, Drawing]


def normalised(family: str, results: Mapping[str, Sequence[Evaluation]]) -> FamilyScores:
    """Return the normalised scores of the methods of a family, at the last x that all have.

    0 is the mean return of the untrained agent before adaptation. 1 is that of the best oracle, a
    method whose label begins with `oracle`; without one, of the best method that was trained.

    Args:
        family: name of the family.
        results: of each method, seed by seed, on the same complete tasks.

    Raises:
        ValueError: if there is no untrained agent, or no method is better than it.
    """
    places = final_places(results)
    scores = {
        name: np.stack([seed.by_task[:, places[name]] for seed in seeds])
        for name, seeds in results.items()
    }
    title = family_text(family)
    untrained = next((name for name in (UNTRAINED, RANDOM) if name in results), None)
    if untrained is None:
        raise ValueError(f"{title}: not normalised: the results lack an untrained agent")
    low = float(np.mean([seed.mean[0] for seed in results[untrained]]))
    means = {
        name: float(np.mean([seed.mean[places[name]] for seed in seeds]))
        for name, seeds in results.items()
    }
    trained = [name for name in means if name not in (UNTRAINED, RANDOM)]
    oracles = [name for name in trained if name.startswith("oracle")]
    best = max(oracles or trained, key=means.__getitem__, default=untrained)
    digits = decimals(np.array([low, means[best]]))
    if not means[best] > low:
        raise ValueError(
            f"{title}: not normalised: {method_text(best)} ({means[best]:z.{digits}f}) is not "
            f"above the untrained agent ({low:z.{digits}f})"
        )
    return FamilyScores(
        f"{title}: 0 is the untrained agent before adaptation ({low:z.{digits}f}), "
        f"1 is {method_text(best)} ({means[best]:z.{digits}f})",
        {name: aggregates.normalise(each, low, means[best]) for name, each in scores.items()},
        next(iter(results.values()))[0].has_all_tasks,
    )


@drawing_style()
def aggregate(
    families: Mapping[str, Mapping[str, Sequence[Evaluation]]],
    styles: Mapping[str, LineStyle] | None = None,
) -> Aggregates | None:
    """Return the aggregates over families, of the methods that all of them have.

    Args:
        families: results by method of each family, as for `normalised`.
        styles: the style of each method; by default by its place in the families.

    Returns:
        The aggregates; None if no trained method is in all families, or none can be normalised.
    """
    scales, found, named = [], [], []
    for family, results in families.items():
        try:
            found.append(normalised(family, results))
        except ValueError as error:
            scales.append(str(error))
        else:
            scales.append(found[-1].scale)
            named.append(family_text(family))
    common = [
        name
        for name in (found[0].scores if found else ())
        if all(name in each.scores for each in found)
    ]
    if not set(common) - {RANDOM, UNTRAINED}:
        return None
    by_method = {name: [each.scores[name] for each in found] for name in common}
    common.sort(key=lambda name: -aggregates.iqm(by_method[name]))
    methods = [by_method[name] for name in common]
    fixed = [each.has_all_tasks for each in found]
    statistics = aggregates.estimate(aggregates.summaries, methods, fixed)
    text = "; ".join(named)
    when = when_text(seeds[0] for results in families.values() for seeds in results.values())
    styles = styles or method_styles(dict.fromkeys(chain.from_iterable(families.values())))
    drawings = {
        MEANS: draw_statistics(common, styles, statistics, text, when),
        PROFILES: draw_normalised_profiles(common, styles, methods, fixed, text, when),
    }
    if len(common) > 1:
        chances = aggregates.estimate(aggregates.improvements, methods, fixed, of_pairs=True)
        drawings[IMPROVEMENT] = draw_improvements(common, chances, text)
    seeds = [min(map(len, each)) for each in methods]
    left_out = left_out_text({name: each.scores for name, each in zip(named, found, strict=True)})
    return Aggregates(common, seeds, scales, left_out, statistics, drawings)


def left_out_text(families: Mapping[str, Iterable[str]]) -> str:
    """Return as a sentence which methods not every family has; '' if all have the same.

    Args:
        families: the methods of each family, by its name for people.
    """
    methods = {name: set(each) for name, each in families.items()}
    absent = {
        name: [family for family in methods if name not in methods[family]]
        for name in dict.fromkeys(chain.from_iterable(families.values()))
    }
    found = [
        f"{method_text(name)} (not in {', '.join(each)})" for name, each in absent.items() if each
    ]
    return f"Left out, since not every family has them: {'; '.join(found)}." if found else ""


def draw_statistics(
    names: Sequence[str],
    styles: Mapping[str, LineStyle],
    statistics: np.ndarray,
    families: str,
    when: str = "",
) -> Drawing:
    """Draw the statistics (3, M, 3) of M methods with their intervals."""
    columns = list(aggregates.STATISTICS)
    texts, rows = method_texts(names), []
    width = 8.3 + LETTER * max(map(len, texts.values()))
    figure = Figure(figsize=(width, 1.4 + 0.32 * len(names)), layout="constrained")
    for column, axes in enumerate(figure.subplots(1, len(columns), sharey=True)):
        for number, name in enumerate(names):
            value, low, high = statistics[:, number, column]
            style = styles[name]
            axes.hlines(number, low, high, color=style.colour, linewidth=7, alpha=0.35)
            axes.plot(value, number, style.marker, color=style.colour)
            rows.append((name, columns[column], value, low, high))
        axes.set_yticks(range(len(names)), [texts[name] for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        is_gap = columns[column] == "optimality gap"
        better = "lower" if is_gap else "higher"
        axes.set_title(f"{columns[column]} ({better} is better)", fontsize=9)
        axes.set_xlabel("what returns lack of 1" if is_gap else SCALE)
        style_axes(axes)
    title_above(figure, families)
    caption = f"Aggregates over {families}{when}. {BOOTSTRAP}"
    return Drawing(figure, caption, ("method", "statistic", "value", "low", "high"), rows)


def draw_normalised_profiles(
    names: Sequence[str],
    styles: Mapping[str, LineStyle],
    methods: Sequence[aggregates.Scores],
    fixed: Sequence[bool],
    families: str,
    when: str = "",
) -> Drawing:
    """Draw the performance profile of each method over all families, with bands."""
    every = [family for scores in methods for family in scores]
    levels, note = profile_levels(every, LEVELS, also=0.0)
    shares = aggregates.estimate(lambda drawn: aggregates.profiles(drawn, levels), methods, fixed)
    drawing = draw_profiles(names, levels, shares[0], SCALE, when, shares[1:], note, styles)
    title_above(drawing.figure, families)
    return replace(drawing, caption=f"{drawing.caption} {BOOTSTRAP}")


def draw_improvements(names: Sequence[str], chances: np.ndarray, families: str) -> Drawing:
    """Draw the probability (3, M, M) that the method of a row is better than that of a column."""
    size = len(names)
    texts = list(method_texts(names).values())
    label = LETTER * max(map(len, texts))  # the lower ones are at 45 degrees
    inches = (1.9 + label + 0.55 * size, 1.3 + 0.7 * label + 0.45 * size)
    figure = Figure(figsize=inches, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(chances[0], vmin=0, vmax=1, cmap="PuOr", aspect="auto")
    rows = []
    for (row, column), value in np.ndenumerate(chances[0]):
        if row == column:
            continue
        colour = "#000000" if abs(value - 0.5) < 0.3 else "#ffffff"
        text = f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
        rows.append((names[row], names[column], *chances[:, row, column]))
    axes.set_xticks(range(size), texts, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), texts)
    axes.set_xlabel("... than this method")
    axes.set_ylabel("this method is better ...")
    figure.colorbar(image, ax=axes, label="probability of improvement")
    title_above(figure, families)
    caption = (
        f"The probability that a run of the method of a row is better than one of the method of a "
        f"column on a random task of {families}. The CSV has bootstrap intervals."
    )
    return Drawing(figure, caption, ("better", "than", "probability", "low", "high"), rows)
