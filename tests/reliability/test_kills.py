"""`kill -9` at random moments, and before every operation on a file: nothing is lost for good."""

import itertools
import json
import random
import signal
import time

import pytest

from examples.soak.trainer import start
from metarl.evaluation.compare import evaluate_run
from metarl.runs.atomic_io import whole_lines
from metarl.runs.run import Run
from tests.training.test_loop import assert_same_outcome

SMALL = {
    "iterations": 20,
    "num_tasks": 2,
    "num_episodes": 2,
    "checkpoint_every": 3,
    "agent.tasks_per_microbatch": 2,
    "threads": 1,
    "env.horizon": 4,
    "agent.policy.hidden": [3],
    "tracking.mode": "disabled",
}
KILLS = 12


@pytest.fixture
def run_killed(tmp_path):
    """Starts a process that brings a run to its end."""

    def run_killed(name, directory, die_at=0, **settings):
        flags = [f"--{key}={value}" for key, value in {**SMALL, **settings}.items()]
        words = ["train", f"point_nav/{name}", *flags, "--continue", f"--out={directory}"]
        return start(words, directory, tmp_path / "errors", die_at)

    return run_killed


def end(process):
    process.join(120)
    return process.exitcode


def lines(directory):
    path = directory / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def evaluation(directory):
    """What a result file says, but for when and where."""
    _, path = evaluate_run(directory, tasks=2, episodes=2, steps=1)
    return json.loads(path.read_text())["methods"]


@pytest.mark.parametrize("name", ["maml_trpo", "promp"])
def test_kills_at_random_moments_change_nothing(run_killed, tmp_path, name):
    """Dozens of kills after 0 to 3 more iterations and a moment; ProMP's Adam has a state."""
    twin = tmp_path / "twin"
    assert end(run_killed(name, twin)) == 0
    rng, moments = random.Random(name), []
    for number in itertools.count():  # a run may be at its end before it was killed often enough
        directory = tmp_path / str(number)
        code = None
        while code != 0:
            process = run_killed(name, directory)
            if len(moments) < KILLS:
                wanted = lines(directory) + rng.randrange(4)
                while lines(directory) < wanted and process.is_alive():
                    time.sleep(0.001)
                process.join(rng.uniform(0, 0.06))
                process.kill()
            code = end(process)
            assert code in (0, -signal.SIGKILL)
            if code:
                moments.append(lines(directory))
        assert_same_outcome(directory, twin)
        assert [each["iteration"] for each in whole_lines(directory / "timings.jsonl", bool)] == [
            *range(1, 21)
        ]
        if len(moments) >= KILLS:
            break
    assert len(set(moments)) >= 4, moments
    assert evaluation(directory) == evaluation(twin)


@pytest.mark.parametrize("evaluations", [0, 1])
def test_kills_before_every_operation_on_a_file_change_nothing(run_killed, tmp_path, evaluations):
    """The first life ends before its first operation, the second before its second, and so on: in
    the making of the folder, while going on, while logging and between all parts of saving."""
    few = {"iterations": 3, "checkpoint_every": 1 + evaluations, "seed": 2 - evaluations}
    few |= {"evaluation.every": evaluations, "evaluation.tasks": 2}
    twin, directory = tmp_path / "twin", tmp_path / "killed"
    assert end(run_killed("promp", twin, **few)) == 0
    assert Run.open(twin).load("best").iteration == 1  # so that no later one makes up for its loss
    for number in itertools.count(1):
        code = end(run_killed("promp", directory, number, **few))
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 20
    assert_same_outcome(directory, twin)
    assert {path.name for path in directory.rglob("*")} == {path.name for path in twin.rglob("*")}
