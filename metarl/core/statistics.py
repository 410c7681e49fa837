"""Statistics over seeds and tasks (Agarwal et al. 2021, "Deep RL at the edge of the statistical
precipice").

Scores are (S, B): one row for each of S training runs (seeds), one column for each of B tasks. A
score is the mean return over the episodes of one run on one task. Intervals are percentile
bootstrap intervals: whole rows and whole columns are resampled with replacement, since all scores
of a run depend on its seed, and all scores of a task on its difficulty. Methods are compared on the
same tasks, and a resample has the same tasks for all methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

RESAMPLES = 9999  # bootstrap resamples of an interval
BLOCK = 1000  # resamples that are drawn at once, which bounds the memory
CONFIDENCE = 0.95


def mean(values: np.ndarray) -> np.ndarray:
    """Return the means over the last axis, (...), of values (..., n)."""
    return values.mean(axis=-1)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Return the means of the middle half of the values on the last axis, (...), of (..., n)."""
    return np.asarray(stats.trim_mean(values, 0.25, axis=-1))


def interval(
    scores: np.ndarray,
    rng: np.random.Generator,
    statistic: Callable[[np.ndarray], np.ndarray] = mean,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return the bootstrap interval (low, high) of a statistic of scores.

    Args:
        scores: (S, B), or (B,) for one run. With one run only tasks are resampled, with one task
            only runs.
        rng: draws the resamples.
        statistic: function of values (..., n) that returns (...).
        confidence: coverage probability of the interval.
    """
    found = [statistic(pooled(drawn)) for (drawn,) in resamples(rng, np.atleast_2d(scores))]
    return bounds(np.concatenate(found), confidence)


def mean_interval(
    values: np.ndarray, rng: np.random.Generator, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the bootstrap interval (low, high) of the mean of independent values, (n,).

    The interval of a single value, or of equal values, has width 0.
    """
    return interval(values, rng, mean, confidence)


def probability_of_improvement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the probability that a run of one method outperforms a run of another method on a
    random task (the average probability of improvement of Agarwal et al. 2021).

    Args:
        one: scores of the first method, (..., S, B).
        other: scores of the second method on the same B tasks, (..., S', B).

    Returns:
        (...): fraction of the pairs of runs, averaged over tasks; a tie counts 1/2 (the U statistic
        of Mann and Whitney 1947).
    """
    # (..., S, 1, B) against (..., 1, S', B)
    difference = one[..., :, None, :] - other[..., None, :, :]
    return (0.5 + 0.5 * np.sign(difference)).mean(axis=(-3, -2, -1))


def improvement_interval(
    one: np.ndarray, other: np.ndarray, rng: np.random.Generator, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the bootstrap interval (low, high) of the probability of improvement.

    Args:
        one: scores of the first method, (S, B).
        other: scores of the second method on the same B tasks, (S', B).
        rng: draws the resamples.
        confidence: coverage probability of the interval.

    Raises:
        ValueError: if the methods have different numbers of tasks.
    """
    found = [probability_of_improvement(x, y) for x, y in resamples(rng, one, other)]
    return bounds(np.concatenate(found), confidence)


def performance_profile(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the fraction of the scores (..., S, B) above each level (n,), (..., n)."""
    return (pooled(scores)[..., None, :] > levels[:, None]).mean(axis=-1)


def resamples(rng: np.random.Generator, *scores: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Resample scores with replacement: runs for each method, tasks jointly for all methods.

    Args:
        rng: draws the resamples.
        scores: scores of each method, (S, B), with the same B.

    Yields:
        Blocks of R resamples, one array (R, S, B) for each method.

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


def pooled(scores: np.ndarray) -> np.ndarray:
    """Return scores (..., S, B) with runs and tasks on one axis, (..., S * B)."""
    return scores.reshape(*scores.shape[:-2], -1)


def bounds(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the interval (low, high) of the middle `confidence` of the values, (n,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
