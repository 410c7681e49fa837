"""W&B's real client and a stand-in for its server: all is there once after resumptions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.cli.main import main
from metarl.config_files import load_config
from metarl.runs.run import Run
from metarl.training.loop import resume, start_or_resume
from tests.training.wandb_server import Server

ROOT = Path(__file__).parent.parent.parent
TINY = {"num_tasks": 2, "num_episodes": 3, "env.horizon": 6, "agent.policy.hidden": [8]}
KILLED = """
import os, signal, sys, time
import metarl
from metarl.envs import PointNav
sample_tasks, calls = PointNav.sample_tasks, []
def deadly(self, rng, num_tasks):
    calls.append(1)
    if len(calls) == int(sys.argv[2]):
        time.sleep(float(sys.argv[3]))
        os.kill(os.getpid(), signal.SIGKILL)
    return sample_tasks(self, rng, num_tasks)
PointNav.sample_tasks = deadly
metarl.resume(sys.argv[1])
"""


@pytest.fixture
def server(own_wandb_service, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    found = Server()
    monkeypatch.setenv("WANDB_BASE_URL", found.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield found
    found.close()


def config(mode="offline", **overrides):
    values = {**TINY, "iterations": 6, "checkpoint_every": 2, "tracking.mode": mode}
    return load_config("point_nav/maml_trpo", **{**values, **overrides})


def killed(run, at, wait=0.0):
    """Go on with a run in another process, and kill that as it begins its iteration `at`."""
    argv = [sys.executable, "-c", KILLED, run.directory, str(at), str(wait)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr


def sync(run):
    argv = [sys.executable, "-m", "wandb", "sync", str(run.directory.resolve() / "wandb")]
    # `wandb sync` leaves a log in the folder in which it is called.
    subprocess.run(argv, check=True, capture_output=True, timeout=120, cwd=run.directory)


def assert_all_there_once(server, run):
    """Every iteration is in one W&B run, in order, with its numbers."""
    (lines,) = server.history.values()
    expected = run.metrics()
    assert [line["iteration"] for line in lines] == [line["iteration"] for line in expected]
    assert [line["train/return_after"] for line in lines] == [
        line["return_after"] for line in expected
    ]


def test_three_and_three_offline_iterations_are_six(server, tmp_path):
    start_or_resume(config(iterations=3), tmp_path / "run")
    run = start_or_resume(config(), tmp_path / "run")
    assert len(list(run.directory.glob("wandb/offline-run-*"))) == 2
    sync(run)
    assert_all_there_once(server, run)
    assert server.values("iteration") == [1, 2, 3, 4, 5, 6]
    sync(run)
    assert_all_there_once(server, run)


@pytest.mark.parametrize("counts", [False, True])
def test_offline_iterations_are_there_after_the_first_were_sent(counts, server, tmp_path):
    server.counts = counts
    run = start_or_resume(config(iterations=3), tmp_path / "run")
    sync(run)
    assert server.values("iteration") == [1, 2, 3]
    run = start_or_resume(config(), tmp_path / "run")
    sync(run)
    assert_all_there_once(server, run)


def test_offline_iterations_after_kill_minus_nine_are_there_once(server, tmp_path):
    run = Run.create(config(), tmp_path / "run")
    killed(run, 4)  # iteration 3 is repeated, whether W&B has written it or not
    killed(run, 3)
    resume(run.directory)
    sync(run)
    assert_all_there_once(server, run)
    assert server.values("iteration") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_online_iterations_after_kill_minus_nine_are_there_once(wait, server, tmp_path):
    """Whether the last of them had been sent, or not."""
    run = Run.create(config("online"), tmp_path / "run")
    killed(run, 4, wait)
    resume(run.directory)
    assert_all_there_once(server, run)


def test_a_run_that_began_offline_goes_on_online(server, tmp_path, monkeypatch, capsys):
    run = start_or_resume(config(iterations=3), tmp_path / "run")
    monkeypatch.setenv("WANDB_MODE", "online")
    capsys.readouterr()
    run = start_or_resume(config(), tmp_path / "run")
    assert_all_there_once(server, run)
    (name,) = server.history
    told = [f"run: {run.directory} (3 of 6 iterations)", f"W&B: '{name}' is tracked"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" online: ")[0] for line in lines[:2]] == told
    assert lines[1].endswith(f"/runs/{name}")
    assert lines[2].startswith("iteration 4/6")
    sync(run)
    assert_all_there_once(server, run)


def test_a_run_that_began_online_goes_on_offline(server, tmp_path, monkeypatch):
    server.counts = True
    monkeypatch.setenv("WANDB_MODE", "online")
    run = start_or_resume(config(iterations=3), tmp_path / "run")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for iterations in (5, 6):  # the second repeats what the first did not send
        run = start_or_resume(config(iterations=iterations), tmp_path / "run")
    sync(run)
    assert_all_there_once(server, run)


def test_offline_evaluations_of_a_run_do_not_replace_each_other(server, tmp_path):
    run = start_or_resume(config(iterations=1), tmp_path / "run")
    for split in ("test", "validation"):
        counts = ["--tasks", "2", "--episodes", "2", "--steps", "1"]
        assert main(["evaluate", str(run.directory), "--split", split, *counts]) == 0
    sync(run)
    sizes = "tasks_2-episodes_2-steps_1"
    for split in ("test", "validation"):
        for x in (0, 1):
            assert len(server.values(f"eval/k_step-{split}-{sizes}/maml_trpo/return/{x}")) == 1
    assert len(server.history) == 2
