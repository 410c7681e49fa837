"""Aggregates over families: hand-worked numbers, and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.core.aggregates import (
    estimate,
    improvements,
    iqm,
    mean,
    normalise,
    optimality_gap,
    profiles,
    resample,
    summaries,
    varies,
)
from metarl.core.rng import Purpose, make_rng

# Two families; a method with two seeds on two tasks, and on one task.
ONE = [np.array([[0.0, 1.0], [0.5, 0.7]]), np.array([[0.2], [2.0]])]
OTHER = [np.array([[0.6, 1.0], [0.4, 0.9]]), np.array([[0.1], [0.1]])]


def test_the_references_are_0_and_1():
    np.testing.assert_allclose(normalise(np.array([[-72.0, -0.5]]), -72.0, -0.5), [[0, 1]])
    np.testing.assert_allclose(normalise(np.array([30.0, -10.0]), 10, 20), [2, -2])
    with pytest.raises(ValueError, match="expected a reference above 3, got 3"):
        normalise(np.zeros(1), 3.0, 3.0)


def test_statistics_by_hand():
    """Of 0, 0.2, 0.5, 0.7, 1 and 2, the quarter at each end is one score, rounded down."""
    assert iqm(ONE) == pytest.approx((0.2 + 0.5 + 0.7 + 1.0) / 4)
    assert mean(ONE) == pytest.approx(4.4 / 6)
    assert optimality_gap(ONE) == pytest.approx((1 + 0.8 + 0.5 + 0.3) / 6)
    np.testing.assert_allclose(summaries([ONE])[0], [0.6, 4.4 / 6, 2.6 / 6])


def test_a_family_with_fewer_seeds_weighs_as_much():
    """A family with two seeds, 0 and 2, and one with one seed, 4, of a task each. The middle half
    is the scores of 2, and half of those of 4."""
    scores = [np.array([[0.0], [2.0]]), np.array([[4.0]])]
    assert iqm(scores) == pytest.approx(3.0)
    assert mean(scores) == pytest.approx((1 + 4) / 2)
    assert optimality_gap(scores) == pytest.approx((0.5 + 0) / 2)
    np.testing.assert_allclose(profiles([scores], np.array([1.0, 3.0]))[0], [0.75, 0.5])


def test_profiles_by_hand():
    levels = np.array([-1.0, 0.0, 0.5, 1.0])
    shares = profiles([ONE, OTHER], levels)
    np.testing.assert_allclose(shares, np.array([[6, 5, 3, 1], [6, 6, 3, 0]]) / 6)


def test_the_probability_of_improvement_by_hand():
    """Task by task, of four pairs of seeds each: 0 and 0.5 against 0.6 and 0.4 win one; 1 and 0.7
    against 1 and 0.9 win one and tie one; 0.2 and 2 against 0.1 and 0.1 win all."""
    expected = (1 / 4 + 1.5 / 4 + 4 / 4) / 3
    found = improvements([ONE, OTHER])
    np.testing.assert_allclose(found, [[0.5, expected], [1 - expected, 0.5]])


def test_a_sample_has_whole_seeds_and_the_same_tasks_for_all_methods():
    """Of a score 100 * method + 10 * seed + task."""
    seeds, tasks = np.meshgrid(np.arange(3), np.arange(10), indexing="ij")
    methods = [[10.0 * seeds + tasks], [100 + 10.0 * seeds + tasks]]
    rng = make_rng(0, Purpose.BOOTSTRAP)
    differ = False
    for _ in range(20):
        (one,), (other,) = resample(methods, [False], rng)
        assert (one % 10 == one[:1] % 10).all()  # a row is one seed on the drawn tasks
        assert (other % 10 == one % 10).all()
        assert (one // 10 == one[:, :1] // 10).all()
        differ |= not np.array_equal(other // 10 - 10, one // 10)
    assert differ  # the seeds of the methods are drawn independently
    (fixed,), _ = resample(methods, [True], rng)
    np.testing.assert_array_equal(fixed % 10, tasks)


def test_families_are_strata():
    """Each keeps its numbers of seeds and tasks."""
    rng = make_rng(0, Purpose.BOOTSTRAP)
    (drawn,) = resample([ONE], [False, False], rng)
    assert [each.shape for each in drawn] == [(2, 2), (2, 1)]
    assert set(drawn[1].ravel()) <= {0.2, 2.0}


def means(methods):
    return np.array([mean(scores) for scores in methods])


def test_the_interval_of_a_mean_is_that_of_the_theory():
    """Over many tasks of one seed it is the mean -+ 1.96 standard errors; and always the same."""
    scores = np.random.default_rng(0).normal(3.0, 2.0, (1, 400))
    ((value,), (low,), (high,)) = estimate(means, [[scores]], [False])
    error = scores.std() / np.sqrt(400)
    assert value == scores.mean()
    np.testing.assert_allclose(
        [low, high], scores.mean() + 1.96 * error * np.array([-1, 1]), atol=0.02
    )
    again = estimate(means, [[scores]], [False])
    np.testing.assert_array_equal(again, [[value], [low], [high]])


def test_scores_that_are_equal_have_an_interval_of_one_value():
    value, low, high = estimate(summaries, [[np.full((2, 3), 0.7)]], [True], resamples=5)
    np.testing.assert_array_equal(low, value)
    np.testing.assert_array_equal(high, value)


def test_where_nothing_is_drawn_there_is_no_interval():
    """One seed on all tasks; of a pair, one method that varies is enough."""
    single, double = np.array([[0.1, 0.9]]), np.array([[0.1, 0.9], [0.3, 0.2]])
    value, *bounds = estimate(means, [[single], [double]], [True], resamples=5)
    np.testing.assert_allclose(value, [0.5, 0.375])
    np.testing.assert_array_equal(np.isnan(bounds), [[True, False]] * 2)
    methods = [[single], [double], [single]]
    value, *bounds = estimate(improvements, methods, [True], resamples=5, of_pairs=True)
    assert not np.isnan(value).any()
    expected = [[True, False, True], [False, False, False], [True, False, True]]
    np.testing.assert_array_equal(np.isnan(bounds), [expected] * 2)


@pytest.mark.parametrize(
    ("shapes", "fixed", "expected"),
    [
        ([(1, 3)], [True], False),
        ([(1, 3)], [False], True),
        ([(1, 1)], [False], False),
        ([(2, 1)], [True], True),
        ([(1, 3), (2, 3)], [True, True], True),
    ],
)
def test_what_varies(shapes, fixed, expected):
    assert varies([np.zeros(shape) for shape in shapes], fixed) == expected
