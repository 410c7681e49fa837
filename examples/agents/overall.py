"""Families together: the normalised return of each kind of agent by episodes of experience."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from examples.agents.measure import EXPERIENCE
from examples.agents.scores import common, evaluation, having
from metarl.core import aggregates
from metarl.core.errors import UserError
from metarl.evaluation.compare import RANDOM
from metarl.reporting.aggregates import normalised
from metarl.reporting.figures import CURVE_COLUMNS, draw_curve
from metarl.reporting.names import ENDINGS, method_texts
from metarl.reporting.style import (
    Drawing,
    drawing_style,
    legend_below,
    method_style,
    save_drawing,
    style_axes,
)
from metarl.runs.result import Evaluation

ORACLE = "oracle"
COMPARED = ("maml_trpo", "rl2", "varibad", "pearl", "cavia")
"""The methods, without the endings of their settings, that a family must have beside an oracle and
the untrained agent to count."""


@dataclass(frozen=True)
class Overall:
    """The interquartile mean (IQM) of normalised returns over families.

    Attributes:
        scales: which returns are 0 and 1, a line for each family.
        x: the numbers of episodes of experience.
        iqm: by method, the value and the bounds of its interval at each x, (3, P).
        seeds: by method, the smallest number of seeds of a family.
    """

    scales: Sequence[str]
    x: Sequence[int]
    iqm: Mapping[str, np.ndarray]
    seeds: Mapping[str, int]


def overall(stored: Mapping[str, Any]) -> Overall:
    """Return the IQM of each of `COMPARED` over the families that have all of them, by episodes of
    experience.

    On a family 0 is the mean return of the untrained agent, and 1 that of the oracle. Intervals are
    those of `metarl.core.aggregates.estimate`.

    Raises:
        UserError: if no family has all methods.
    """
    families = {family: by_kind(family, methods) for family, methods in stored.items()}
    families = {
        name: kinds for name, kinds in families.items() if {*COMPARED, ORACLE} <= kinds.keys()
    }
    if not families:
        raise UserError(f"no family has all of {', '.join((*COMPARED, ORACLE, RANDOM))}")
    every = [seeds[0].x for kinds in families.values() for seeds in kinds.values()]
    x = min((each for each in every if len(each) > 1), key=len)
    fixed = [next(iter(kinds.values()))[0].has_all_tasks for kinds in families.values()]
    values, scales = [], []
    for place in range(len(x)):
        found = [
            normalised(family.partition(",")[0], until(place, kinds))
            for family, kinds in families.items()
        ]
        scales = [each.scale for each in found]
        methods = [[each.scores[kind] for each in found] for kind in COMPARED]
        values.append(aggregates.estimate(iqms, methods, fixed))
    by_method = np.stack(values, axis=-1)  # (3, M, P)
    return Overall(
        scales,
        x,
        {kind: by_method[:, number] for number, kind in enumerate(COMPARED)},
        {kind: min(len(kinds[kind]) for kinds in families.values()) for kind in COMPARED},
    )


def by_kind(family: str, methods: Mapping[str, Any]) -> dict[str, list[Evaluation]]:
    """Return the results by experience of the methods of a family, seed by seed, by kind.

    Raises:
        UserError: if two methods are of one of `COMPARED`; names them.
    """
    found: dict[str, list[Evaluation]] = {}
    named: dict[str, str] = {}
    for name, seeds in having(EXPERIENCE, methods).items():
        kind = kind_of(name)
        if kind not in (*COMPARED, ORACLE, RANDOM):
            continue
        if kind in found:
            raise UserError(f"{family}: expected one {kind}, got {named[kind]} and {name}")
        named[kind] = name
        parts = common([seed[EXPERIENCE] for seed in seeds.values()])
        found[kind] = [evaluation(family, each) for each in parts]
    return found if RANDOM in found else {}


def kind_of(method: str) -> str:
    """Return the name of a method without the endings of its settings."""
    for ending in ENDINGS:
        method = method.removesuffix(ending)
    return method


def until(place: int, kinds: Mapping[str, Sequence[Evaluation]]) -> dict[str, list[Evaluation]]:
    """Return results up to the x of a place."""
    end = place + 1
    return {
        kind: [replace(each, x=each.x[:end], returns=each.returns[:, :end]) for each in seeds]
        for kind, seeds in kinds.items()
    }


def iqms(methods: Sequence[aggregates.Scores]) -> np.ndarray:
    """Return the IQM of each of M methods, (M,)."""
    return np.array([aggregates.iqm(scores) for scores in methods])


def overall_table(found: Overall) -> Iterator[str]:
    """Yield the lines of a table of `Overall`, in Markdown, the best last value first."""
    yield f"| method | seeds | {' | '.join(map(str, found.x))} |"
    yield "|---" * (len(found.x) + 2) + "|"
    for kind in sorted(found.iqm, key=lambda kind: -found.iqm[kind][0, -1]):
        cells = [
            f"{value:z.2f} ({low:z.2f} to {high:z.2f})" for value, low, high in found.iqm[kind].T
        ]
        yield f"| {kind} | {found.seeds[kind]} | {' | '.join(cells)} |"


@drawing_style()
def draw_overall(found: Overall, path: Path) -> list[Path]:
    """Draw the IQM of each method by episodes of experience, and return the files."""
    figure = Figure(figsize=(6.5, 3.5), layout="constrained")
    axes = figure.subplots()
    texts, rows = method_texts(found.iqm), []
    for number, (kind, values) in enumerate(found.iqm.items()):
        draw_curve(axes, values[0], values[1:].T, texts[kind], method_style(number))
        for x, *each in zip(found.x, *values, strict=True):
            rows.append((kind, found.seeds[kind], x, *map(float, each)))
    axes.set_xticks(range(len(found.x)), list(map(str, found.x)))
    axes.set_xlabel("episodes of experience")
    axes.set_ylabel("IQM of normalised returns")
    style_axes(axes)
    legend_below(figure, [axes])
    caption = (
        f"The interquartile mean of normalised returns. {'; '.join(found.scales)}. Bands are 95% "
        "intervals of a bootstrap over seeds and tasks, which with few seeds are too narrow."
    )
    return save_drawing(Drawing(figure, caption, CURVE_COLUMNS, rows), path)
