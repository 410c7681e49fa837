"""Result files: named by what was measured, and never overwritten by another measurement."""

from __future__ import annotations

import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import metarl
from metarl.core.errors import UserError
from metarl.core.parsing import read_json
from metarl.evaluation import result_file
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.protocols import PROTOCOLS
from metarl.evaluation.result_file import (
    LOCK_FILE,
    MAX_STEM,
    figure_files,
    result_path,
    result_stem,
    stem_of_content,
    write_result,
)
from metarl.reporting.evaluation import publish_evaluation
from metarl.reporting.names import method_text
from metarl.reporting.report import write_report
from metarl.reporting.summary import read_summary
from metarl.runs.result_files import read_results
from metarl.runs.run import Run
from metarl.training.loop import start_or_resume, train

pytestmark = pytest.mark.all_formats
SMALL = {
    "iterations": 2,
    "num_tasks": 2,
    "num_episodes": 3,
    "env.horizon": 6,
    "agent.policy.hidden": [8],
    "checkpoint_every": 1,
    "tracking.mode": "disabled",
}
LITTLE = {"tasks": 2, "episodes": 2, "steps": 1}
DEFAULT = {"tasks": 40, "episodes": 20, "steps": 3, "seed": 0}
NAME = "k_step-test-tasks_2-episodes_2-steps_1"


