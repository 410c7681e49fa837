"""Statistics over seeds and tasks (Agarwal et al. 2021, "Deep RL at the edge of the statistical
precipice").

Scores are (S, B): a row per training run (seed), a column per task, each the mean return over the
episodes of one run on one task. Intervals are percentile-bootstrap intervals that draw runs and
tasks anew, each with all it holds: the scores of one run share its luck on all tasks, and those of
one task its difficulty. Methods are compared on the same tasks, which are then drawn together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

RESAMPLES = 9999
BLOCK = 1000  # resamples at a time, which bounds the memory
CONFIDENCE = 0.95


def mean(values: np.ndarray) -> np.ndarray:
    """Return the means of values, (..., n)."""
    return values.mean(axis=-1)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Return the means of the middle half of values, (..., n)."""
    return np.asarray(stats.trim_mean(values, 0.25, axis=-1))


def interval(
    scores: np.ndarray,
    rng: np.random.Generator,
    statistic: Callable[[np.ndarray], np.ndarray] = mean,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return the bootstrap interval of a statistic of scores, (S, B) or, of one run, (B,).

    Args:
        scores: with one run, or one task, only the other is drawn anew.
        rng: draws the resamples.
        statistic: of values (..., n), over the last axis.
        confidence: the probability that the interval is made for.
    """
    found = [statistic(flat(drawn)) for (drawn,) in resamples(rng, np.atleast_2d(scores))]
    return bounds(np.concatenate(found), confidence)


def mean_interval(
    values: np.ndarray, rng: np.random.Generator, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of independent values, (n,).

    A single value, or values that do not vary, give the interval of no width.
    """
    return interval(values, rng, mean, confidence)


def probability_of_improvement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how likely a run of one method is to beat one of another on a task drawn at random.

    Args:
        one, other: scores (..., S, B) and (..., S', B) on the same B tasks.

    Returns:
        (...,): over all pairs of runs on each task, with ties counted half (Mann and Whitney's U).
    """
    # (..., S, 1, B) against (..., 1, S', B)
    difference = one[..., :, None, :] - other[..., None, :, :]
    return (0.5 + 0.5 * np.sign(difference)).mean(axis=(-3, -2, -1))


def improvement_interval(
    one: np.ndarray, other: np.ndarray, rng: np.random.Generator, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the interval of the probability of improvement, scores (S, B) and (S', B)."""
    found = [probability_of_improvement(x, y) for x, y in resamples(rng, one, other)]
    return bounds(np.concatenate(found), confidence)


def performance_profile(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the share of the scores, (..., S, B), that are above each level, (n,): (..., n)."""
    return (flat(scores)[..., None, :] > levels[:, None]).mean(axis=-1)


def resamples(rng: np.random.Generator, *scores: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Draw runs of each method, and tasks for all of them together, with replacement.

    Args:
        rng: draws them.
        scores: of each method, (S, B), with the same B.

    Yields:
        Blocks of resamples, (R, S, B) for each method.

    Raises:
        ValueError: if the methods have different numbers of tasks.
    """
    counts = {each.shape[1] for each in scores}
    if len(counts) != 1:
        raise ValueError(f"expected scores on the same tasks, got {sorted(counts)} tasks")
    (num_tasks,) = counts
    for start in range(0, RESAMPLES, BLOCK):
        size = min(BLOCK, RESAMPLES - start)
        tasks = rng.integers(num_tasks, size=(size, 1, num_tasks))
        yield [each[rng.integers(len(each), size=(size, len(each), 1)), tasks] for each in scores]


def flat(scores: np.ndarray) -> np.ndarray:
    """Return scores, (..., S, B), with runs and tasks on one axis."""
    return scores.reshape(*scores.shape[:-2], -1)


def bounds(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the quantiles between which the middle `confidence` of the values, (n,), lies."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
