"""Statistics against hand-worked and analytic cases."""

import numpy as np
import pytest

from metarl.statistics import interquartile_mean, mean_interval
from metarl.streams import Purpose, stream


def test_interquartile_mean_is_that_of_the_middle_half():
    assert interquartile_mean(np.array([-100.0, 1, 2, 3, 4, 5, 6, 1000])) == 3.5


def test_interval_of_a_normal_mean_is_near_the_analytic_one():
    values = np.random.default_rng(0).standard_normal(400)
    low, high = mean_interval(values, stream(0, Purpose.BOOTSTRAP))
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_is_a_function_of_its_stream():
    values = np.arange(10.0)
    first, second = (mean_interval(values, stream(0, Purpose.BOOTSTRAP)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("values", [np.array([2.0]), np.full(5, 2.0)])
def test_values_that_do_not_vary_have_an_interval_of_no_width(values):
    assert mean_interval(values, stream(0, Purpose.BOOTSTRAP)) == (2.0, 2.0)
