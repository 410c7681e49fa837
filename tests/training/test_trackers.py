"""Trackers beside W&B: CSV, TensorBoard and one's own, alone and several at once."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metarl
from metarl.cli.main import main
from metarl.core.errors import ConfigError, UserError
from metarl.runs.run import Run
from metarl.training.loop import resume, train
from metarl.training.tracker import NullTracker
from metarl.training.tracking import check_trackers, start_tracker
from tests.training.test_loop import tiny
from tests.training.test_tracking_resumed import killed

ROOT = Path(__file__).parents[2]
BOTH = ("csv", "tensorboard")


def config(*trackers, **settings):
    return tiny(**{"tracking.trackers": trackers, "iterations": 4, **settings})


def rows(run):
    with (run.directory / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def events(run, job="train"):
    found = EventAccumulator(str(run.directory / "tensorboard" / job)).Reload()
    return {
        name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]
    }


def assert_all_there_once(run, number=4):
    """Both trackers have every iteration once, in order, with its numbers."""
    lines = [a | b for a, b in zip(run.metrics(), run.timings(), strict=True)]
    assert len(lines) == number
    found = [{k: json.loads(v) for k, v in row.items() if v} for row in rows(run)]
    assert found == lines
    scalars = events(run)
    for name, of in (
        ("train/return_after", "return_after"),
        ("time/seconds", "seconds"),
        ("time/policy", "seconds/policy"),
        ("env_steps", "env_steps"),
    ):
        assert scalars[name] == [(line["iteration"], pytest.approx(line[of])) for line in lines]


def test_csv_and_tensorboard_have_all_metrics(tmp_path, capsys):
    section = {"evaluation.every": 3, "evaluation.tasks": 2}
    run = train(config(*BOTH, **section), tmp_path / "a run")
    assert_all_there_once(run)
    assert [step for step, _ in events(run)["validation/return_after"]] == [3, 4]
    assert rows(run)[0]["validation/return_after"] == ""
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"run: {run.directory} (0 of 4 iterations)",
        f"CSV: {run.directory}/metrics.csv",
        f"TensorBoard: show it with: tensorboard --logdir '{run.directory}/tensorboard'",
    ]
    assert lines[3].startswith("iteration 1/4")
    assert not (run.directory / "wandb").exists()


def test_nothing_is_there_twice_after_kill_minus_nine(tmp_path):
    """Killed as the fourth iteration begins, with a checkpoint after two; then again at once."""
    run = Run.create(config(*BOTH), tmp_path / "run")
    killed(run, 4)
    killed(run, 1)
    resume(run.directory, iterations=6)
    assert_all_there_once(run, 6)


def test_half_a_row_of_a_killed_process_is_replaced(tmp_path):
    run = train(config("csv", iterations=2), tmp_path / "run")
    with (run.directory / "metrics.csv").open("a") as file:
        file.write("3,4")
    resume(run.directory, iterations=4, **{"tracking.trackers": BOTH})
    assert_all_there_once(run)


def test_an_evaluation_is_in_tensorboard_too(tmp_path):
    run = train(config("tensorboard", iterations=2), tmp_path / "run")
    sizes = ["--tasks=2", "--episodes=2", "--steps=1"]
    assert main(["evaluate", str(run.directory), *sizes]) == 0
    content = json.loads(
        (run.directory / "evaluation/k_step-test-tasks_2-episodes_2-steps_1.json").read_text()
    )
    mean = content["methods"]["maml_trpo"]["parts"][""]["mean"]
    name = "eval/k_step-test-tasks_2-episodes_2-steps_1"
    scalars = events(run, "evaluate")
    assert [scalars[f"{name}/maml_trpo/return/{x}"] for x in (0, 1)] == [
        [(2, pytest.approx(value))] for value in mean
    ]
    found = EventAccumulator(str(run.directory / "tensorboard" / "evaluate")).Reload()
    assert found.Tags()["images"] == [f"{name} curve"]


class Broken(NullTracker):
    """Fails at the second iteration."""

    def __init__(self, run, job):
        assert job == "train"

    def log(self, metrics):
        if metrics["iteration"] == 2:
            raise RuntimeError("broken")
        metrics["return_after"] = 0.0


def test_a_tracker_that_fails_ends_neither_the_training_nor_the_others(tmp_path, capsys):
    name = "tests.training.test_trackers:Broken"
    run = train(config(name, *BOTH), tmp_path / "run")
    assert_all_there_once(run)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert line == (
        f"metarl: warning: {name} failed, and no longer tracks this run: RuntimeError: broken "
        "(the files hold everything)"
    )
    plain = train(config(), tmp_path / "plain")
    assert plain.metrics_file.read_bytes() == run.metrics_file.read_bytes()


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    run = Run.create(config(*BOTH), tmp_path / "run")
    (run.directory / "tensorboard").write_text("no folder")
    (run.directory / "metrics.csv").mkdir()
    resume(run.directory)
    assert len(run.metrics()) == 4
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert [line.split()[2] for line in lines] == ["tensorboard", "csv"]


def test_the_tracker_of_extending_md(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(# my_tracker\.py\n.*?)```", text, re.S)
    assert code.count("\n") <= 15
    (tmp_path / "my_tracker.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    run = train(config("my_tracker:Lines", "csv", iterations=2), tmp_path / "run")
    resume(run.directory, iterations=4)
    expected = [f"{line['iteration']} {line['return_after']:.1f}" for line in run.metrics()]
    assert (run.directory / "train.txt").read_text().splitlines() == expected
    sys.modules.pop("my_tracker")


class OnlyARun(NullTracker):
    def __init__(self, run):
        pass


class Other(NullTracker):
    def __init__(self, *arguments):
        pass


def test_a_tracker_that_cannot_be_made_of_a_run_and_a_job_is_refused():
    said = rf"^tracking.trackers: {__name__}:OnlyARun takes \(run\), expected \(run, job\);"
    with pytest.raises(ConfigError, match=said):
        check_trackers(config(f"{__name__}:OnlyARun"))
    check_trackers(config(f"{__name__}:Other"))


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ("csv", ["csv"]),
        ("[wandb, csv]", ["wandb", "csv"]),
        ("none", []),
        ("[]", []),
    ],
)
def test_trackers_are_a_flag(flag, names, capsys):
    words = ["train", "point_nav/maml_trpo", "--tracking.trackers", flag, "--dry-run"]
    assert main(words) == 0
    listed = "".join(f"\n  - {name}" for name in names) or " []"
    assert f"  trackers:{listed}\n" in capsys.readouterr().out.replace("    - ", "  - ")
    words[3] = "my.module:Tracker"
    assert main(words) == 2
    message = "metarl: error: --tracking.trackers: cannot import 'my.module:Tracker': No module"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "wnadb",
            r"wandb, tensorboard, csv, none or package\.module:Class, got 'wnadb' \(nearest: wa",
        ),
        (["csv", "tensorbord"], r"expected wandb, .*, got 'tensorbord' \(nearest: tensorboard\)"),
        (["none", "csv"], r"expected none alone, got none, csv"),
        (["csv", "csv"], r"expected each tracker once, got csv, csv"),
        (3, r'expected a list of texts, such as "\[a, b\]", got 3'),
        ([1], r"\[0\]: expected text, got 1"),
    ],
)
def test_wrong_names_are_refused(value, message):
    with pytest.raises(UserError, match=r"tracking\.trackers" + ".*" + message):
        tiny(**{"tracking.trackers": value})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os:system", "expected a class derived from metarl.training.tracker.NullTracker"),
        ("pathlib:Path", "it does not define log, scalars, table, image, video, artifact, finish"),
        ("tests.training.test_trackers:Brokn", "cannot import"),
    ],
)
def test_what_is_no_tracker_is_refused_before_there_is_a_folder(tmp_path, name, message):
    with pytest.raises(UserError, match=f"^tracking.trackers: .*{message}"):
        train(config(name), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = Run.create(config(), tmp_path / "other")
    with pytest.raises(UserError, match=f"^tracking.trackers: .*{message}"):
        resume(run.directory, **{"tracking.trackers": name})
    assert run.metrics() == []


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        UserError, match=r'pip install "metarl-torch\[tensorboard\]"; or choose csv'
    ):
        train(config("tensorboard"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_none_tracks_nothing_and_configs_from_before_track_by_wandb(tmp_path):
    run = Run.create(config(), tmp_path / "run")
    assert isinstance(start_tracker(run), NullTracker)
    path = run.directory / "config.yaml"
    path.write_text(path.read_text().replace("  trackers: []\n", ""))
    assert Run.open(run.directory).config.tracking.trackers == ("wandb",)
    assert metarl.load_config("point_nav/maml_trpo").tracking.trackers == ("wandb",)


def test_a_tracker_in_the_folder_of_a_run_is_refused(tmp_path, monkeypatch):
    run = Run.create(config(), tmp_path / "run")
    (run.directory / "evil.py").write_text("raise SystemExit('executed')")
    path = run.directory / "config.yaml"
    path.write_text(path.read_text().replace("  trackers: []", "  trackers: [evil:Tracker]"))
    monkeypatch.chdir(run.directory)
    with pytest.raises(UserError, match=r"tracking\.trackers\[0\]: names code in the run's own"):
        Run.open(run.directory)
