"""Evaluation while training: what it measures, and that it changes nothing else."""

import csv
import json
import re

import numpy as np
import pytest

import metarl
from metarl.core.errors import UserError
from metarl.envs import PointNav
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.loaded import load
from metarl.reporting.report import write_report
from metarl.rollout.failures import EpisodeDiverged
from metarl.runs.identity import group_name
from metarl.runs.result import Evaluation
from metarl.runs.run import Run
from metarl.training.loop import resume, train
from metarl.training.tracker import in_section
from metarl.training.validation import comparable_return
from tests.faulty import FaultyNav
from tests.training.test_loop import TINY, assert_same_outcome, killed_after_first_iteration, tiny

EVALUATED = {"evaluation.every": 2, "evaluation.tasks": 3, "evaluation.episodes": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished tiny run with evaluations after iterations 2, 4 and 5, the last one."""
    directory = tmp_path_factory.mktemp("runs") / "finished"
    return train(tiny(**EVALUATED, iterations=5, checkpoint_every=1), directory)


class FewGoals(PointNav):
    """Has five tasks of each set, as Meta-World's ML1 has 50."""

    name = "few_goals"

    def tasks(self, split, num_tasks):
        if num_tasks > 5:
            raise ValueError(f"num_tasks: there are 5 {split} tasks, got {num_tasks}")
        return super().tasks(split, num_tasks)


@pytest.mark.parametrize(
    ("key", "split"), [("evaluation.tasks", "validation"), ("sampling.train_tasks", "train")]
)
def test_more_tasks_than_there_are_are_refused_before_there_is_a_run(tmp_path, key, split):
    """The run would keep the number, and could never go on."""
    settings = {"evaluation.every": 1, "evaluation.tasks": 5, "sampling.train_tasks": 5, key: 6}
    config = metarl.Config(env=FewGoals(horizon=6))
    with pytest.raises(UserError, match=f"^(--)?{key}: there are 5 {split} tasks, got 6$"):
        train(metarl.load_config(config, **settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def validation(line):
    return {name: value for name, value in line.items() if name.startswith("validation/")}


def test_it_is_the_evaluation_of_the_checkpoint_on_validation_tasks(finished):
    lines = finished.metrics()
    assert [bool(validation(line)) for line in lines] == [False, True, False, True, True]
    for number in (2, 4, 5):
        agent = load(finished.directory, str(number))
        result = evaluate(
            agent, finished.config.env, split="validation", tasks=3, episodes=2, steps=1
        )
        assert validation(lines[number - 1]) == {
            "validation/return_before": result.mean[0],
            "validation/return_after": result.mean[1],
        }
    timings = finished.timings()
    assert ["seconds/validation" in line for line in timings] == [False, True, False, True, True]


def test_best_is_the_checkpoint_with_the_highest_return_on_validation_tasks(finished):
    after = [line.get("validation/return_after", -np.inf) for line in finished.metrics()]
    best = finished.load("best")
    assert best.iteration == 1 + int(np.argmax(after))
    assert best.best_return == max(after)


def test_best_is_kept_between_checkpoints_too(tmp_path):
    """Every iteration is evaluated, and only the last one is a checkpoint otherwise."""
    settings = {**EVALUATED, "evaluation.every": 1, "iterations": 4, "checkpoint_every": 4}
    config = tiny(**settings, seed=5)
    run = train(config, tmp_path / "run")
    after = [line["validation/return_after"] for line in run.metrics()]
    assert int(np.argmax(after)) < 3, "chosen so that it is not the last one"
    assert run.load("best").iteration == 1 + int(np.argmax(after))
    assert {path.name for path in run.checkpoints.iterdir()} == {
        *("best.pt", "latest.pt", "iteration-000004.pt")
    }


KINDS = {
    "maml_trpo": {"agent.policy.hidden": [8]},
    "rl2": {"agent.network.size": 8},
    "varibad": {"agent.policy.hidden": [8]},
    "pearl": {"agent.update.context": 8, "agent.update.batch": 8},
}


@pytest.mark.parametrize("name", KINDS)
def test_nothing_else_changes_on_any_number_of_threads_and_after_a_break(tmp_path, name):
    """For every kind of agent: the other metrics and the learned state are those without."""
    values = {key: value for key, value in TINY.items() if key != "agent.policy.hidden"}
    values |= {"iterations": 2, "checkpoint_every": 1, **KINDS[name]}
    config = metarl.load_config(f"point_nav/{name}", **values)
    plain = train(config, tmp_path / "plain")
    section = config.evaluation.replace(every=1, tasks=3)
    one, two = (
        train(config.replace(evaluation=section, threads=n), tmp_path / str(n)) for n in (1, 2)
    )
    assert_same_outcome(one.directory, two.directory)
    for line, other in zip(one.metrics(), plain.metrics(), strict=True):
        assert len(validation(line)) == 2
        assert {k: v for k, v in line.items() if not k.startswith("validation/")} == other
    states = [run.load().agent for run in (one, plain)]
    assert all(np.array_equal(value, states[1][key]) for key, value in states[0].items())
    killed_after_first_iteration(one.directory, tmp_path / "killed")
    resume(tmp_path / "killed")
    assert_same_outcome(tmp_path / "killed", one.directory)


def test_steps_and_episodes_are_those_of_training_by_default():
    config = tiny(inner_steps=2, **{"evaluation.every": 5})
    amounts = config.evaluation.amounts(config.sampling)
    assert amounts == {"tasks": 20, "episodes": 4, "steps": 2}


def test_the_progress_line_and_the_names_in_wandb(tmp_path, capsys):
    run = train(tiny(**EVALUATED, iterations=2), tmp_path / "run")
    first, second = re.findall(r"^iteration.*$", capsys.readouterr().out, re.M)
    line = run.metrics()[1]
    before, after = (line[f"validation/return_{when}"] for when in ("before", "after"))
    assert "validation" not in first
    assert f", validation {before:.1f} -> {after:.1f}  " in second
    assert in_section("validation/return_after") == "validation/return_after"


def test_the_learning_curves_show_it_and_the_diagnostics_do_not(finished, tmp_path):
    out = tmp_path / "report"
    write_report([finished.directory], out)
    assert "return after adaptation on validation tasks" in (out / "report.html").read_text()
    with (out / "learning.csv").open(newline="") as file:
        curve = [row for row in csv.DictReader(file) if row["adaptation"] == "validation"]
    lines = finished.metrics()
    for row, line in ((curve[0], lines[1]), (curve[-1], lines[-1])):  # from the first one on
        steps = float(row["env steps"])
        assert steps == pytest.approx(line["env_steps"])
        assert float(row["return"]) == pytest.approx(line["validation/return_after"], rel=1e-5)
    assert "validation" not in (out / "diagnostics.csv").read_text()


def test_failed_episodes_are_left_out_or_stop_the_training(tmp_path, monkeypatch):
    """As everywhere; if no validation task is left, the metrics are null and nothing is best."""

    def fail(agent, family, **settings):
        return evaluate(agent, FaultyNav(horizon=10, share=1.0), **settings)

    monkeypatch.setattr(metarl.training.validation, "evaluate", fail)
    settings = {**EVALUATED, "iterations": 2, "checkpoint_every": 1}
    run = train(tiny(**settings, on_failure="drop_episode"), tmp_path / "dropped")
    line = run.metrics()[1]
    assert set(validation(line).values()) == {None}
    assert line["dropped_episodes"] == 0
    assert not (run.checkpoints / "best.pt").exists()
    assert {each["iteration"] for each in run.failures()} == {2}
    with pytest.raises(EpisodeDiverged):
        train(tiny(**settings), tmp_path / "stopped")
    stopped = Run.open(tmp_path / "stopped")
    assert stopped.load().iteration == 1
    assert len(stopped.metrics()) == 1


def test_runs_with_and_without_evaluations_are_seeds_of_one_experiment():
    assert group_name(tiny(**EVALUATED)) == group_name(tiny())


def test_a_run_keeps_its_evaluations(finished):
    with pytest.raises(UserError, match=r"--evaluation\.every: .* was begun with 2, which it k"):
        resume(finished.directory, iterations=9, **{"evaluation.every": 3})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"evaluation.every": -1}, r"evaluation\.every: expected at least 0, got -1"),
        ({"evaluation.evry": 1}, r"evaluation\.evry: unknown key \(nearest: every\)"),
        ({"evaluation.tasks": 0}, r"evaluation\.tasks: expected at least 1, got 0"),
        (
            {"evaluation.every": 1, "evaluation.tasks": 10**8},
            r"evaluation\.tasks: expected tasks, episodes and horizon that make at most 1,000,000,",
        ),
    ],
)
def test_wrong_settings_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        tiny(**values)


