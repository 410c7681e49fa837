"""Result files read for a report, those of the earlier form included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from metarl.reporting.comparison_tables import no_aggregates
from metarl.reporting.summary import evaluation_names, read_summaries
from metarl.reporting.training_figures import learning_curves
from metarl.runs.result_files import read_results, result_files

RUNS = Path(__file__).parents[2] / "docs" / "results" / "runs"
GOLDEN = Path(__file__).parents[1] / "golden" / "paper-test.json"
"""A result file as `metarl evaluate` wrote it when `k_step` was called `paper`."""


def test_a_result_file_of_the_earlier_form_is_read():
    content = json.loads(GOLDEN.read_text())["methods"]["maml_trpo"]["parts"][""]
    result = read_results(GOLDEN)["maml_trpo"][""]
    assert (content["axis"], content["points"]) == ("adaptation steps", [0, 1, 2])
    assert (result.x_label, result.x) == ("adaptations", (0, 1, 2))
    assert result.fraction_worse.tolist() == content["worse"]
    assert result.mean.tolist() == content["mean"]
    low, high = stats.t.interval(
        0.95, len(result.tasks) - 1, result.mean, stats.sem(result.by_task)
    )
    np.testing.assert_allclose(result.interval, np.transpose([low, high]))
    written = result.to_dict()
    renamed = {"axis": "x_label", "points": "x", "worse": "fraction_worse"}
    # The step sizes' factors are the agent's now.
    expected = {renamed.get(key, key) for key in content} - {"step_scales"} | {"num_all_tasks"}
    assert written.keys() == expected


@pytest.mark.parametrize(
    ("earlier", "present"), [("usual", "nominal"), ("going on", "sequential"), ("", "")]
)
def test_parts_have_their_present_names(tmp_path, earlier, present):
    content = json.loads(GOLDEN.read_text())
    parts = content["methods"]["maml_trpo"]["parts"]
    parts[earlier] = parts.pop("")
    path = tmp_path / "robust-test.json"
    path.write_text(json.dumps(content))
    assert list(read_results(path)["maml_trpo"]) == [present]


def test_a_file_with_the_earlier_name_counts_where_there_is_no_other(tmp_path):
    earlier, other = tmp_path / "paper-test.json", tmp_path / "few_episode-test.json"
    shutil.copyfile(GOLDEN, earlier)
    shutil.copyfile(GOLDEN, other)
    assert result_files(tmp_path) == {"few_episode-test": other, "k_step-test": earlier}
    present = tmp_path / "k_step-test.json"
    shutil.copyfile(GOLDEN, present)
    assert result_files(tmp_path) == {"few_episode-test": other, "k_step-test": present}


def test_the_test_set_is_the_first_of_the_evaluations():
    """The report's first sentence and the card's first result are of it."""
    names = ["k_step-ood", "k_step-custom-tasks_1_5f3a9c1e", "few_episode-test", "k_step-test"]
    more = {
        "k_step-test-agent.inner.lr_0.5": {"overrides": {"agent.inner.lr": 0.5}},
        "k_step-test-checkpoint_1": {"checkpoint": "1"},
        "k_step-test-tasks_5": {"overrides": {"threads": 1}},
    }
    runs = [
        SimpleNamespace(evaluations=dict.fromkeys([*names, *more]), settings=more),
        SimpleNamespace(evaluations={"k_step-ood": None, **more}, settings=more),
    ]
    assert evaluation_names(runs) == [
        *("k_step-test-tasks_5", "k_step-test", *sorted(more)[:2]),
        *("k_step-ood", "k_step-custom-tasks_1_5f3a9c1e", "few_episode-test"),
    ]


def test_a_learning_curve_says_of_how_many_iterations_a_point_is_the_mean():
    """One of 600 iterations is drawn at a hundred points."""
    summaries = read_summaries([RUNS / "ant_vel-maml_trpo_tuned"])
    assert learning_curves(summaries).caption.endswith("the mean of the last 6 iterations.")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("ood-test", "there are some of k_step and few_episode alone"), ("k_step-test", "they need")],
)
def test_families_are_not_aggregated_for_a_reason(name, reason):
    assert reason in no_aggregates({"point_nav": SimpleNamespace(name=name)})
