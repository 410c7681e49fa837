"""training.progress: the texts of the progress display."""

import pytest

from metarl.training.progress import format_count, format_return


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.42, "0.42"),
        (7.04, "7"),
        (42.4, "42"),
        (999.4, "999"),
        (1000, "1k"),
        (45_678, "45.7k"),
        (3_600_000, "3.6M"),
        (76_123_456, "76.1M"),
        (999_499, "999k"),
        (999_500, "1M"),
        (4.8e9, "4.8G"),
    ],
)
def test_slow_environments_have_a_rate_too(number, text):
    assert format_count(number) == text


def test_small_returns_differ_too():
    texts = [*map(format_return, (None, 0.0, -0.001, 0.012, 0.038, 0.949, 0.96, -9.07, -0.0))]
    assert texts == ["none", "0.0", "-0.001", "0.012", "0.038", "0.95", "1.0", "-9.1", "0.0"]
