"""Success rates: in statistics, figures, tables of numbers and W&B."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.reporting.evaluation import scalars
from metarl.reporting.figures import adaptation_curves
from metarl.reporting.style import figure_bytes
from metarl.runs.result import Evaluation

TASKS = np.array([[0.0], [1.0]])
RETURNS = np.array([[[1.0, 3.0], [5.0, 7.0]], [[2.0, np.nan], [6.0, 8.0]]])
SUCCESS = np.array([[[True, False], [True, True]], [[False, False], [True, True]]])
"""Two tasks before and after adaptation, two episodes each, of which one failed."""
KNOWN = Evaluation("reach", "test", "hash", TASKS, RETURNS, success=SUCCESS)
UNKNOWN = Evaluation("reach", "test", "hash", TASKS, RETURNS)


def test_statistics_of_success_are_those_of_episodes_that_did_not_fail():
    found = KNOWN.successes
    assert found is not None
    assert found.by_task.tolist() == [[0.5, 1.0], [0.0, 1.0]]
    assert found.mean.tolist() == [0.25, 1.0]
    assert KNOWN.success_rate.tolist() == [0.25, 1.0]
    # Student's t with one degree of freedom: 12.706 times the standard error, 0.25
    assert found.interval[0] == pytest.approx(
        [0.25 - 12.706 * 0.25, 0.25 + 12.706 * 0.25], rel=1e-4
    )
    assert UNKNOWN.successes is UNKNOWN.success_rate is None


def test_a_figure_has_success_beside_the_return():
    drawing = adaptation_curves({"maml": [KNOWN], "other": [UNKNOWN]})
    returns, success = drawing.figure.axes
    assert [line.get_label() for line in returns.get_lines()] == ["MAML", "other"]
    (line,) = success.get_lines()
    assert list(line.get_ydata()) == [0.25, 1.0]
    assert success.get_ylabel() == "success rate (band: 95% interval)"
    assert drawing.columns[-3:] == ("success", "success low", "success high")
    *_, last = figure_bytes(drawing, "csv").decode().splitlines()
    assert last.startswith("other,1,1,6.5,")
    assert last.endswith(",,,")
    assert [row[6] for row in drawing.rows] == [0.25, 1.0, None, None]


def test_a_figure_without_success_has_one_panel():
    """As where one of two seeds does not know it."""
    assert len(adaptation_curves({"maml": [KNOWN, UNKNOWN]}).figure.axes) == 1


def test_success_is_tracked_beside_the_return():
    assert scalars("eval/k_step", {"maml": KNOWN, "other": UNKNOWN}) == {
        "eval/k_step/maml/return/0": 2.0,
        "eval/k_step/maml/return/1": 6.5,
        "eval/k_step/maml/success/0": 0.25,
        "eval/k_step/maml/success/1": 1.0,
        "eval/k_step/other/return/0": 2.0,
        "eval/k_step/other/return/1": 6.5,
    }
