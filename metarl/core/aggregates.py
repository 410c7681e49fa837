"""Aggregates over task families (Agarwal et al. 2021, "Deep RL at the edge of the statistical
precipice", as in the package rliable).

The scores of a method are a list of arrays, one for each of F families: (S, B), a row for each of S
training runs (seeds), a column for each of B tasks. Scores of different families are comparable
after `normalise`: 0 is the score of an agent that has learned nothing, 1 that of a reference.

Every task counts as one task of the benchmark, so families with equally many tasks have equal
weights, however many seeds a method has in each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from metarl.core.rng import Purpose, make_rng
from metarl.core.statistics import (
    CONFIDENCE,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)

RESAMPLES = 2000
"""Number of bootstrap samples of an interval."""

Scores = Sequence[np.ndarray]
"""The scores of a method by family, (S, B) each."""


def normalise(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return scores of any shape on the scale on which `low` is 0 and `high` is 1.

    Raises:
        ValueError: if `high` is not above `low`.
    """
    if not high > low:
        raise ValueError(f"expected a reference above {low:g}, got {high:g}")
    return (scores - low) / (high - low)


def over_tasks(scores: Scores, statistic: Callable[[np.ndarray], np.ndarray | float]) -> np.ndarray:
    """Return the mean over the tasks of all families of a statistic of the scores (S, B) of a
    family, which is a mean over seeds and tasks."""
    counts = np.array([each.shape[1] for each in scores])
    return counts @ np.array([statistic(each) for each in scores]) / counts.sum()


def iqm(scores: Scores) -> float:
    """Return the mean of the middle half of all scores.

    Where families have different numbers of seeds, a score weighs the less the more seeds its
    family has, and the scores at the quartiles count in part.
    """
    values = np.concatenate([each.ravel() for each in scores])
    if len({len(each) for each in scores}) == 1:
        return float(interquartile_mean(values))
    weights = np.concatenate([np.full(each.size, 1 / len(each)) for each in scores])
    order = np.argsort(values)
    shares = weights[order] / weights.sum()
    ends = np.cumsum(shares)
    kept = np.clip(ends, 0.25, 0.75) - np.clip(ends - shares, 0.25, 0.75)
    return float(np.average(values[order], weights=kept))


def mean(scores: Scores) -> float:
    """Return the mean of all scores."""
    return float(over_tasks(scores, np.mean))


def optimality_gap(scores: Scores) -> float:
    """Return the mean of what the scores lack of 1; those above 1 lack nothing."""
    return float(over_tasks(scores, lambda each: np.maximum(1 - each, 0).mean()))


STATISTICS: Mapping[str, Callable[[Scores], float]] = {
    "IQM": iqm,
    "mean": mean,
    "optimality gap": optimality_gap,
}


def resample(
    methods: Sequence[Scores], fixed_tasks: Sequence[bool], rng: np.random.Generator
) -> list[Scores]:
    """Draw a bootstrap sample, stratified by family: within each, the seeds of each method, and
    tasks, the same ones for all methods, with replacement.

    All scores of a seed in a family are of one training run, so a seed is drawn with all its tasks.

    Args:
        methods: the scores of each method, by family; in a family, all on the same tasks.
        fixed_tasks: of each family, whether the tasks are all tasks of the distribution: then only
            seeds are drawn.
        rng: the generator.
    """
    drawn: list[list[np.ndarray]] = [[] for _ in methods]
    for family, fixed in enumerate(fixed_tasks):
        num_tasks = methods[0][family].shape[1]
        tasks = np.arange(num_tasks) if fixed else rng.integers(num_tasks, size=num_tasks)
        for sample, scores in zip(drawn, methods, strict=True):
            num_runs = len(scores[family])
            runs = rng.integers(num_runs, size=num_runs)
            sample.append(scores[family][np.ix_(runs, tasks)])
    return [*drawn]


def varies(scores: Scores, fixed_tasks: Sequence[bool]) -> bool:
    """Return whether samples of a method can differ: whether in a family it has several seeds, or
    several tasks that are drawn."""
    return any(
        len(each) > 1 or (each.shape[1] > 1 and not fixed)
        for each, fixed in zip(scores, fixed_tasks, strict=True)
    )


def estimate(
    statistic: Callable[[Sequence[Scores]], np.ndarray],
    methods: Sequence[Scores],
    fixed_tasks: Sequence[bool],
    resamples: int = RESAMPLES,
    *,
    of_pairs: bool = False,
) -> np.ndarray:
    """Return a statistic of methods, with its percentile bootstrap interval.

    With two or three seeds such an interval is too narrow (`metarl.core.statistics`); a method with
    one seed has none over seeds, only over tasks.

    Args:
        statistic: a function of the scores of all M methods, by family, which returns an array,
            (M, ...), whose first axis is the method.
        methods, fixed_tasks: as in `resample`.
        resamples: number of bootstrap samples.
        of_pairs: whether the statistic is one of two methods, (M, M, ...).

    Returns:
        The value, and the lower and upper bounds of the 95% interval, (3, M, ...). The bounds are
        NaN where nothing is drawn: for a method with one seed, on all tasks or on one, and for a
        pair of such methods.
    """
    rng = make_rng(0, Purpose.BOOTSTRAP)
    samples = [statistic(resample(methods, fixed_tasks, rng)) for _ in range(resamples)]
    tail = (1 - CONFIDENCE) / 2
    bounds = np.quantile(samples, [tail, 1 - tail], axis=0)
    constant = np.array([not varies(scores, fixed_tasks) for scores in methods])
    bounds[:, np.outer(constant, constant) if of_pairs else constant] = np.nan
    return np.stack([statistic(methods), *bounds])


def summaries(methods: Sequence[Scores]) -> np.ndarray:
    """Return the `STATISTICS` of methods, (M, 3)."""
    return np.array([[each(scores) for each in STATISTICS.values()] for scores in methods])


def improvements(methods: Sequence[Scores]) -> np.ndarray:
    """Return the average probability of improvement of each method over each, (M, M): the mean over
    the tasks of all families."""
    counts = [scores.shape[1] for scores in methods[0]]
    found = np.full((len(methods), len(methods)), 0.5)
    for one, other in combinations(range(len(methods)), 2):
        pairs = zip(methods[one], methods[other], strict=True)
        parts = [probability_of_improvement(*pair) for pair in pairs]
        found[one, other] = np.average(parts, weights=counts)
        found[other, one] = 1 - found[one, other]
    return found


def profiles(methods: Sequence[Scores], levels: np.ndarray) -> np.ndarray:
    """Return the fraction of the scores of each method above each level (n,), (M, n)."""
    return np.array(
        [over_tasks(scores, lambda each: performance_profile(each, levels)) for scores in methods]
    )
