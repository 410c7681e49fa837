"""examples/worst_tasks.py: the mean over the worst fifth of tasks, and its table."""

import numpy as np

from examples import worst_tasks


def test_the_worst_fifth_of_tasks_by_hand():
    """After each adaptation for itself."""
    returns = np.stack([np.arange(10.0), -np.arange(10.0)], axis=1)
    assert worst_tasks.worst(returns).tolist() == [0.5, -8.5]
    assert worst_tasks.worst(returns[:2]).tolist() == [0.0, -1.0]  # one task at least


def test_the_table_has_each_method_and_seed():
    runs = {"plain": [np.array([[-1.0], [-3.0]]), np.array([[-2.0], [-4.0]])]}
    row = worst_tasks.table(runs)[-1]
    assert row.startswith("| plain | 0 | -2.5 (")
    assert "| -2.0, -3.0 | -3.5 (" in row
    assert row.endswith("| -3.0, -4.0 |")
