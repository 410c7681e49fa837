"""metarl compare: methods with seeds trained, evaluated and reported by one command."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest

from metarl.cli.main import main
from metarl.config_files import load_config
from metarl.core.errors import UserError
from metarl.evaluation.compare import evaluate_run
from metarl.reporting import comparison, style
from metarl.reporting.aggregates import aggregate
from metarl.reporting.comparison import await_all
from metarl.reporting.comparison_plan import plan
from metarl.runs.identity import default_directory
from metarl.runs.lock import training_lock
from metarl.runs.run import Run
from metarl.training import iterations, loop, many_runs
from metarl.training.many_runs import Job, Outcome
from tests.training.test_loop import assert_same_outcome

TINY = ["--iterations=2", "--num-tasks=3", "--num-episodes=2", "--env.horizon=6"]
SIZES = ["--tasks=4", "--episodes=2", "--steps=1"]
METHODS = ["point_nav/maml_trpo", "point_nav/reptile"]
POLICY = ["--agent.policy.hidden=[4]"]


def words(out, *more, configs=METHODS, sizes=SIZES):
    return ["compare", *configs, f"--out={out}", *TINY, *POLICY, *sizes, *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A comparison that was never stopped, two runs at a time."""
    out = tmp_path_factory.mktemp("compare") / "whole"
    assert main(words(out, "--seeds=2", "--jobs=2")) == 0
    return out


def rows(out):
    return list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))


def test_runs_table_and_report_are_there(whole, capsys):
    names = {path.name for path in whole.iterdir() if path.is_dir()}
    runs = {
        f"point_nav-{method}-seed{seed}" for method in ("maml_trpo", "reptile") for seed in (0, 1)
    }
    assert names == {*runs, "logs", "report-point_nav"}
    found = {(row["method"], row["seeds"], row["x"]) for row in rows(whole)}
    seeds = {"maml_trpo": "2", "reptile": "2", "random": "1"}
    assert found == {(method, seeds[method], x) for method in seeds for x in ("0", "1")}
    # The mean over the tasks of all runs of a method is that of the table.
    with (whole / "comparison-returns.csv").open() as file:
        each = [
            row for row in csv.DictReader(file) if (row["method"], row["x"]) == ("reptile", "1")
        ]
    assert [(row["seed"], row["task"]) for row in each] == [
        (str(seed), str(task)) for seed in (0, 1) for task in range(4)
    ]
    (mean,) = (
        float(row["mean"]) for row in rows(whole) if (row["method"], row["x"]) == ("reptile", "1")
    )
    assert np.mean([float(row["return"]) for row in each]) == pytest.approx(mean)
    page = (whole / "report-point_nav" / "report.html").read_text()
    assert "probability of improvement" in page
    lines = (whole / "comparison.md").read_text().splitlines()
    assert lines[4] == "| method | seeds | 0 | 1 |"
    mean, low, high = (float(rows(whole)[1][name]) for name in ("mean", "low", "high"))
    assert f"| {mean:.2f} ({low:.2f} to {high:.2f}) |" in lines[6]  # all returns are below 10
    # It is the mean of the evaluations of the two seeds.
    means = []
    for seed in (0, 1):
        (file,) = (whole / f"point_nav-maml_trpo-seed{seed}" / "evaluation").glob("*.json")
        part = json.loads(file.read_text())["methods"]["maml_trpo"]["parts"][""]
        returns = [episode for task in part["returns"] for episode in task[1]]
        means.append(sum(returns) / len(returns))
    assert mean == pytest.approx(sum(means) / 2)


def test_the_estimate_is_of_the_iterations_that_are_missing_at_the_start(
    whole, tmp_path, monkeypatch
):
    """Two runs are finished, a third one is half done, and the fourth takes as long as two."""
    finished = whole / "point_nav-maml_trpo-seed0"
    half = shutil.copytree(finished, tmp_path / "half")
    places = {finished: 2, whole / "point_nav-maml_trpo-seed1": 2, half: 4, tmp_path / "new": 2}
    jobs = [Job(METHODS[0], {"iterations": many}, folder) for folder, many in places.items()]
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def outcomes():
        nonlocal now
        for job, seconds in zip(jobs, (0.0, 0.0, 10.0, 20.0), strict=True):
            now += seconds
            yield Outcome(job, seconds, None)

    lines = []
    await_all(outcomes(), jobs, lines.append)
    assert [line.partition("  ETA ")[2] for line in lines] == ["", "", "0:00:20", ""]


