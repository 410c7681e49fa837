"""Tasks of one's own: their forms, their files, and their results."""

from __future__ import annotations

import json

import numpy as np
import pytest

import metarl
from metarl.core.errors import ConfigError, UserError
from metarl.envs import PointNav, make_family
from metarl.evaluation.compare import evaluate_run
from metarl.evaluation.config import EvaluationConfig
from metarl.evaluation.protocols import PROTOCOLS
from metarl.evaluation.result_file import FIGURE_FORMATS
from metarl.evaluation.tasks import own_tasks, read_tasks
from metarl.runs.result import population_size
from metarl.training.loop import train
from tests.evaluation.learner import FAMILY, Learner, expected_returns

GOALS = np.array([[0.1, 0.2], [-0.3, 0.0], [0.5, -0.5], [0.0, 0.4], [-0.2, -0.2]])
SIZES = {"episodes": 2, "steps": 1}


def test_own_tasks_are_played_in_their_order():
    result = metarl.evaluate(Learner(), FAMILY, tasks=GOALS.tolist(), **SIZES)
    assert result.split == "custom"
    assert result.task_hash == FAMILY.task_hash(GOALS)
    assert np.array_equal(result.tasks, GOALS)
    adapted = (1 - 1 / 3) * GOALS  # by two episodes
    for place, targets in enumerate((0 * GOALS, adapted)):
        np.testing.assert_allclose(
            result.by_task[:, place], expected_returns(targets, GOALS), atol=1e-5
        )


def test_own_tasks_that_are_test_tasks_have_the_returns_of_the_test_tasks():
    agent = metarl.load_config("point_nav/maml_trpo", **{"agent.policy.hidden": [8]}).make_agent()
    test = metarl.evaluate(agent, FAMILY, tasks=3, **SIZES)
    own = metarl.evaluate(agent, FAMILY, tasks=FAMILY.tasks("test", 3), **SIZES)
    assert np.array_equal(test.returns, own.returns)
    assert test.task_hash == own.task_hash


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS.keys() - {"ood"}))
def test_every_protocol_but_ood_takes_own_tasks(protocol):
    config = EvaluationConfig(tasks=GOALS, **SIZES)
    for result in PROTOCOLS[protocol](Learner(), FAMILY, config).values():
        assert result.split == "custom"
        assert np.array_equal(result.tasks, GOALS)


@pytest.mark.parametrize(
    ("protocol", "number", "message"),
    [
        ("ood", 5, "protocol ood: .* takes no tasks of your own; expected k_step"),
        ("continual", 3, "tasks: expected at least 5, one sequence, got 3"),
        ("continual", 6, r"tasks: expected whole sequences of 5 tasks \(nearest: 5\), got 6"),
    ],
)
def test_protocols_refuse_own_tasks_that_they_cannot_play(protocol, number, message):
    config = EvaluationConfig(tasks=np.resize(GOALS, (number, 2)), **SIZES)
    with pytest.raises(UserError, match=message):
        PROTOCOLS[protocol](Learner(), FAMILY, config)


def test_a_split_beside_own_tasks_is_refused():
    for split in ("train", "ood"):
        with pytest.raises(ConfigError, match="split: expected none beside tasks of your own"):
            metarl.evaluate(Learner(), FAMILY, tasks=GOALS, split=split)


VELOCITY = make_family("half_cheetah_vel")


@pytest.mark.parametrize(
    ("family", "tasks", "expected"),
    [
        (VELOCITY, [0.5, 1.5], [[0.5], [1.5]]),
        (VELOCITY, [[0.5], [1.5]], [[0.5], [1.5]]),
        (PointNav(), [0.1, 0.2], [[0.1, 0.2]]),
        (PointNav(), ((0.1, 0.2),), [[0.1, 0.2]]),
    ],
)
def test_one_axis_is_tasks_of_one_number_or_one_task(family, tasks, expected):
    rows = own_tasks(family, tasks)
    assert rows.dtype == np.float64
    assert rows.tolist() == expected


@pytest.mark.parametrize(
    ("family", "tasks", "message"),
    [
        (PointNav(), [[0.1, 0.2], [9, 0.0]], r"task 2: a task of point_nav lies between .*nearest"),
        (PointNav(), [0.1, 0.2, 0.3], r"x: a task of point_nav has 2 numbers, got \[0.1, 0.2"),
        (PointNav(), [[np.nan, 0.0]], "lies between"),
        (VELOCITY, [[0.5, 1.0]], r"has 1 number, got \[0.5, 1.0\]"),
        (make_family("half_cheetah_dir"), [0.5], "is -1 or .1, got 0.5"),
        (
            PointNav(),
            [[1, 2], [3]],
            r"x: expected tasks of 2 numbers each, got \[\[1, 2\], \[3\]\]",
        ),
        (PointNav(), {"a": 1}, "expected tasks of 2 numbers each, got {'a': 1}"),
        (VELOCITY, "abc", "expected tasks of 1 number each, got 'abc'"),
        (VELOCITY, [], r"expected tasks of 1 number each, got \[\]"),
        (VELOCITY, 0.5, "expected tasks of 1 number each, got 0.5"),
        (VELOCITY, [[[0.5]]], "expected tasks of 1 number each"),
    ],
)
def test_other_values_are_no_tasks(family, tasks, message):
    with pytest.raises(UserError, match=message):
        own_tasks(family, tasks, "x")


