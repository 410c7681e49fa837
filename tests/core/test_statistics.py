"""Statistics against hand-worked and analytic cases; their coverage is in test_coverage.py."""

import numpy as np
import pytest
from scipy import stats

from metarl.core.statistics import (
    difference_interval,
    interquartile_mean,
    mean_interval,
    performance_profile,
    probability_of_improvement,
    repeats_interval,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """The textbook's interval of a mean."""
    return stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))


def test_interquartile_mean_is_that_of_the_middle_half():
    values = np.array([-100.0, 1, 2, 3, 4, 5, 6, 1000])
    assert interquartile_mean(values) == 3.5
    assert interquartile_mean(np.stack([values, 2 * values])).tolist() == [3.5, 7.0]
    assert np.isnan(
        interquartile_mean(np.array([[1.0, np.nan, 2.0], [1.0, 2.0, 3.0]]))
    ).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 40, 333])
def test_the_interquartile_mean_is_scipys_to_the_bit(count):
    values = np.random.default_rng(count).normal(scale=1e3, size=(2, count, 3)).swapaxes(1, 2)
    expected = stats.trim_mean(values, 0.25, axis=-1)
    assert interquartile_mean(values).tolist() == np.asarray(expected).tolist()


@pytest.mark.parametrize("shape", [(1, 20), (5, 1)], ids=["one run", "one task"])
def test_the_interval_is_students_where_one_kind_varies(shape):
    values = normal(*shape)
    assert mean_interval(values) == pytest.approx(t_interval(values.ravel()))


def test_the_interval_of_runs_that_agree_is_that_of_the_tasks():
    tasks = normal(30)
    assert mean_interval(np.tile(tasks, (3, 1))) == pytest.approx(t_interval(tasks))


def test_the_interval_of_tasks_that_agree_is_that_of_the_runs():
    runs = normal(3)
    scores = np.repeat(runs[:, None], 30, axis=1)
    assert mean_interval(scores) == pytest.approx(t_interval(runs))


def test_fixed_tasks_do_not_vary():
    """Only the means of the runs do, however different the tasks are."""
    scores = normal(4, 2) + np.array([100.0, -100.0])
    expected = t_interval(scores.mean(axis=1))
    assert mean_interval(scores, fixed_tasks=True) == pytest.approx(expected)
    assert np.ptp(mean_interval(scores)) > 1000


def test_runs_and_tasks_both_count():
    """With many of each, quantiles are the normal distribution's, and variances add."""
    runs, tasks = normal(300, seed=1), normal(300, seed=2)
    low, high = mean_interval(runs[:, None] + tasks)
    assert high - low == pytest.approx(
        2 * 1.96 * np.sqrt((runs.var() + tasks.var()) / 300), rel=0.01
    )


def test_a_crossed_interval_by_hand():
    """Two runs, two tasks: scores 1, 3 and 5, 11. The means of the runs are 2 and 8, with a
    variance of the mean of 18 / 2 = 9; the residuals are +-1, with a mean square of 4. The means of
    the tasks are 3 and 7, with a variance of 8, less 4 / 2: 6, of the mean 3. All quantiles are t
    with one degree of freedom, 12.7062."""
    low, high = mean_interval(np.array([[1.0, 3.0], [5.0, 11.0]]))
    assert (low + high) / 2 == pytest.approx(5.0)
    assert (high - low) / 2 == pytest.approx(np.sqrt(9 + 3) * 12.7062, rel=1e-5)


def test_what_cannot_be_measured_has_no_interval():
    assert np.isnan(mean_interval(np.array([[2.0]]))).all()
    assert np.isnan(mean_interval(normal(1, 2), fixed_tasks=True)).all()
    assert np.isnan(repeats_interval(normal(3), np.array([0, 0, 1]))).all()


def test_values_that_do_not_vary_have_an_interval_of_no_width():
    assert mean_interval(np.full((3, 5), 2.0)) == (2.0, 2.0)
    assert repeats_interval(np.full(4, 2.0), np.array([0, 0, 1, 1])) == (2.0, 2.0)


def test_many_intervals_at_once_are_each_ones():
    scores = normal(4, 3, 10)
    together = np.transpose(mean_interval(scores))
    assert together == pytest.approx(np.array([mean_interval(each) for each in scores]))


def test_repetitions_of_two_tasks_are_welchs():
    """The mean of two tasks has half the width of the interval of their difference."""
    one, other = normal(5), 3 * normal(8, seed=1)
    values, groups = np.concatenate([one, other]), np.repeat([0, 1], [5, 8])
    low, high = repeats_interval(values, groups)
    assert (low + high) / 2 == pytest.approx((one.mean() + other.mean()) / 2)
    welch = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert high - low == pytest.approx((welch.high - welch.low) / 2)


def test_tasks_cancel_in_a_difference():
    """They differ by far more than the methods do."""
    tasks = 100 * normal(20)
    one, other = np.tile(tasks, (2, 1)) + 1.0, np.tile(tasks, (3, 1))
    assert difference_interval(one, other) == pytest.approx((1.0, 1.0))
    assert np.ptp(mean_interval(one)) > 50


def test_the_difference_of_two_methods_with_one_task_is_cochran_and_coxs():
    """The quantiles of both methods, weighted by the variances of their means."""
    one, other = normal(3, 1), 2 * normal(5, 1, seed=1)
    variances = np.array([one.var(ddof=1) / 3, other.var(ddof=1) / 5])
    quantile = variances @ stats.t.ppf(0.975, [2, 4]) / variances.sum()
    low, high = difference_interval(one, other)
    assert (low + high) / 2 == pytest.approx(one.mean() - other.mean())
    assert (high - low) / 2 == pytest.approx(quantile * np.sqrt(variances.sum()))


def test_the_difference_of_two_runs_is_a_paired_test():
    one, other = normal(1, 20), normal(1, 20, seed=1)
    expected = t_interval((one - other)[0])
    assert difference_interval(one, other) == pytest.approx(expected)


def test_the_probability_of_improvement_by_hand():
    """Task 1: 3 of 4 pairs won. Task 2: one tie and 3 lost."""
    one, other = np.array([[1.0, 0], [3, 5]]), np.array([[2.0, 5], [0, 7]])
    assert probability_of_improvement(one, other) == (3 / 4 + 0.5 / 4) / 2
    assert probability_of_improvement(other, one) == 1 - (3 / 4 + 0.5 / 4) / 2
    assert probability_of_improvement(one, one) == 0.5


def test_the_probability_of_improvement_is_mann_and_whitneys():
    one, other = normal(7, 1), normal(5, 1, seed=3)
    u = stats.mannwhitneyu(one[:, 0], other[:, 0]).statistic
    assert probability_of_improvement(one, other) == pytest.approx(u / 35)


@pytest.mark.parametrize("compare", [difference_interval, probability_of_improvement])
def test_methods_on_different_tasks_are_not_compared(compare):
    with pytest.raises(ValueError, match=r"same tasks, got 3 and 4"):
        compare(normal(2, 3), normal(2, 4))


def test_a_performance_profile_by_hand():
    scores = np.array([[0.0, 1.0], [2.0, 3.0]])
    profile = performance_profile(scores, np.array([-1.0, 0.0, 1.5, 3.0]))
    assert profile.tolist() == [1.0, 0.75, 0.5, 0.0]
