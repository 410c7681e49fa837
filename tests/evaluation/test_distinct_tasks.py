"""Results on tasks that are there repeatedly: each counts once."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy import stats

import metarl
from metarl.cli.main import main
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.evaluate import evaluate
from metarl.reporting.evaluation import evaluation_title
from metarl.reporting.figures import figure_title
from metarl.reporting.pooling import pooled_interval
from metarl.runs.result import Evaluation
from metarl.training.loop import train

SMALL = {
    "iterations": 1,
    "num_tasks": 2,
    "num_episodes": 2,
    "env.horizon": 5,
    "agent.policy.hidden": [8],
    "tracking.mode": "disabled",
}
FORWARD, BACKWARD = [1.0], [-1.0]


def result(by_task, tasks, **fields) -> Evaluation:
    """Returns before and after adaptation by task, (B, 2), one episode each."""
    returns = np.array(by_task)[:, :, None]
    return Evaluation("family", "test", "hash", np.array(tasks), returns, **fields)


UNEVEN = result(
    [[0.0, 10.0], [0.0, -1.0], [0.0, 20.0], [0.0, -3.0], [0.0, 30.0]],
    [FORWARD, BACKWARD, FORWARD, BACKWARD, FORWARD],
    num_all_tasks=2,
)


def test_every_distinct_task_counts_once():
    """Forward goes from 0 to 10, 20 and 30, backward to -1 and -3: 20 and -2 on the mean."""
    assert UNEVEN.scores.tolist() == [[0.0, 20.0], [0.0, -2.0]]
    assert UNEVEN.mean.tolist() == [0.0, 9.0]
    assert UNEVEN.fraction_worse.tolist() == [0.0, 0.5]
    assert (UNEVEN.num_distinct, UNEVEN.has_all_tasks) == (2, True)


def test_all_tasks_there_are_vary_by_their_repetitions():
    """As in Welch's test: half the interval of the difference of the two tasks."""
    forward, backward = [10.0, 20.0, 30.0], [-1.0, -3.0]
    welch = stats.ttest_ind(forward, backward, equal_var=False).confidence_interval(0.95)
    low, high = UNEVEN.interval[1]
    assert (low + high) / 2 == pytest.approx(9.0)
    assert high - low == pytest.approx((welch.high - welch.low) / 2)


def test_tasks_that_are_drawn_vary_among_each_other():
    """Three of infinitely many tasks, one of them twice."""
    drawn = result([[0.0, 1.0], [0.0, 2.0], [0.0, 4.0], [0.0, 6.0]], [[0.1], [0.2], [0.3], [0.3]])
    assert drawn.scores[:, 1].tolist() == [1.0, 2.0, 5.0]
    expected = stats.t.interval(0.95, 2, 8 / 3, stats.sem([1.0, 2.0, 5.0]))
    assert drawn.interval[1] == pytest.approx(expected)


@pytest.mark.parametrize(
    "alone",
    [
        result([[1.0, 2.0]], [FORWARD]),
        result([[1.0, 2.0]], [FORWARD], num_all_tasks=2),
        result([[1.0, 2.0], [3.0, 4.0]], [FORWARD, BACKWARD], num_all_tasks=2),
    ],
    ids=["one task", "one of two tasks", "both tasks once"],
)
def test_where_nothing_varies_there_is_no_interval(alone):
    assert np.isnan(alone.interval).all()
    content = json.loads(json.dumps(alone.to_dict(), allow_nan=False))
    assert content["interval"] == [[None, None], [None, None]]
    assert np.isnan(Evaluation.from_dict(content).interval).all()


def test_seeds_on_all_tasks_vary_by_seed_alone():
    seeds = [
        result([[0.0, 100.0 + i], [0.0, -100.0 + 2 * i]], [FORWARD, BACKWARD], num_all_tasks=2)
        for i in (0, 1, 5)
    ]
    expected = stats.t.interval(0.95, 2, 3.0, stats.sem([0.0, 1.5, 7.5]))
    assert pooled_interval(seeds)[1] == pytest.approx(expected)


def test_an_earlier_file_tells_a_finite_distribution_by_its_repetitions():
    content = UNEVEN.to_dict()
    del content["num_all_tasks"]
    assert Evaluation.from_dict(content).num_all_tasks == 2
    content |= {"tasks": [[1.0], [2.0], [3.0], [4.0], [5.0]]}
    assert Evaluation.from_dict(content).num_all_tasks is None
    with pytest.raises(ValueError, match="num_all_tasks: expected a whole number"):
        Evaluation.from_dict(content | {"num_all_tasks": "two"})


@pytest.mark.parametrize("protocol", ["k_step", "few_episode", "continual"])
def test_protocols_know_how_many_tasks_there_are(tmp_path, protocol):
    config = metarl.load_config("half_cheetah_dir/maml_trpo", **SMALL)
    run = train(config, tmp_path / "run")
    results, _ = evaluate_run(run.directory, protocol=protocol, tasks=5, episodes=2, steps=1)
    for each in results.values():
        assert (each.num_distinct, each.num_all_tasks) == (2, 2)
        assert each.mean == pytest.approx(
            (each.by_task[[0, 2, 4]].mean(axis=0) + each.by_task[[1, 3]].mean(axis=0)) / 2
        )


def test_an_evaluation_says_how_many_tasks_are_distinct(tmp_path, capsys):
    run = train(metarl.load_config("half_cheetah_dir/maml_trpo", **SMALL), tmp_path / "run")
    capsys.readouterr()
    flags = ["--episodes", "2", "--steps", "1", "--tasks"]
    assert main(["evaluate", str(run.directory), *flags, "6"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(
        r"half_cheetah_dir: 6 test tasks \(2 distinct\), hash \w+, 2 episodes each; these are all "
        "tasks of the distribution, so the tasks of training too",
        shown,
    )
    assert main(["evaluate", str(run.directory), *flags, "1"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ ")]
    assert all(" none " in line for line in rows[-2:])


def test_an_infinite_distribution_is_not_said_to_be_trained_on():
    config = metarl.load_config("point_nav/maml_trpo", **SMALL)
    result = evaluate(config.make_agent(), config.env, tasks=3, episodes=2, steps=1)
    assert (result.num_distinct, result.num_all_tasks) == (3, None)
    assert evaluation_title({"maml_trpo": result}).endswith("2 episodes each")


def test_amounts_that_differ_are_all_in_the_title():
    config = metarl.load_config("point_nav/maml_trpo", **SMALL)
    agent = config.make_agent()
    one, more, other = (
        evaluate(agent, config.env, tasks=3, episodes=episodes, steps=1, split=split)
        for episodes, split in ((2, "test"), (5, "test"), (1, "ood"))
    )
    text = evaluation_title({"maml_trpo": one, "rl2": more})
    assert text == f"point_nav: 3 test tasks, hash {one.task_hash}, 2 or 5 episodes each"
    text = evaluation_title({"test": one, "ood": other})
    tasks = f"3 test tasks, hash {one.task_hash} and 3 ood tasks, hash {other.task_hash}"
    assert text == f"point_nav: {tasks}, 1 or 2 episodes each"
    title = figure_title({"maml_trpo": [one], "rl2": [more], "ood": [other]})
    expected = "3 test tasks and 3 tasks out of distribution, 1 or 2 or 5 episodes each"
    assert title == f"2D navigation: {expected}"
