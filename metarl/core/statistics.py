"""Statistics over seeds and tasks (Agarwal et al. 2021, "Deep RL at the edge of the statistical
precipice").

Scores are (S, B): one row for each of S training runs (seeds), one column for each of B tasks. A
score is the mean return over the episodes of one run on one task. All scores of a run depend on its
seed, and all scores of a task on its difficulty, so scores are modelled as mean + run + task +
residual, with independent runs and tasks. Methods are compared on the same tasks.

Few runs are the rule. The bootstrap over two or three runs gives intervals that are much too
narrow; those here are t intervals on the variance components, whose coverage is simulated in
`tests/core/test_coverage.py`: of normally distributed scores, from two runs and five tasks on,
intervals of 95 % cover 93 to 98.5 % for a mean, and 94 to 99.5 % for a difference between methods.
They cover less where scores have a long tail, such as 10 % of the runs that fail, or where success
is rare or certain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

CONFIDENCE = 0.95
"""Coverage probability of all intervals."""
RUN_WEIGHT_POWER = 1.15
"""Exponent of the share of the runs in the weights of `half_width`. By simulation, the coverage of
95 % intervals over two runs and 10 to 200 tasks then stays between 93 and 97.5 %, whatever the
share of the runs in the variance; with 1, as in Cochran and Cox, between 94 and 98 %."""

Interval: TypeAlias = tuple[np.ndarray, np.ndarray]
"""The lower and the upper bounds, each of the same shape; NaN where there is no interval."""


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Return the means of the middle half of the values on the last axis, (...), of (..., n); NaN
    where one is NaN.

    Of n values n // 4 are left out at each end. This is `scipy.stats.trim_mean`, to the bit, in a
    tenth of its time, which a bootstrap needs.
    """
    count = values.shape[-1]
    cut = count // 4
    middle = np.partition(values, (cut, count - cut - 1), axis=-1)[..., cut : count - cut]
    return np.where(np.isnan(values).any(axis=-1), np.nan, middle.mean(axis=-1))


def mean_interval(scores: np.ndarray, *, fixed_tasks: bool = False) -> Interval:
    """Return the 95 % interval of the mean score of a method.

    Args:
        scores: (..., S, B).
        fixed_tasks: whether the tasks are all tasks of the distribution. Then only runs vary.

    Returns:
        Lower and upper bounds, (...): over runs and tasks. For one run the interval is over tasks,
        of this run; for one task, over runs. NaN where nothing varies that could be measured: for
        one run on one task, and for one run with fixed tasks.
    """
    mean = scores.mean(axis=(-2, -1))
    half = half_width([components(scores)], scores.mean(axis=-2), fixed_tasks)
    return mean - half, mean + half


def difference_interval(
    one: np.ndarray, other: np.ndarray, *, fixed_tasks: bool = False
) -> Interval:
    """Return the 95 % interval of the mean score of a method minus that of another on the same
    tasks.

    Args:
        one: scores of the first method, (..., S, B).
        other: scores of the second method on the same B tasks, (..., S', B).
        fixed_tasks: as in `mean_interval`.

    Returns:
        Lower and upper bounds, (...); of a method with one run, this run counts as the method.

    Raises:
        ValueError: if the methods have different numbers of tasks.
    """
    check_same_tasks(one, other)
    differences = one.mean(axis=-2) - other.mean(axis=-2)  # (..., B)
    parts = [components(one), components(other)]
    half = half_width(parts, differences, fixed_tasks)
    mean = differences.mean(axis=-1)
    return mean - half, mean + half


def repeats_interval(values: np.ndarray, groups: np.ndarray) -> Interval:
    """Return the 95 % interval of the mean over fixed tasks of one run, each played several times.

    Only the repetitions vary: this is Welch's t interval, with Satterthwaite's degrees of freedom.

    Args:
        values: (..., n), one for each repetition.
        groups: the task of each repetition, (n,) integers 0, ..., D - 1.

    Returns:
        Lower and upper bounds, (...); NaN if a task was played once only.
    """
    parts = [values[..., groups == task] for task in range(groups.max() + 1)]
    mean = np.mean([part.mean(axis=-1) for part in parts], axis=0)
    counts = np.array([part.shape[-1] for part in parts])
    if counts.min() < 2:
        return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    # Variances of the means, (..., D)
    variances = np.stack([part.var(axis=-1, ddof=1) for part in parts], axis=-1) / counts
    total = variances.sum(axis=-1)
    degrees = divide(total**2, (variances**2 / (counts - 1)).sum(axis=-1))
    width = t_quantile(np.where(total > 0, degrees, 1.0))
    half = np.sqrt(total) / len(parts) * width
    return mean - half, mean + half


