"""Tables of the results of agents, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from examples.agents.measure import EXPERIENCE, NOMINAL, SHOCKS
from examples.agents.scores import (
    SEQUENCE_TITLES,
    WORST,
    common,
    evaluation,
    having,
    sequence_scores,
    worst_scores,
)
from metarl.core.statistics import mean_interval
from metarl.reporting.pooling import pooled_interval
from metarl.runs.result import Evaluation


def tables(stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of all tables, in Markdown."""
    for family, methods in stored.items():
        played = having(EXPERIENCE, methods)
        if played:
            yield from (f"**{family}**", "", *experience_table(family, played), "")
    for family, methods in stored.items():
        shaken = having(NOMINAL, methods)
        if shaken:
            yield from (f"**{family}**", "", *disturbance_table(family, shaken), "")


def any_of(seeds: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the results of the first seed."""
    return next(iter(seeds.values()))


def experience_table(family: str, methods: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of returns by episodes of experience, the best last return
    first."""
    parts = {
        name: [
            evaluation(family, part)
            for part in common([seed[EXPERIENCE] for seed in seeds.values()])
        ]
        for name, seeds in methods.items()
    }
    x = max((seeds[0].x for seeds in parts.values()), key=len)
    yield f"| method | seeds | env steps | minutes | {' | '.join(map(str, x))} |"
    yield "|---" * (len(x) + 4) + "|"

    for name in sorted(parts, key=lambda name: -mean(parts[name])[-1]):
        runs = methods[name].values()
        costs = ["", ""]
        if "env_steps" in any_of(methods[name]):  # which the untrained agent does not have
            steps, minutes = (
                np.mean([run[key] for run in runs]) for key in ("env_steps", "core_minutes")
            )
            costs = [f"{steps / 1e6:.2g}M", f"{minutes:.0f}"]
        means = mean(parts[name])
        cells = [number(each) for each in means[:-1]]
        cells += [with_interval(means[-1], *pooled_interval(parts[name])[-1])]
        cells += [""] * (len(x) - len(means))
        yield f"| {name} | {len(runs)} | {' | '.join((*costs, *cells))} |"


def disturbance_table(family: str, methods: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of returns under disturbances, and of forgetting."""
    shocks = [part for part in SHOCKS if any(part in any_of(seeds) for seeds in methods.values())]
    titles = [SHOCKS[part] for part in shocks]
    titles.insert(1, WORST)
    titles += SEQUENCE_TITLES
    yield f"| method | seeds | {' | '.join(titles)} |"
    yield "|---" * (len(titles) + 2) + "|"
    for name, seeds in methods.items():
        cells = []
        for part in shocks:
            runs = [evaluation(family, seed[part]) for seed in seeds.values() if part in seed]
            cells.append(with_interval(mean(runs)[-1], *pooled_interval(runs)[-1]) if runs else "")
            if part == NOMINAL:
                cells.append(mean_cell(worst_scores(runs)))
        scores = sequence_scores(family, seeds)
        for title in SEQUENCE_TITLES:
            found = scores.get(title)
            cells.append("" if found is None else mean_cell(found))
        yield f"| {name} | {len(seeds)} | {' | '.join(cells)} |"


def mean(runs: Sequence[Evaluation]) -> np.ndarray:
    """Return the mean return over the tasks of all runs at each x, (P,)."""
    return np.mean([run.mean for run in runs], axis=0)


def mean_cell(scores: np.ndarray) -> str:
    """Return the mean of scores, (S, B), with its interval, as text."""
    return with_interval(scores.mean(), *map(float, mean_interval(scores)))


def with_interval(value: float, low: float, high: float) -> str:
    """Return a return and its interval as text; without the interval where it is NaN."""
    interval = f" ({number(low)} to {number(high)})" if np.isfinite(low) else ""
    return number(value) + interval


def number(value: float) -> str:
    """Return a return with one decimal, or none where it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:z.1f}"
