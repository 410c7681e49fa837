"""Run.evaluations and Run.history: a run's results in Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import metarl
from metarl.core.errors import UserError
from metarl.evaluation.compare import evaluate_run
from tests.evaluation.tiny_runs import KINDS, train_tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two iterations."""
    kind = {**KINDS["maml"], "iterations": 2}
    return train_tiny({"maml": kind}, tmp_path_factory.mktemp("runs"))["maml"]


def test_the_metrics_are_columns(run):
    history, lines = run.history(), run.metrics()
    assert history["iteration"].tolist() == [1, 2]
    assert [*history] == [*lines[0]]
    assert history["return_after"].tolist() == [line["return_after"] for line in lines]
    assert all(column.shape == (2,) for column in history.values())
    more = '{"iteration": 3, "env_steps": 9, "return_before": null, "return_after": 1, "more": 2}\n'
    run.metrics_file.write_text(run.metrics_file.read_text() + more)
    longer = run.history()
    np.testing.assert_equal(longer["return_before"][2], np.nan)
    np.testing.assert_equal(longer["more"], [np.nan, np.nan, 2])


def test_the_evaluations(run):
    assert run.evaluations() == {}
    sizes = {"tasks": 2, "episodes": 2, "steps": 1}
    written, file = evaluate_run(run.directory, against=["random"], **sizes)
    found = metarl.Run.open(run.directory).evaluations()
    assert [*found] == [file.stem]
    assert [*found[file.stem]] == ["unnamed", "random"]
    for label, result in found[file.stem].items():
        np.testing.assert_array_equal(result.returns, written[label].returns)
    result = found[file.stem]["unnamed"]
    table = result.to_rows()
    assert len(table) == result.returns.size == 2 * 2 * 2
    for row in table:
        place = row["task"], result.x.index(row["x"]), row["episode"]
        assert row.keys() == {"task", "x", "episode", "return"}
        assert row["return"] == result.returns[place]
    succeeded = result.returns > np.median(result.returns)
    table = replace(result, success=succeeded).to_rows()
    assert [row["success"] for row in table] == succeeded.ravel().tolist()
    file.write_text("{}")
    with pytest.raises(UserError, match=r"k_step-test.*json: not a result file"):
        run.evaluations()
