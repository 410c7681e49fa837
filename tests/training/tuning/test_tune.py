"""`metarl tune`: trials by real trainings, read back by Optuna itself."""

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml

import metarl
from metarl.cli.main import main
from metarl.core.errors import StorageError
from metarl.rollout.failures import NotFinite
from metarl.runs.lock import training_lock
from metarl.runs.run import Run
from metarl.training import iterations
from metarl.training.tuning.space import Choices, Range
from metarl.training.tuning.study import (
    check_optuna,
    choose,
    make_sampler,
    open_file,
    open_trial,
    suggest,
)
from tests.training.test_loop import assert_same_outcome

ROOT = Path(__file__).parents[3]
LR, KL = "agent.inner.lr", "agent.outer.max_kl"
SPACE = {
    LR: {"min": 0.01, "max": 1.0, "distribution": "log_uniform_values"},
    KL: {"values": [0.005, 0.01, 0.05]},
}
TINY = ["--iterations=4", "--num-tasks=2", "--num-episodes=2", "--env.horizon=4"]
TINY += ["--checkpoint-every=2", "--agent.policy.hidden=[4]", "--evaluation.tasks=2"]


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    file = tmp_path_factory.mktemp("space") / "space.yaml"
    file.write_text(yaml.safe_dump(SPACE))
    return file


@pytest.fixture(scope="module")
def words(space):
    def words(out, trials=3, *others, every=2):
        argv = ["tune", "point_nav/maml_trpo", f"--space={space}", f"--out={out}", *TINY]
        return [*argv, f"--trials={trials}", f"--evaluation.every={every}", *others]

    return words


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """A search of three trials."""
    out = tmp_path_factory.mktemp("searches") / "whole"
    assert main(words(out)) == 0
    return out