CORNERS = PointNav(region="corners", goal_range=0.5)


@pytest.mark.parametrize(
    ("family", "rows", "expected"),
    [
        (make_family("half_cheetah_dir"), [[1.0], [-1.0]], 2),
        (make_family("half_cheetah_dir"), [[1.0]], 2),
        (CORNERS, [[0.5, 0.5]], 4),
        (CORNERS, [[0.5, 0.5], [0.1, 0.2], [0.3, 0.4], [0.0, 0.0]], None),  # not its four tasks
        (PointNav(), [[0.1, 0.2]], None),
    ],
)
def test_tasks_outside_of_a_finite_distribution_are_not_all_there_are(family, rows, expected):
    assert population_size(family, np.array(rows)) == expected


# --- files ---


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "# goals\n0.5 1\n\n -2\t3e-1\n"),
        ("a.csv", "0.5,1\n-2, 0.3\n"),
        ("a.csv", "\ufeff0.5,1\r\n-2,0.3\r\n"),
        ("a.json", "[[0.5, 1], [-2, 0.3]]"),
    ],
)
def test_tasks_are_read_from_text(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_tasks(tmp_path / name) == [[0.5, 1], [-2, 0.3]]


def test_tasks_are_read_from_an_array(tmp_path):
    np.save(tmp_path / "a.npy", GOALS)
    assert np.array_equal(read_tasks(tmp_path / "a.npy"), GOALS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x,y\n1,2\n", "line 1: expected numbers, got 'x,y'"),
        ("a.txt", b"1 2\n\n1 b\n", "line 3: expected numbers, got '1 b'"),
        ("a.txt", b"\xff\xfe", "can't decode"),
        ("a.json", b"{", "not readable as JSON"),
        ("a.npy", b"\x93NUMPY", "no tasks can be read"),
        ("a.npy", b"", "no tasks can be read"),
        ("a.pkl", b"", "expected a file that ends in .npy, .json, .txt or .csv"),
        ("a.txt", None, "No such file"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_tasks(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, []], object), allow_pickle=True)
    with pytest.raises(UserError, match="no tasks can be read"):
        read_tasks(tmp_path / "a.npy")


# --- result files ---


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    small = {
        "iterations": 1,
        "num_tasks": 2,
        "num_episodes": 3,
        "env.horizon": 6,
        "agent.policy.hidden": [8],
        "tracking.mode": "disabled",
    }
    config = metarl.load_config("point_nav/maml_trpo", **small)
    return train(config, tmp_path_factory.mktemp("runs") / "run").directory


def test_results_on_other_tasks_are_in_other_files(run):
    files = [
        evaluate_run(run, tasks=tasks, **SIZES, **changed)[1]
        for tasks in (2, GOALS[:2], GOALS[1:3], GOALS[:3])
        for changed in ({}, {"deterministic": True})
    ]
    assert len({*files}) == 8
    assert files[0].stem == "k_step-test-tasks_2-episodes_2-steps_1"
    assert files[1].stem == "k_step-test-tasks_2-episodes_2-steps_1-deterministic_true"
    assert all(file.stem.startswith("k_step-custom-tasks_2_") for file in files[2:6])
    assert files[6].stem.startswith("k_step-custom-tasks_3_")
    content = json.loads(files[2].read_text())
    assert content["split"] == "custom"
    assert content["tasks"] == GOALS[:2].tolist()


def test_baselines_play_the_same_tasks(run):
    results, _ = evaluate_run(run, tasks=GOALS[:2], against=["random"], **SIZES)
    assert [each.tasks.tolist() for each in results.values()] == [GOALS[:2].tolist()] * 2


def test_out_is_a_new_file_or_a_folder(run, tmp_path):
    new = tmp_path / "new" / "mine.json"
    results, file = evaluate_run(run, tasks=2, out=new, **SIZES)
    assert file == new
    assert new.is_file()
    drawn = [new.with_name(f"{ending}.json") for ending in FIGURE_FORMATS]
    for taken in (new, *drawn):
        if taken != new:
            taken.with_suffix(f".{taken.stem}").touch()
        before = new.read_bytes()
        with pytest.raises(UserError, match=r"--out: .* exists already; expected a new file"):
            evaluate_run(run, tasks=2, out=taken, **SIZES)
        assert new.read_bytes() == before
    _, inside = evaluate_run(run, tasks=2, out=tmp_path, **SIZES)
    assert inside == tmp_path / "k_step-test-tasks_2-episodes_2-steps_1.json"
    _, other = evaluate_run(run, tasks=3, out=tmp_path, **SIZES)
    assert other != inside
    assert len(results) == 1
    with pytest.raises(UserError, match="cannot be written"):
        evaluate_run(run, tasks=2, out=new / "below", **SIZES)
