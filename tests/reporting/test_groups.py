"""Runs as seeds of one method: by their settings, not by a label."""

from __future__ import annotations

import re
import shutil

import pytest

import metarl
from metarl.core.errors import UserError
from metarl.evaluation.compare import evaluate_run
from metarl.reporting.groups import differing_settings, group_runs
from metarl.reporting.report import write_report
from metarl.reporting.report_sections import first_results, iteration_notes
from metarl.reporting.summary import read_summaries
from metarl.reporting.training_figures import learning_curves
from metarl.training.loop import train
from tests.reporting.test_report import TINY

RUNS = {
    "a": {"agent.inner.lr": 0.01},
    "same": {"agent.inner.lr": 0.01, "seed": 1, "threads": 1, "iterations": 2},
    "b": {"agent.inner.lr": 5},
    "c": {"inner_steps": 3},
}
NAMES = {
    "maml_trpo (sampling.adaptation_steps: 1, agent.inner.lr: 0.01)": ["a", "same"],
    "maml_trpo (sampling.adaptation_steps: 1, agent.inner.lr: 5.0)": ["b"],
    "maml_trpo (sampling.adaptation_steps: 3, agent.inner.lr: 0.5)": ["c"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of one label with other settings, evaluated, with an untrained baseline."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changed in RUNS.items():
        config = metarl.load_config("point_nav/maml_trpo", **{**TINY, **changed})
        train(config, folder / name)
        evaluate_run(folder / name, tasks=3, episodes=2, steps=1)
    return [folder / name for name in RUNS]


def test_seeds_of_other_lengths_and_old_measurements_are_told(runs, tmp_path):
    (name,) = read_summaries(runs[:1])[0].evaluations
    both = read_summaries(runs[:2])
    trained = [int(each.metrics["iteration"][-1]) for each in both]
    assert trained == [3, 2]
    cut = " Cut off where the shortest seed ends: MAML-TRPO."
    assert learning_curves(both).caption.endswith(cut)
    assert "Cut off" not in learning_curves(both[:1]).caption
    assert iteration_notes(both, name) == [
        "maml_trpo: its seeds were measured after 2, 3 iterations"
    ]
    further = shutil.copytree(runs[0], tmp_path / "a")
    metarl.resume(further, iterations=trained[0] + 2)
    (note,) = iteration_notes(read_summaries([further]), name)
    assert (
        note == f"a: measured after {trained[0]} of the {trained[0] + 2} iterations that it has now"
    )


def as_sets(name):
    return {*re.findall(r"[\w.]+: [\w.]+", name)}


def test_runs_are_grouped_by_settings_and_named_by_what_differs(runs):
    groups = group_runs(read_summaries(runs))
    found = {frozenset(as_sets(name)): [run.name for run in each] for name, each in groups.items()}
    assert found == {frozenset(as_sets(name)): each for name, each in NAMES.items()}
    assert all(name.startswith("maml_trpo (") for name in groups)


def test_runs_of_one_experiment_have_the_name_of_their_method(runs):
    assert list(group_runs(read_summaries(runs[:2]))) == ["maml_trpo"]


def test_a_report_shows_each_group_with_its_own_seeds(runs, tmp_path):
    page = write_report(runs, tmp_path / "page")[0].read_text()
    rows = re.findall(r'<tr><th scope="row">(MAML-TRPO \([^<]*\))</th><td>(\d)</td>', page)
    seeds = {frozenset(as_sets(name)): int(count) for name, count in rows}
    assert seeds == {frozenset(as_sets(name)): len(each) for name, each in NAMES.items()}
    (name,) = {each for run in read_summaries(runs) for each in run.evaluations}
    assert len(first_results(read_summaries(runs), name)) == 3


@pytest.mark.parametrize("again", ["a", "copy"])
def test_a_seed_that_is_there_twice_is_refused(runs, tmp_path, again):
    if again == "copy":
        twice = tmp_path / "copy"
        shutil.copytree(runs[0], twice)
    else:
        twice = runs[0]
    expected = f"{again}: has the settings and the seed 0 of .*a; expected each seed of a method"
    with pytest.raises(UserError, match=expected):
        write_report([*runs, twice], tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_names_tell_groups_apart():
    """Keys of one group alone are named too, long values are cut, and many keys are counted."""
    assert differing_settings([{"x": 1}]) == [""]
    assert differing_settings([{"x": 1, "y": 2}, {"x": 1}]) == ["y: 2", "no y"]
    scales = [[1.0] * 20, [1.0] * 19 + [2.0]]
    names = differing_settings([{"x": each} for each in scales])
    assert names[0] != names[1]
    assert all(len(name) < 40 for name in names)
    many = [{f"k{i}": n for i in range(9)} | {"z": n // 2} for n in range(3)]
    assert differing_settings(many)[2] == "k0: 2, k1: 2, k2: 2, k3: 2, and 6 more"