def test_a_second_process_does_not_compare_in_a_folder_at_the_same_time(tmp_path, capsys):
    with training_lock(tmp_path):
        assert main(words(tmp_path, "--seeds=1")) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}: process {os.getpid()} on " in error
    assert " is training here; wait for it" in error
    assert not list(tmp_path.glob("*/config.yaml"))


def test_aggregates_are_there_as_table_and_figures(whole):
    text = (whole / "comparison.md").read_text()
    assert "2D navigation: 0 is the untrained agent before adaptation (" in text
    head, _, *table = text[text.index("| method | seeds | IQM |") :].splitlines()
    assert head == "| method | seeds | IQM | mean | optimality gap |"
    assert {line.split(" | ")[0] for line in table if line.startswith("| ")} == {
        "| MAML-TRPO",
        "| Reptile",
        "| Random",
    }
    figures = [path.name for path in whole.glob("aggregate*")]
    stems = ("aggregate", "aggregate-profiles", "aggregate-improvement")
    assert sorted(figures) == sorted(f"{stem}.{end}" for stem in stems for end in style.FORMATS)
    numbers = list(csv.DictReader((whole / "aggregate.csv").read_text().splitlines()))
    iqm = {row["method"]: float(row["value"]) for row in numbers if row["statistic"] == "IQM"}
    assert set(iqm) == {"maml_trpo", "reptile", "random"}


def test_one_page_has_all_tables_and_the_way_to_the_reports(whole, capsys):
    page = (whole / "comparison.html").read_text()
    assert "<h1>Comparison: 2D navigation</h1>" in page
    (link,) = re.findall('href="([^"]*report.html)"', page)
    assert (whole / link).is_file()
    mean = float(rows(whole)[1]["mean"])
    assert f'<td class="main">{mean:.3g}<small>' in page
    for stem in ("aggregate", "aggregate-profiles", "aggregate-improvement"):
        assert f"Files: {stem}.png" in page
    assert page.count("<svg") == 3
    table = (whole / "comparison.md").read_text().partition("| method | seeds | IQM |")[2]
    (row,) = [line for line in table.splitlines() if line.startswith("| Reptile |")]
    assert "".join(f"<td>{cell.strip()}</td>" for cell in row.split("|")[2:-1]) in page


