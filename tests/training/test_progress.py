"""training.progress: the texts of the progress display."""

import pytest

from metarl.training.progress import format_count


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
    ],
)
def test_slow_environments_have_a_rate_too(number, text):
    assert format_count(number) == text
