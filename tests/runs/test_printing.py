"""An evaluation prints as a table."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.runs.printing import decimals
from metarl.runs.result import Evaluation

TASKS = np.array([[0.0], [1.0]])
RETURNS = np.array([[[1.0, 3.0], [4.0, 4.0]], [[-2.0, 0.0], [-3.0, -3.0]]])  # (2, 2, 2)


@pytest.fixture
def result():
    return Evaluation("point_nav", "test", "hash", TASKS, RETURNS, success=RETURNS > 0)


def test_the_table(result):
    lines = str(result).splitlines()
    assert lines[0] == "point_nav: 2 test tasks, 2 episodes each"
    assert lines[1].split("  ")[0] == "adaptations"
    assert lines[1].endswith("tasks made worse  success")
    before, after = lines[2:]
    low, high = result.interval[0]
    assert before.split() == ["0", "0.500", f"{low:.3f}", "to", f"{high:.3f}", "0.500", "50%"]
    assert after.split()[-2:] == ["50%", "50%"]
    assert len({len(line) for line in lines[1:]}) == 1


@pytest.mark.parametrize(
    ("returns", "expected"),
    [([-38.4, 0.1], 1), ([-9.0, np.nan], 2), ([0.02], 4), ([1e-20], 6), ([0.0], 1), ([1e7], 1)],
)
def test_small_returns_have_digits_too(returns, expected):
    """With one decimal, returns between 0 and 0.1 would all be 0.0 or 0.1."""
    assert decimals(np.array(returns)) == expected


def test_zero_has_no_sign():
    returns = np.array([[[-0.02], [-12.0]], [[0.0], [-12.0]]])  # (2, 2, 1)
    found = Evaluation("point_nav", "test", "hash", TASKS, returns)
    assert found.mean.tolist() == [-0.01, -12.0]
    assert str(found).splitlines()[2].split()[:2] == ["0", "0.0"]
    assert "-0.0" not in str(found)


def test_the_short_text(result):
    means = "mean return 0.500 -> 0.500 after 1 adaptation"
    assert repr(result) == f"<Evaluation point_nav: 2 test tasks, 2 episodes each, {means}>"
    single = Evaluation("point_nav", "custom", "hash", TASKS[:1], RETURNS[:1, :1])
    assert repr(single).endswith("1 custom task, 2 episodes each, mean return 2.00>")


def test_the_notebooks_table(result):
    found = result._repr_html_()
    assert found.count("<tr>") == 3
    assert "<th>IQM</th>" in found
    hostile = Evaluation("<b>", "test", "hash", TASKS, RETURNS)._repr_html_()
    assert "<b>" not in hostile
    assert "&lt;b&gt;" in hostile


def test_without_a_task_that_was_played(result):
    """No statistics, and no warnings about them."""
    lost = Evaluation("point_nav", "test", "hash", TASKS, np.full_like(RETURNS, np.nan))
    assert repr(lost).endswith("no task played to the end>")
    assert len(str(lost).splitlines()) == 2
    assert lost._repr_html_().count("<tr>") == 1