def train_into(folder, config="point_nav/maml_trpo", **overrides):
    return train(metarl.load_config(config, **{**SMALL, **overrides}), folder).directory


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_into(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(trained, tmp_path):
    """The folder of a run of its own."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.parametrize(
    ("checkpoint", "numbers", "overrides", "expected"),
    [
        ("latest", {}, {}, ""),
        ("best", {}, {}, "-checkpoint_best"),
        ("2", {"seed": 7}, {}, "-checkpoint_2-seed_7"),
        ("latest", {"tasks": 5, "steps": 0}, {}, "-tasks_5-steps_0"),
        ("latest", {}, {"agent.inner.test_lr_schedule": "constant"}, None),
        ("latest", {}, {"env.x": 0.5, "device": "cuda"}, "-device_cuda-env.x_0.5"),
        ("latest", {}, {"threads": 1, "tracking.mode": "offline"}, ""),
    ],
)
def test_names_hold_what_differs_from_the_defaults(checkpoint, numbers, overrides, expected):
    expected = "-agent.inner.test_lr_schedule_constant" if expected is None else expected
    stem = result_stem("k_step", "test", checkpoint, DEFAULT | numbers, overrides)
    assert stem == f"k_step-test{expected}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_names_hold_only_what_their_protocol_uses(protocol):
    expected = {
        "few_episode": "-trials_2-experience_1_60",
        "robust": "-steps_1-observation_noise_0.3_1-action_delay_2",
    }.get(protocol, "-steps_1")
    strengths = {"observation_noise": (0.3, 1.0), "action_delay": [2]}
    changed = {**DEFAULT, "steps": 1, "trials": 2, "experience": (1, 60)}
    changed["perturbations"] = strengths
    assert result_stem(protocol, "test", "latest", changed, {}) == f"{protocol}-test{expected}"


def test_a_setting_without_influence_changes_no_file(run):
    """Nor does it lose a file that was named by it, or what was measured before."""
    first, file = evaluate_run(run, **LITTLE)
    earlier = shutil.copy(file, file.with_name(f"{NAME}-trials_7.json"))
    evaluate_run(run, **LITTLE, against=["random"])
    again, same = evaluate_run(run, **LITTLE, trials=7)
    assert same == file
    assert again["maml_trpo"].returns.tolist() == first["maml_trpo"].returns.tolist()
    assert list(read_results(file)) == ["maml_trpo", "random"]
    assert set(read_summary(run).evaluations) == {NAME, earlier.stem}


def test_values_that_no_name_can_hold_are_told_apart():
    names = {
        result_stem("k_step", "test", "latest", DEFAULT, {"x.y": value})
        for value in ([1, 2], [1, 3], "../a", ".._a", "a" * 300, "a" * 301)
    }
    assert len(names) == 6
    assert all("/" not in name and len(name) <= MAX_STEM + 9 for name in names)


def test_a_name_from_an_untrusted_file_leads_nowhere_else():
    content = {**DEFAULT, "protocol": "../../x", "split": "/y", "methods": {"m": {"parts": {}}}}
    content["methods"]["m"]["checkpoint"] = "../z"
    assert "/" not in stem_of_content(content)


def test_no_evaluation_overwrites_another_and_a_report_shows_all(svg_only, run, tmp_path):
    measured = [
        {},
        {"checkpoint": "1"},
        {"tasks": 3},
        {"seed": 4},
        {"steps": 2, "agent.inner.test_lr_schedule": "constant"},
        {"env.horizon": 5},
    ]
    files = [evaluate_run(run, **{**LITTLE, **changed})[1] for changed in measured]
    assert len({*files}) == len(measured)
    assert {file.stem for file in files} == set(read_summary(run).evaluations)
    page = write_report([run], tmp_path / "page")[0].read_text()
    assert all(f'<h2 id="{file.stem}">' in page for file in files)


@pytest.mark.parametrize("name", ["mine", "k_step", "k_step-test a", "robust-test", "k_step-tes"])
def test_a_name_that_no_report_can_show_is_refused_in_the_folder_of_reports(run, tmp_path, name):
    """Before the evaluation. In another folder any name will do."""
    file = run / "evaluation" / f"{name}.json"
    with pytest.raises(UserError, match=rf"--out: .*{name}.json: .* such as k_step-test-mine"):
        result_path(file, NAME)
    assert not file.parent.exists()
    for other in (f"k_step-test-{NAME}", "k_step-test"):
        assert result_path(file.with_name(f"{other}.json"), NAME).stem == other
    assert result_path(tmp_path / "evaluation" / f"{name}.json", NAME).stem == name


@pytest.mark.parametrize("taken", [f"{NAME}.json", f"{NAME}.png", LOCK_FILE])
def test_a_folder_in_place_of_a_file_is_refused(run, taken):
    """Before the evaluation."""
    (run / "evaluation" / taken).mkdir(parents=True)
    said = rf"{re.escape(taken)}: is there and not a file, so that no result can be written"
    with pytest.raises(UserError, match=said):
        result_path(run / "evaluation", NAME)


def test_after_more_training_the_earlier_result_stays(run):
    first, file = evaluate_run(run, **LITTLE)
    publish_evaluation(Run.open(run), file, first)
    start_or_resume(metarl.load_config("point_nav/maml_trpo", **{**SMALL, "iterations": 3}), run)
    second, again = evaluate_run(run, **LITTLE)
    assert again == file == run / "evaluation" / f"{NAME}.json"
    earlier = file.with_name(f"{NAME}-iteration_2.json")
    for path in (earlier, file):
        assert all(figure.is_file() == (path == earlier) for figure in figure_files(path))
    for path, results in ((earlier, first), (file, second)):
        found = read_results(path)["maml_trpo"][""]
        assert found.returns.tolist() == results["maml_trpo"].returns.tolist()
    assert len(read_summary(run).evaluations) == 2


def test_a_file_of_before_is_kept_under_the_name_of_what_it_holds(run):
    """Any settings were called `k_step-test`."""
    _, file = evaluate_run(run, **LITTLE)
    old = file.with_name("k_step-test-steps_1.json")
    content = file.replace(old).read_text()
    assert evaluate_run(run, tasks=40, episodes=20, steps=1)[1] == old
    assert file.read_text() == content


def test_further_baselines_are_added(run):
    evaluate_run(run, **LITTLE, against=["random"])
    oracle = train_into(run.parent / "oracle", "point_nav/oracle")
    results, file = evaluate_run(run, **LITTLE, against=[str(oracle)])
    assert list(results) == ["maml_trpo", "oracle"]
    assert list(read_results(file)) == ["maml_trpo", "oracle", "random"]
    assert json.loads(file.read_text())["against"] == [str(oracle), "random"]
    other = train_into(run.parent / "other", "point_nav/oracle", seed=1)
    evaluate_run(run, **LITTLE, against=[str(other)])
    kept = f"oracle ({oracle} latest, iteration 2)"
    assert list(read_results(file)) == ["maml_trpo", "oracle", kept, "random"]
    evaluate_run(run, **LITTLE, against=[str(oracle)])
    kept = f"oracle ({other} latest, iteration 2)"
    assert sorted(read_results(file)) == sorted(["maml_trpo", "oracle", kept, "random"])
    assert [path.name for path in file.parent.glob("*.json")] == [file.name]


def test_evaluations_that_end_at_one_time_keep_all_baselines(tmp_path, monkeypatch):
    def read_slowly(path):
        content = read_json(path)
        time.sleep(0.05)
        return content

    monkeypatch.setattr(result_file, "read_json", read_slowly)
    file = tmp_path / "k_step-test.json"

    def write(label):
        methods = {"own": {"parts": {}}, label: {"parts": {}}}
        write_result(file, {"against": [label], "methods": methods})

    labels = [f"baseline {number}" for number in range(6)]
    with ThreadPoolExecutor(len(labels)) as pool:
        list(pool.map(write, labels))
    content = read_json(file)
    assert sorted(content["methods"]) == sorted(content["against"] + ["own"])
    assert sorted(content["against"]) == labels


def test_a_method_is_that_of_another_run(run):
    """A run of the same method and seed is no baseline of itself."""
    with pytest.raises(UserError, match=r"^--against: maml_trpo: expected random"):
        evaluate_run(run, **LITTLE, against=["maml_trpo"])
    train_into(run.parent / "other", seed=1)
    results, _ = evaluate_run(run, **LITTLE, against=["maml_trpo"])
    one, other = results.values()
    assert not np.array_equal(one.returns, other.returns)


@pytest.mark.parametrize("content", ["{", "[]", '{"methods": {}}', '{"methods": {"a": 1}}'])
def test_a_damaged_file_is_replaced(run, content):
    _, file = evaluate_run(run, **LITTLE)
    file.write_text(content)
    evaluate_run(run, **LITTLE)
    assert list(read_results(file)) == ["maml_trpo"]
    assert [path.name for path in file.parent.glob("*.json")] == [file.name]


# --- baselines ---


def test_folders_of_one_name_are_both_shown(run, tmp_path):
    folders = [train_into(tmp_path / str(seed) / "same", seed=seed) for seed in (1, 2, 3)]
    results, _ = evaluate_run(run, **LITTLE, against=[str(folder) for folder in folders])
    assert list(results) == ["maml_trpo", "same", str(folders[1]), str(folders[2])]
    assert len({results[label].returns.tobytes() for label in results}) == 4


@pytest.mark.parametrize("twice", [["random", "random"], ["{run}", "{run}/."]])
def test_a_baseline_that_is_given_twice_is_refused(run, twice):
    with pytest.raises(UserError, match=r"--against: .*: given twice"):
        evaluate_run(run, **LITTLE, against=[each.format(run=run) for each in twice])


def test_a_method_called_random_is_no_baseline(svg_only, run, tmp_path):
    """The untrained agent has its own row beside runs of this method."""
    named = train_into(tmp_path / "random", method="random", seed=1)
    results, _ = evaluate_run(named, **LITTLE, against=["random"])
    assert list(results) == ["random", "random (untrained)"]
    results, _ = evaluate_run(run, **LITTLE, against=["random", str(named)])
    assert list(results) == ["maml_trpo", "random", str(named)]
    assert len({each.returns.tobytes() for each in results.values()}) == 3
    page = write_report([run, named], tmp_path / "page")[0].read_text()
    for label in ("random", "random (untrained)"):
        assert f'<tr><th scope="row">{method_text(label)}</th><td>1</td>' in page