def rows(out):
    with (out / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def study_of(out):
    """The study as anybody opens it."""
    return optuna.load_study(study_name=None, storage=f"sqlite:///{out}/study.db")


def test_trials_are_runs_with_values_of_the_space_judged_on_validation_tasks(whole):
    found = rows(whole)
    assert [row["trial"] for row in found] == ["0", "1", "2"]
    for row in found:
        run = Run.open(whole / f"trial-{int(row['trial']):04d}")
        assert run.config.agent.inner.lr == float(row[LR])
        assert 0.01 <= run.config.agent.inner.lr <= 1
        assert run.config.agent.outer.max_kl == float(row[KL]) in SPACE[KL]["values"]
        assert (run.config.seed, run.config.evaluation.every) == (0, 2)
        assert run.config.tracking.mode == "disabled"
        lines = [line.get("validation/return_after") for line in run.metrics()]
        assert (row["state"], float(row["value"])) == ("complete", lines[-1])
    assert len({row[LR] for row in found}) == 3


def test_optunas_own_tools_read_the_study(whole):
    study, found = study_of(whole), rows(whole)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [trial.value for trial in study.trials] == [float(row["value"]) for row in found]
    assert [trial.params[LR] for trial in study.trials] == [float(row[LR]) for row in found]
    run = Run.open(whole / "trial-0001")
    reports = {
        line["iteration"]: line["validation/return_after"]
        for line in run.metrics()
        if "validation/return_after" in line
    }
    assert study.trials[1].intermediate_values == reports
    assert reports.keys() == {2, 4}


def test_the_best_values_are_a_config(whole):
    best = max(rows(whole), key=lambda row: float(row["value"]))
    config = metarl.load_config(whole / "best.yaml")
    assert config.agent.inner.lr == float(best[LR])
    assert config.agent.outer.max_kl == float(best[KL])
    assert (config.method, config.iterations, config.threads) == ("maml_trpo", 4, 0)
    assert config.tracking.mode == "auto"


def test_more_trials_are_those_of_a_longer_search(words, whole, tmp_path, capsys):
    """One trial, then two more: the values and the results of three at once."""
    out = tmp_path / "parts"
    assert main(words(out, 1)) == 0
    said = capsys.readouterr()
    assert "1/1  trial 0: " in said.err
    assert main(words(out)) == 0
    said = capsys.readouterr()
    assert "trial 0:" not in said.err
    assert "3/3  trial 2: " in said.err
    assert str(out / "best.yaml") in said.out
    assert rows(out) == rows(whole)
    swapped = tmp_path / "swapped.yaml"
    swapped.write_text(yaml.safe_dump(dict(reversed(SPACE.items())), sort_keys=False))
    assert main([*words(out), f"--space={swapped}"]) == 0, "nothing is left to do"
    assert "trial" not in capsys.readouterr().err
    assert rows(out) == rows(whole)


def test_stopped_by_a_signal_the_same_command_goes_on(words, whole, tmp_path, monkeypatch, capsys):
    out, played = tmp_path / "stopped", []
    iteration = iterations.meta_iteration

    def stop(*args, **settings):
        played.append(1)
        if len(played) == 7:
            signal.raise_signal(signal.SIGTERM)
        return iteration(*args, **settings)

    monkeypatch.setattr(iterations, "meta_iteration", stop)
    assert main(words(out)) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("stopped; the same command goes on")
    assert main(words(out)) == 0
    assert rows(out) == rows(whole)
    assert_same_outcome(out / "trial-0001", whole / "trial-0001")


KILLED = """
import os, signal, sys
from metarl.cli.main import main
from metarl.training import iterations
original, played = iterations.meta_iteration, []
def kill(*args, **settings):
    played.append(1)
    if len(played) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **settings)
iterations.meta_iteration = kill
main(sys.argv[2:])
"""


def test_after_kill_minus_nine_the_same_command_goes_on(words, whole, tmp_path):
    """Killed in the last iteration of the second trial, whose first evaluation is reported."""
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, "8", *words(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [trial.state.name for trial in study_of(out).trials] == ["COMPLETE", "RUNNING"]
    assert main(words(out)) == 0
    assert rows(out) == rows(whole)
    assert_same_outcome(out / "trial-0001", whole / "trial-0001")
    for found, expected in zip(study_of(out).trials, study_of(whole).trials, strict=True):
        assert found.intermediate_values == expected.intermediate_values


def with_good_trials(whole, out):
    """Add five trials that are better than any other at every iteration."""
    shutil.copytree(whole, out)
    study = study_of(out)
    for _ in range(5):
        trial = optuna.create_trial(
            value=-1e-3,
            params=study.trials[0].params,
            distributions=study.trials[0].distributions,
            intermediate_values=dict.fromkeys((2, 4), -1e-3),
        )
        study.add_trial(trial)


def test_a_bad_trial_is_pruned(words, whole, tmp_path, capsys):
    out = tmp_path / "pruned"
    with_good_trials(whole, out)
    assert main(words(out, 9)) == 0
    assert "9/9  trial 8: " in (said := capsys.readouterr()).err
    assert "(pruned at iteration 2)" in said.err
    row = rows(out)[8]
    assert (row["state"], row["note"]) == ("pruned", "pruned at iteration 2")
    run = Run.open(out / "trial-0008")
    assert len(run.metrics()) == run.load().iteration == 2
    trial = study_of(out).trials[8]
    assert trial.state.name == "PRUNED"
    assert trial.value == run.metrics()[1]["validation/return_after"]


KILLED_BEFORE_REPORTING = """
import os, signal, sys
from metarl.cli.main import main
from metarl.training.tuning.study import Pruning
Pruning.on_evaluation = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


def test_a_bad_trial_that_was_killed_before_its_report_is_pruned_all_the_same(
    words, whole, tmp_path
):
    """Its checkpoint is that of the evaluation, which is not made again."""
    out = tmp_path / "pruned"
    with_good_trials(whole, out)
    command = [sys.executable, "-c", KILLED_BEFORE_REPORTING, *words(out, 9)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert Run.open(out / "trial-0008").load().iteration == 2
    assert study_of(out).trials[8].intermediate_values == {}
    assert main(words(out, 9)) == 0
    run = Run.open(out / "trial-0008")
    assert rows(out)[8]["note"] == "pruned at iteration 2"
    assert len(run.metrics()) == 2
    assert study_of(out).trials[8].value == run.metrics()[1]["validation/return_after"]


def test_a_search_keeps_its_settings(words, whole, space, tmp_path, capsys):
    for others, message in (
        (["--num-tasks=3"], "sampling.num_tasks = 2, not 3"),
        (["--pruner=none"], "pruner = median, not none"),
    ):
        assert main(words(whole, 4, *others)) == 2
        said = capsys.readouterr().err
        assert f"{whole}: its search was begun with {message}; choose another folder" in said
    changed = tmp_path / "space.yaml"
    changed.write_text(yaml.safe_dump({**SPACE, KL: {"values": [0.1]}}))
    assert main(words(whole, 4, f"--space={changed}")) == 2
    assert f"begun with space {KL} = " in capsys.readouterr().err
    assert len(rows(whole)) == 3


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RuntimeError("no power"), "FAIL"),
        # Bad values: Optuna's sampler learns from pruned trials, and not from failed ones.
        (NotFinite("no power"), "PRUNED"),
    ],
)
def test_a_trial_that_fails_does_not_end_the_search(
    words, tmp_path, monkeypatch, capsys, error, state
):
    out, played = tmp_path / "failing", []
    iteration = iterations.meta_iteration

    def fail(*args, **settings):
        played.append(1)
        if len(played) == 2:
            raise error
        return iteration(*args, **settings)

    monkeypatch.setattr(iterations, "meta_iteration", fail)
    assert main(words(out, 2)) == 0
    assert [row["state"] for row in rows(out)] == ["failed", "complete"]
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"trial 0: {type(error).__name__}: no power" in last
    assert f"(see {out}/logs/trial-0000.log)" in last
    assert study_of(out).trials[0].state.name == state


def test_values_of_a_complete_trial_are_not_trained_again(words, tmp_path, capsys):
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump({LR: {"values": [0.1]}}))
    out = tmp_path / "out"
    assert main([*words(out, 3), f"--space={space}"]) == 0
    assert [row["note"] for row in rows(out)] == ["", "as trial 0", "as trial 0"]
    assert len({row["value"] for row in rows(out)}) == 1
    assert [path.name for path in sorted(out.glob("trial-*/"))] == ["trial-0000"]
    assert [row["state"] for row in rows(out)] == ["complete"] * 3
    capsys.readouterr()
    assert main([*words(out, 4), f"--space={space}"]) == 0
    assert len(rows(out)) == 4


@pytest.mark.parametrize("cause", ["process", "disk"])
def test_a_trial_that_another_process_or_the_disk_kept_from_its_end_goes_on_later(
    words, tmp_path, monkeypatch, capsys, cause
):
    out = tmp_path / "kept"
    (out / "trial-0000").mkdir(parents=True)
    if cause == "process":
        with training_lock(out / "trial-0000"):
            assert main(words(out, 1)) == 1
    else:
        (out / "logs").mkdir()
        (out / "logs" / "trial-0000.log").symlink_to("/dev/full")
        assert main(words(out, 1)) == 1
        (out / "logs" / "trial-0000.log").unlink()
    why = f"process {os.getpid()} on " if cause == "process" else "No space left on device"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("metarl: error: trial 0: not finished: ")
    assert why in last
    assert study_of(out).trials[0].state.name == "RUNNING"
    assert main(words(out, 1)) == 0
    assert study_of(out).trials[0].state.name == "COMPLETE"


def test_a_config_that_is_changed_meanwhile_changes_no_trial_and_not_the_best_values(
    words, tmp_path, monkeypatch
):
    mine, out, iteration = tmp_path / "mine.yaml", tmp_path / "out", iterations.meta_iteration
    shutil.copy(ROOT / "configs" / "point_nav" / "maml_trpo.yaml", mine)
    before = metarl.load_config(mine)

    def change(*args, **settings):
        mine.write_text(before.replace(seed=7).to_yaml())
        return iteration(*args, **settings)

    monkeypatch.setattr(iterations, "meta_iteration", change)
    argv = [str(mine) if word == "point_nav/maml_trpo" else word for word in words(out, 2)]
    assert main(argv) == 0
    assert metarl.load_config(mine).seed == 7
    configs = [metarl.load_config(out / "best.yaml")]
    configs += [Run.open(out / f"trial-000{number}").config for number in (0, 1)]
    assert [config.seed for config in configs] == [0] * 3


def test_a_damaged_study_is_one_line(words, tmp_path, capsys):
    file = tmp_path / "study.db"
    file.write_bytes(b"nonsense" * 100)
    assert main(words(tmp_path)) == 2
    said = f"metarl: error: {file}: cannot be read (file is not a database); bring back a copy of "
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert error.count("\n") == 1


def test_a_full_disk_is_told_with_the_file_of_the_study(tmp_path):
    """By the system's own limit on the size of files."""
    file, limits = tmp_path / "study.db", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        with open_file(file, optuna.pruners.NopPruner()) as study:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, limits[1]))
            study.set_user_attr("large", "x" * 10_000)

    try:
        with pytest.raises(StorageError, match=rf"^{file}: cannot be written \([^\n]*\)$"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_several_trials_at_a_time_in_processes_of_their_own(words, whole, tmp_path):
    out = tmp_path / "jobs"
    assert main(words(out, 3, "--jobs=2")) == 0
    assert rows(out) == rows(whole), "so few trials do not depend on each other"
    assert all(trial.intermediate_values.keys() == {2, 4} for trial in study_of(out).trials)


def test_hyperband_stops_trials_by_brackets_of_budgets(words, tmp_path):
    out = tmp_path / "out"
    assert main(words(out, 4, "--pruner=hyperband")) == 0
    assert {row["state"] for row in rows(out)} == {"complete", "pruned"}


def test_trials_of_other_amounts_of_experience_are_judged_by_the_same(words, tmp_path):
    space = tmp_path / "space.yaml"
    varied = {"sampling.adaptation_steps": [1, 2], "sampling.num_episodes": [2, 3]}
    space.write_text(yaml.safe_dump({key: {"values": each} for key, each in varied.items()}))
    out = tmp_path / "out"
    given = [word for word in words(out, 4) if not word.startswith(("--space", "--num-episodes"))]
    assert main([*given, f"--space={space}"]) == 0
    runs = [Run.open(folder).config for folder in sorted(out.glob("trial-????"))]
    assert len({(run.sampling.adaptation_steps, run.sampling.num_episodes) for run in runs}) > 1
    amounts = [run.evaluation.amounts(run.sampling) for run in runs]
    assert amounts == [{"tasks": 2, "episodes": 20, "steps": 1}] * len(runs)
    assert metarl.load_config(out / "best.yaml").evaluation.steps is None


@pytest.mark.parametrize(("iterations", "every", "times"), [(10, 1, 10), (15, 2, 8), (39, 4, 10)])
def test_a_trial_has_no_more_evaluations_than_ten(words, tmp_path, iterations, every, times):
    assert main([*words(tmp_path / "out", 1, every=0), f"--iterations={iterations}"]) == 0
    run = Run.open(tmp_path / "out" / "trial-0000")
    assert run.config.evaluation.every == every
    assert sum("validation/return_after" in line for line in run.metrics()) == times


def test_evaluations_are_made_if_the_config_has_none(words, tmp_path):
    assert main(words(tmp_path / "out", 1, every=0)) == 0
    run = Run.open(tmp_path / "out" / "trial-0000")
    assert run.config.evaluation.every == 1
    assert metarl.load_config(tmp_path / "out" / "best.yaml").evaluation.every == 0


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--trials=0"], "--trials: expected from 1 to 100000, got 0"),
        (["--jobs=0"], "--jobs: expected from 1 to 1024, got 0"),
        (["--pruner=medan"], "--pruner: unknown pruner 'medan' (nearest: median)"),
        (["--agent.inner.lr=0.1"], "is also given as a flag; expected one of both"),
        (["--space=nothing.yaml"], "nothing.yaml: not a readable YAML file"),
        (["--num-tasks=0"], "--num-tasks: expected at least 1, got 0"),
    ],
)
def test_mistakes_are_named_before_there_is_a_folder(words, tmp_path, capsys, others, message):
    assert main(words(tmp_path / "out", 2, *others)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_a_mistake(words, capsys):
    assert main(words("/dev/null/x")) == 2
    said = capsys.readouterr().err
    assert said == "metarl: error: /dev/null/x: cannot be written (Not a directory)\n"


def test_a_folder_that_sqlite_cannot_name_is_a_mistake(words, tmp_path, capsys):
    out = tmp_path / "\udcff"
    assert main(words(out)) == 2
    assert "SQLite needs a path in UTF-8" in capsys.readouterr().err


def test_the_folder_of_a_run_is_refused(words, tmp_path, capsys):
    for name in ("config.yaml", "provenance.json"):
        (tmp_path / name).write_text("a run's")
    assert main(words(tmp_path)) == 2
    said = f"--out: {tmp_path} is the folder of a run; expected another one"
    assert capsys.readouterr().err == f"metarl: error: {said}\n"
    assert len([*tmp_path.iterdir()]) == 2


def test_without_optuna_the_extra_is_named(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(words(tmp_path / "out")) == 2
    expected = 'metarl: error: tune: needs the extra `tune`: pip install "metarl-torch[tune]"\n'
    assert capsys.readouterr().err == expected


def test_only_one_process_searches_in_a_folder(words, whole, capsys):
    with training_lock(whole):
        assert main(words(whole, 4)) == 2
    assert f"process {os.getpid()} on " in capsys.readouterr().err


def test_a_trial_that_was_killed_between_two_of_its_values_gets_the_others_all_the_same(tmp_path):
    check_optuna()
    space = {"a": Range(0.0, 1.0), "b": Range(0.0, 1.0), "c": Choices(("x", "y", "z"))}
    found = {}
    for name, cuts in {"whole": {}, "killed": {1: 1, 2: 2}}.items():
        with open_file(tmp_path / name, optuna.pruners.NopPruner()) as study:
            values = []
            for number in range(4):
                if number in cuts:
                    study.sampler = make_sampler(0, number)
                    suggest(open_trial(study, number), dict(list(space.items())[: cuts[number]]))
                values.append(choose(study, number, 0, space))
                study.tell(number, 1.0)
            found[name] = values
    assert found["killed"] == found["whole"]