def test_a_config_from_before_has_no_evaluations(tmp_path):
    run = Run.create(tiny(), tmp_path / "run")
    text = (tmp_path / "run" / "config.yaml").read_text()
    before, _, after = text.partition("evaluation:\n")
    assert after
    rest = re.sub(r"^(  .*\n)+", "", after)
    (tmp_path / "run" / "config.yaml").write_text(before + rest)
    assert Run.open(tmp_path / "run").config == run.config
    assert run.config.evaluation.every == 0
    assert json.loads(json.dumps(run.config.to_dict()))["evaluation"]["every"] == 0


def test_what_has_lost_a_task_is_never_best(tmp_path, monkeypatch):
    """The second evaluation loses the hardest task, so that its mean is higher."""
    returns = np.array([[-1.0, -1.0], [-2.0, -2.0], [-30.0, -30.0]])[..., None]

    losses = iter([False, True])

    def measured(agent, family, **settings):
        found = returns + 0.0
        found[2] = np.nan if next(losses) else found[2]
        tasks = family.tasks("validation", 3)
        return Evaluation(family.name, "validation", "hash", tasks, found, failures=())

    monkeypatch.setattr(metarl.training.validation, "evaluate", measured)
    settings = {"evaluation.every": 1, "evaluation.tasks": 3, "iterations": 2}
    run = train(tiny(**settings, on_failure="drop_episode"), tmp_path / "run")
    first, second = map(validation, run.metrics())
    assert first == {"validation/return_before": -11.0, "validation/return_after": -11.0}
    assert second == {
        "validation/return_before": -1.5,
        "validation/return_after": -1.5,
        "validation/lost_tasks": 1,
    }
    assert (run.load("best").iteration, run.load("best").best_return) == (1, -11.0)
    assert [comparable_return(each) for each in run.metrics()] == [-11.0, None]