@dataclass(frozen=True)
class Components:
    """The variance that the S runs of a method contribute, from scores (..., S, B).

    Attributes:
        runs: variance of the mean score because of the runs and of their residuals, (...); 0 for
            one run.
        residual: variance of the mean of a task's scores because of residuals, (...); 0 where it
            is unknown, with one run or one task.
        degrees: degrees of freedom of `runs`, S - 1.
    """

    runs: np.ndarray
    residual: np.ndarray
    degrees: int


def components(scores: np.ndarray) -> Components:
    """Return the variance components of scores, (..., S, B)."""
    num_runs, num_tasks = scores.shape[-2:]
    by_run = scores.mean(axis=-1)  # (..., S)
    runs = by_run.var(axis=-1, ddof=1) / num_runs if num_runs > 1 else np.zeros(by_run.shape[:-1])
    residual = np.zeros_like(runs)
    if num_runs > 1 and num_tasks > 1:
        by_task = scores.mean(axis=-2, keepdims=True)
        mean = scores.mean(axis=(-2, -1), keepdims=True)
        rest = scores - by_run[..., None] - by_task + mean
        degrees = (num_runs - 1) * (num_tasks - 1)
        residual = (rest**2).sum(axis=(-2, -1)) / degrees / num_runs
    return Components(runs, residual, num_runs - 1)


def half_width(parts: list[Components], by_task: np.ndarray, fixed_tasks: bool) -> np.ndarray:
    """Return the half width of the interval of a mean, (...); NaN if there is none.

    The variance of the mean has a part of the runs and one of the tasks, each with its own degrees
    of freedom. Their t quantiles are averaged with the shares of the parts as weights, as in
    Cochran and Cox 1950 ("Experimental designs") for means of unequal variances.

    Args:
        parts: the components of each method in the mean.
        by_task: mean over the runs on each task, or a difference of such means, (..., B).
        fixed_tasks: as in `mean_interval`.
    """
    num_tasks = by_task.shape[-1]
    runs = np.sum([part.runs for part in parts], axis=0)
    known = [part for part in parts if part.degrees]
    tasks_vary = num_tasks > 1 and not fixed_tasks
    if not (known or tasks_vary):
        return np.full_like(runs, np.nan)
    run_quantile = np.zeros_like(runs)
    for part in known:
        run_quantile += divide(part.runs, runs) * t_quantile(part.degrees)
    if not tasks_vary:
        return np.sqrt(runs) * run_quantile
    residual = np.sum([part.residual for part in parts], axis=0)
    tasks = np.maximum(by_task.var(axis=-1, ddof=1) - residual, 0) / num_tasks
    weight = divide(runs, runs + tasks) ** RUN_WEIGHT_POWER
    quantile = weight * run_quantile + (1 - weight) * t_quantile(num_tasks - 1)
    return np.sqrt(runs + tasks) * quantile


def t_quantile(degrees: int | np.ndarray) -> np.ndarray:
    """Return the quantile of Student's t distribution for a two-sided 95 % interval."""
    from scipy.special import stdtrit  # slow to import, and training needs no intervals

    return np.asarray(stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotients; 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def probability_of_improvement(one: np.ndarray, other: np.ndarray) -> float:
    """Return the probability that a run of one method outperforms a run of another method on a
    random task (the average probability of improvement of Agarwal et al. 2021).

    Args:
        one: scores of the first method, (S, B).
        other: scores of the second method on the same B tasks, (S', B).

    Returns:
        Fraction of the pairs of runs, averaged over tasks; a tie counts 1/2 (the U statistic of
        Mann and Whitney 1947).

    Raises:
        ValueError: if the methods have different numbers of tasks.
    """
    check_same_tasks(one, other)
    difference = one[:, None, :] - other[None, :, :]  # (S, S', B)
    return float((0.5 + 0.5 * np.sign(difference)).mean())


def performance_profile(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the fraction of the scores (S, B) above each level (n,), (n,)."""
    return (scores.ravel() > levels[:, None]).mean(axis=-1)


def check_same_tasks(one: np.ndarray, other: np.ndarray) -> None:
    """Check that scores, (..., S, B) each, have the same number of tasks.

    Raises:
        ValueError: if they do not.
    """
    counts = one.shape[-1], other.shape[-1]
    if counts[0] != counts[1]:
        raise ValueError(f"expected scores on the same tasks, got {counts[0]} and {counts[1]}")
