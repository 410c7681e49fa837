"""Statistics against hand-worked and analytic cases."""

import numpy as np
import pytest
from scipy import stats

from metarl.core.rng import Purpose, make_rng
from metarl.core.statistics import (
    improvement_interval,
    interquartile_mean,
    interval,
    mean,
    mean_interval,
    performance_profile,
    probability_of_improvement,
    resamples,
)


def rng() -> np.random.Generator:
    return make_rng(0, Purpose.BOOTSTRAP)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_interquartile_mean_is_that_of_the_middle_half():
    values = np.array([-100.0, 1, 2, 3, 4, 5, 6, 1000])
    assert interquartile_mean(values) == 3.5
    assert interquartile_mean(np.stack([values, 2 * values])).tolist() == [3.5, 7.0]


def test_interval_of_a_normal_mean_is_near_the_analytic_one():
    values = normal(400)
    low, high = mean_interval(values, rng())
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_interval_is_scipys_where_only_tasks_are_drawn():
    values = np.random.default_rng(1).exponential(size=40)
    expected = stats.bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    low, high = mean_interval(values, rng())
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_interval_is_a_function_of_its_random_stream():
    values = np.arange(10.0)
    assert mean_interval(values, rng()) == mean_interval(values, rng())


@pytest.mark.parametrize("values", [np.array([2.0]), np.full(5, 2.0)])
def test_values_that_do_not_vary_have_an_interval_of_no_width(values):
    assert mean_interval(values, rng()) == (2.0, 2.0)


def test_runs_and_tasks_are_both_drawn():
    """Scores run + task, with as much spread among 30 runs as among 30 tasks: the variance of the
    mean is the sum of both, whereas independent scores would have 1 / 30 of it."""
    runs, tasks = normal(30, seed=1), normal(30, seed=2)
    scores = runs[:, None] + tasks
    low, high = interval(scores, rng())
    expected = 2 * 1.96 * np.sqrt(runs.var() / 30 + tasks.var() / 30)
    assert high - low == pytest.approx(expected, rel=0.05)
    shared = interval(np.repeat(runs[:, None], 30, axis=1), rng())
    assert np.ptp(shared) == pytest.approx(2 * 1.96 * runs.std() / np.sqrt(30), rel=0.05)


def test_an_interval_covers_as_often_as_it_says():
    """The true mean, 0, of run + task, in 200 experiments with 20 runs and 20 tasks each."""
    covered = 0
    for trial in range(200):
        draw = np.random.default_rng(trial)
        scores = draw.standard_normal((20, 1)) + draw.standard_normal(20)
        low, high = interval(scores, draw, mean, 0.9)
        covered += low < 0 < high
    assert 0.80 < covered / 200 < 0.96  # small samples make it a little too narrow


def test_any_statistic_has_an_interval():
    scores = np.array([[0.0, 1, 2, 3, 4, 5, 6, 1000]])
    low, high = interval(scores, rng(), interquartile_mean)
    assert 0 <= low < interquartile_mean(scores[0]) < high
    assert interval(scores, rng(), mean)[1] > 1.3 * high


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


def test_a_sure_improvement_has_an_interval_of_no_width():
    one = normal(3, 10)
    assert improvement_interval(one + 100, one, rng()) == (1.0, 1.0)
    low, high = improvement_interval(normal(3, 10, seed=4), one, rng())
    assert 0 < low < 0.5 < high < 1


def test_resamples_of_two_methods_have_the_same_tasks():
    """Tasks differ by far more than the methods do; drawn together they cancel."""
    tasks = 100 * normal(20)
    one, other = tasks[None] + 1.0, tasks[None]
    for drawn, others_drawn in resamples(rng(), one, other):
        assert drawn - others_drawn == pytest.approx(1.0)
    assert np.ptp(interval(one, rng())) > 50


def test_methods_on_different_tasks_are_not_compared():
    with pytest.raises(ValueError, match=r"same tasks, got \[3, 4\]"):
        improvement_interval(normal(2, 3), normal(2, 4), rng())


def test_a_performance_profile_by_hand():
    scores = np.array([[0.0, 1.0], [2.0, 3.0]])
    profile = performance_profile(scores, np.array([-1.0, 0.0, 1.5, 3.0]))
    assert profile.tolist() == [1.0, 0.75, 0.5, 0.0]