def test_all_trainings_have_one_budget_of_env_steps(tmp_path):
    """An oracle, which does not adapt, plays half as many episodes in an iteration."""
    names = ["point_nav/maml_trpo", "point_nav/oracle"]
    settings = {"num_tasks": 3, "num_episodes": 2, "env.horizon": 6}
    planned = plan(names, 1, tmp_path, settings, env_steps=200)["point_nav"]
    assert [job.config.iterations for job in planned] == [200 // 72, 200 // 36]
    default = plan(names, 1, tmp_path, settings)["point_nav"]
    assert [job.config.iterations for job in default] == [
        load_config(name).iterations for name in names
    ]


def test_schedules_last_as_long_as_the_budget_of_env_steps(tmp_path):
    """Those that last as long as the config's training, unless they are given."""
    settings = {"num_tasks": 3, "env.horizon": 6}
    (job,) = plan(["gridworld/varibad"], 1, tmp_path, settings, env_steps=1000)["gridworld"]
    agent, number = job.config.agent, job.config.iterations
    assert (number, agent.update.lr_anneal, agent.model.lr_anneal) == (13, 13, 13)
    given = {**settings, "agent.update.lr_anneal": 7}
    (job,) = plan(["gridworld/varibad"], 1, tmp_path, given, env_steps=1000)["gridworld"]
    assert (job.config.agent.update.lr_anneal, job.config.agent.model.lr_anneal) == (7, 13)
    assert job.config.agent.update.entropy_anneal == 0


def test_tasks_of_ones_own_are_measured_too(tmp_path):
    """Given as whole numbers too, and by the split that results on them have."""
    overrides = {"iterations": 1, "num_tasks": 2, "num_episodes": 1, "env.horizon": 6}
    own = {"tasks": [[0, 0.5], [0.5, 0]], "episodes": 2, "steps": 1}
    settings = {"seeds": 1, "overrides": {**overrides, "agent.policy.hidden": [4]}}
    for split in ({}, {"split": "custom"}):
        evaluation = {**own, **split}
        found = comparison.compare(METHODS[:1], tmp_path, evaluation=evaluation, **settings)
        section = found.sections["point_nav"]
        assert (section.split, section.num_tasks) == ("custom", 2)
        assert not found.failed
    assert len([*tmp_path.glob("*/evaluation/*.json")]) == 1
    assert "tasks of your own" in (tmp_path / "comparison.html").read_text()


def test_repeated_it_repeats_no_run_and_no_evaluation(whole, tmp_path, monkeypatch, capsys):
    out = shutil.copytree(whole, tmp_path / "again")
    before = rows(out)

    def must_not_be_called(*args, **settings):
        raise AssertionError

    monkeypatch.setattr(comparison, "evaluate_run", must_not_be_called)
    monkeypatch.setattr(loop.Trainer, "run", must_not_be_called)
    monkeypatch.setattr(many_runs, "start_or_resume", lambda config, folder, **_: Run.open(folder))
    assert main(words(out, "--seeds=2")) == 0
    assert rows(out) == before
    assert "4/4  point_nav-reptile-seed1 trained and evaluated" in capsys.readouterr().err


def test_longer_runs_than_asked_for_are_no_part_of_a_comparison(whole, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "longer")
    shorter = [word.replace("=2", "=1") if "iter" in word else word for word in words(out)]
    assert main([*shorter, "--seeds=2"]) == 2
    error = capsys.readouterr().err
    assert "point_nav-maml_trpo-seed0: has 2 iterations, expected at most 1; name another" in error
    assert rows(out) == rows(whole)


def test_runs_with_other_settings_are_refused_before_anything_is_trained(whole, tmp_path, capsys):
    """The third seed is new; the comparison that was finished stays."""
    out = shutil.copytree(whole, tmp_path / "other")
    assert main(words(out, "--seeds=3", "--agent.inner.lr=0.3")) == 2
    error = capsys.readouterr().err
    folder = out / "point_nav-maml_trpo-seed0"
    lr = Run.open(folder).config.agent.inner.lr
    said = f"{folder}: was begun with agent.inner.lr = {lr}, not 0.3; choose another folder with"
    repeated = f"or repeat --agent.inner.lr {lr}"
    assert error == f"metarl: error: {said} --out, {repeated}\n"
    assert rows(out) == rows(whole)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


def test_the_folders_of_a_file_are_named_by_it_whatever_it_ends_in(tmp_path):
    for name in ("mine.yml", "other"):
        (tmp_path / name).write_text("env: {family: point_nav}\n")
        (job,) = plan([str(tmp_path / name)], 1, tmp_path, {})["point_nav"]
        assert job.folder == tmp_path / f"{name.partition('.')[0]}-seed0"


def test_a_method_named_by_hand_names_the_folders_too(tmp_path):
    """As in `metarl train`: two settings of one config are compared in one folder."""
    named = {"method": "small", "agent.policy.hidden": [4]}
    (job,) = plan(["point_nav/maml_trpo"], 1, tmp_path, named)["point_nav"]
    assert job.folder == tmp_path / "point_nav-small-seed0"
    assert job.folder.name == default_directory(job.config).name


def test_the_folders_of_a_comparison_can_be_named_by_a_pattern(whole):
    """What a run printed lies elsewhere: `point_nav-reptile-seed*` names runs alone."""
    assert [Run.open(path).config.seed for path in sorted(whole.glob("*reptile-seed*"))] == [0, 1]
    log = whole / "logs" / "point_nav-reptile-seed0.log"
    with pytest.raises(UserError, match=re.escape(f"{log}: is a file; expected a run's folder")):
        Run.open(log)


def test_a_damaged_result_is_measured_again(whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "damaged")
    (file,) = (out / "point_nav-reptile-seed1" / "evaluation").glob("*.json")
    before = file.read_text()
    file.write_text(before[:100])
    assert main(words(out, "--seeds=2")) == 0
    assert json.loads(file.read_text())["methods"] == json.loads(before)["methods"]
    assert rows(out) == rows(whole)


def test_another_result_that_is_damaged_is_left_out_with_a_warning(whole, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "other")
    file = out / "point_nav-reptile-seed0" / "evaluation" / "k_step-test-mine.json"
    file.write_text('{"methods": {}}')
    assert main(words(out, "--seeds=2")) == 0
    assert rows(out) == rows(whole)
    said = capsys.readouterr().err
    assert said.count(f"metarl: warning: {file}: ") == 1
    assert "; left out\n" in said
    assert main(["report", str(file.parent.parent)]) == 2  # for which all results are needed


def test_figures_of_an_earlier_comparison_are_not_left(whole, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "later")
    (out / "aggregate-mine.png").write_text("not of a comparison")
    assert len([*out.glob("aggregate*")]) == 3 * len(style.FORMATS) + 1
    assert main(words(out, "--seeds=2", "--protocol=robust")) == 0
    assert "No aggregates over families: there are some of" in capsys.readouterr().out
    assert [path.name for path in out.glob("aggregate*")] == ["aggregate-mine.png"]


def test_a_result_that_was_measured_otherwise_is_measured_again(whole, tmp_path):
    """It has the name of the one that is wanted, as a file of --out may have."""
    out = shutil.copytree(whole, tmp_path / "otherwise")
    (file,) = (out / "point_nav-reptile-seed1" / "evaluation").glob("*.json")
    before = json.loads(file.read_text())
    file.write_text(json.dumps({**before, "deterministic": True}))
    assert main(words(out, "--seeds=2")) == 0
    assert json.loads(file.read_text())["methods"] == before["methods"]
    assert json.loads(file.read_text())["deterministic"] is False


def test_another_baseline_is_not_the_untrained_agent(whole, tmp_path):
    """The first config's seeds are measured before they have learned anything too."""
    out = shutil.copytree(whole, tmp_path / "baseline")
    (file,) = (out / "point_nav-maml_trpo-seed0" / "evaluation").glob("*.json")
    before = json.loads(file.read_text())
    methods = {"other" if name == "random" else name: it for name, it in before["methods"].items()}
    file.write_text(json.dumps({**before, "methods": methods}))
    assert main(words(out, "--seeds=2")) == 0
    assert "random" in json.loads(file.read_text())["methods"]
    assert rows(out) == rows(whole)


def test_an_evaluation_that_cannot_be_put_together_costs_no_comparison(whole, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "mine")
    for seed, tasks in enumerate((1, 2)):
        folder = out / f"point_nav-reptile-seed{seed}"
        file = folder / "evaluation" / "k_step-test-mine.json"
        evaluate_run(folder, tasks=tasks, episodes=1, steps=1, out=file)
    assert main(words(out, "--seeds=2")) == 0
    said = "metarl: warning: left out of the report: k_step-test-mine: point_nav-reptile-seed0 was"
    assert said in capsys.readouterr().err
    assert rows(out) == rows(whole)


def test_where_all_runs_fail_the_comparison_before_stays(whole, tmp_path, monkeypatch, capsys):
    out = shutil.copytree(whole, tmp_path / "kept")

    def fail(job, **settings):
        raise RuntimeError("no power")

    monkeypatch.setattr(comparison, "evaluate", fail)
    assert main(words(out, "--seeds=2")) == 1
    assert rows(out) == rows(whole)
    said = capsys.readouterr()
    assert "No aggregates" not in said.out
    assert said.err.count("no power") == 8  # in the progress, and as errors


def test_further_seeds_and_methods_join_what_is_there(whole, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "more")
    configs = [*METHODS, "point_nav/fomaml"]
    assert main(words(out, "--seeds=2", configs=configs)) == 0
    assert {row["method"] for row in rows(out)} == {"maml_trpo", "reptile", "fomaml", "random"}
    kept = [row for row in rows(out) if row["method"] in ("maml_trpo", "random")]
    assert kept == [row for row in rows(whole) if row["method"] in ("maml_trpo", "random")]


def test_a_method_that_is_left_out_is_named_with_the_aggregates(
    whole, tmp_path, monkeypatch, capsys
):
    def without_one(results, styles):
        return replace(aggregate(results, styles), left_out="Left out: Reptile.")

    monkeypatch.setattr(comparison, "aggregate", without_one)
    out = shutil.copytree(whole, tmp_path / "fewer")
    assert main(words(out, "--seeds=2")) == 0
    assert "\nLeft out: Reptile.\n" in capsys.readouterr().out


def test_stopped_by_a_signal_the_same_command_goes_on(whole, tmp_path, monkeypatch, capsys):
    """In the first iteration of the second run; the result is that of the whole comparison."""
    out, trained = tmp_path / "stopped", []
    iteration = iterations.meta_iteration

    def stop(*args, **settings):
        trained.append(1)
        if len(trained) == 3:
            signal.raise_signal(signal.SIGTERM)
        return iteration(*args, **settings)

    monkeypatch.setattr(iterations, "meta_iteration", stop)
    assert main(words(out, "--seeds=2")) == 130
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == "metarl: error: stopped; the same command goes on"
    assert not (out / "comparison.csv").exists()
    assert not (out / "point_nav-maml_trpo-seed1").exists()
    assert main(words(out, "--seeds=2")) == 0
    assert rows(out) == rows(whole)
    for seed in (0, 1):
        name = f"point_nav-reptile-seed{seed}"
        assert_same_outcome(out / name, whole / name)


def test_a_run_that_fails_does_not_take_the_others_with_it(whole, tmp_path, monkeypatch, capsys):
    out, start = tmp_path / "failing", many_runs.start_or_resume

    def fail(config, folder, **settings):
        if config.method == "reptile" and config.seed == 1:
            raise RuntimeError("no power")
        return start(config, folder, **settings)

    monkeypatch.setattr(many_runs, "start_or_resume", fail)
    assert main(words(out, "--seeds=2")) == 1
    said = capsys.readouterr()
    assert "point_nav-reptile-seed1: RuntimeError: no power (see " in said.err.splitlines()[-1]
    assert "no power" in (out / "logs" / "point_nav-reptile-seed1.log").read_text()
    assert {(row["method"], row["seeds"]) for row in rows(out)} == {
        ("maml_trpo", "2"),
        ("reptile", "1"),
        ("random", "1"),
    }
    missing = "Missing: point_nav-reptile-seed1, which failed: RuntimeError: no power"
    for name in ("comparison.md", "comparison.html"):
        assert (out / name).read_text().count(missing) == 1
    assert "Missing" not in (whole / "comparison.md").read_text()


def test_families_have_a_report_and_a_part_of_the_table_each(tmp_path, capsys):
    out = tmp_path / "families"
    configs = ["point_nav/reptile", "tabular_mdp/maml_trpo"]
    settings = ["--seeds=1", "--agent.policy.hidden=[4]"]
    assert main(words(out, *settings, configs=configs)) == 0
    assert {row["family"] for row in rows(out)} == {"point_nav", "tabular_mdp"}
    assert (out / "report-tabular_mdp" / "report.html").exists()
    said = capsys.readouterr().out
    assert "point_nav: " in said
    assert "tabular_mdp: " in said
    assert "No aggregates over families: " in said  # no method is in both


@pytest.mark.parametrize(
    ("configs", "more", "said"),
    [
        (["point_nav/maml_trp"], [], "no such config (nearest: point_nav/maml_trpo)"),
        (["point_nav/reptile"] * 2, [], "point_nav/reptile: given twice"),
        (METHODS, ["--seeds=0"], "--seeds: expected from 1 to 1000, got 0"),
        (METHODS, ["--jobs=0"], "--jobs: expected at least 1, got 0"),
        (METHODS, ["--seed=3"], "--seed: expected --seeds"),
        (METHODS, ["--protocol=k_stop"], "nearest: k_step"),
        (METHODS, ["--agent.inner.lrr=3"], "--agent.inner.lrr"),
        (METHODS, ["--tasks=0"], "tasks: expected at least 1"),
        (METHODS, ["--split=tset"], "unknown split"),
        (METHODS, ["--env-steps=5000"], "--iterations: expected it or --env-steps"),
        (METHODS, ["--steps=2000"], "--steps: expected between 0 and 1000, got 2000"),
        (METHODS, ["--experience=1"], "--experience: has no influence on the protocol k_step"),
        (METHODS, ["--protocol=continual", "--tasks=7"], "--tasks: expected whole sequences of 5"),
        (METHODS, ["--protocol=ood", "--split=ood"], "--split: expected train, validation or test"),
        (
            METHODS,
            ["--agent.policy.hidden=[4096, 4096]"],
            f"{METHODS[0]}: agent.policy.hidden: expected layers of at most 10,000,000 weights",
        ),
        (METHODS, ["--device=cuda:99"], f"{METHODS[0]}: device: cuda:99 is not available here"),
        (["half_cheetah_dir/demo"], ["--protocol=drift"], "has a finite number of tasks"),
        (["half_cheetah_dir/demo"], ["--protocol=ood"], "half_cheetah_dir has no split 'ood'"),
    ],
)
def test_bad_input_is_one_line_before_any_training(tmp_path, capsys, configs, more, said):
    out = tmp_path / "out"
    assert main(["compare", *configs, f"--out={out}", *TINY, *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_folder_that_cannot_be_made_is_one_line_before_any_training(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["compare", *METHODS, f"--out={tmp_path / 'file'}", *TINY, "--seeds=3"]) == 2
    error = capsys.readouterr().err
    assert error == f"metarl: error: {tmp_path / 'file'}: cannot be written (File exists)\n"


def test_the_folder_of_a_run_is_refused(tmp_path, capsys):
    for name in ("config.yaml", "provenance.json"):
        (tmp_path / name).write_text("a run's")
    assert main(["compare", *METHODS, f"--out={tmp_path}", *TINY]) == 2
    said = f"--out: {tmp_path} is the folder of a run; expected another one"
    assert capsys.readouterr().err == f"metarl: error: {said}\n"
    assert len([*tmp_path.iterdir()]) == 2


def test_a_budget_below_one_iteration_is_refused(tmp_path, capsys):
    sizes = [word for word in TINY if not word.startswith("--iterations")]
    assert main(["compare", *METHODS, f"--out={tmp_path / 'out'}", *sizes, "--env-steps=71"]) == 2
    said = "--env-steps: expected at least 72, one iteration of point_nav/maml_trpo, got 71"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_configs_that_cannot_be_compared_are_refused(tmp_path, capsys):
    mine = tmp_path / "mine.yaml"
    mine.write_text("env: {family: point_nav, goal_range: 2.0}\n")
    assert main(["compare", METHODS[0], str(mine), f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert (
        f"mine.yaml: its tasks are not those of {METHODS[0]}: env.goal_range is 2.0, not 0.5"
        in error
    )
    # With the same tasks by a flag; but then the settings may be those of another one.
    shutil.copy("configs/point_nav/reptile.yaml", mine)
    words = ["compare", "point_nav/reptile", str(mine), "--method=x", f"--out={tmp_path / 'out'}"]
    assert main(words) == 2
    assert "has the settings of point_nav/reptile" in capsys.readouterr().err
    other = tmp_path / "folder" / "mine.yaml"
    other.parent.mkdir()
    shutil.copy("configs/point_nav/maml_trpo.yaml", other)
    assert main(["compare", str(mine), str(other), f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert "would have the folders of" in error
    assert error.endswith("mine-seed...; expected other names of files\n")
    assert main(["compare", *METHODS, "--method=x", f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert error.endswith("point_nav-x-seed...; expected --method for one config of a family\n")
    assert not (tmp_path / "out").exists()
