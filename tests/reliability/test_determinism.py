"""The same seed gives the same bytes, whatever the number of threads and workers.

Further tests of it: threads, interruptions and kills for every method (training/test_loop.py),
tracking (training/test_tracking.py, test_tracking_faults.py), lost workers
(envs/external/test_workers.py), threads of the physics (envs/test_contract.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import metarl
from metarl.training.loop import resume, train

TINY = {
    "iterations": 3,
    "num_tasks": 3,
    "num_episodes": 2,
    "checkpoint_every": 1,
    "env.horizon": 12,
    "agent.policy.hidden": [8],
    "tracking.mode": "disabled",
    "threads": 1,
}


def outcome(directory):
    """The metrics, and the numbers in the last checkpoint, as bytes."""
    state = metarl.runs.run.Run.open(directory).load()
    numbers = {name: value.numpy().tobytes() for name, value in state.agent.items()}
    return (directory / "metrics.jsonl").read_bytes(), state.env_steps, state.best_return, numbers


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    """A run on CartPole in one worker process, on one thread, never stopped, not tracked."""
    config = metarl.load_config("cartpole/maml_trpo", **{**TINY, "env.workers": 1})
    return train(config, tmp_path_factory.mktemp("runs") / "cartpole").directory


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_and_threads(cartpole, tmp_path, workers):
    overrides = {**TINY, "env.workers": workers, "threads": workers}
    run = train(metarl.load_config("cartpole/maml_trpo", **overrides), tmp_path / "run")
    assert outcome(run.directory) == outcome(cartpole)


def test_workers_threads_tracking_and_a_break_all_at_once(cartpole, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = tmp_path / "run"
    shutil.copytree(cartpole, run)
    checkpoints = run / "checkpoints"
    shutil.copy(checkpoints / "iteration-000001.pt", checkpoints / "latest.pt")
    config = run / "config.yaml"
    text = (
        config.read_text().replace("workers: 1", "workers: 2").replace("threads: 1", "threads: 2")
    )
    config.write_text(text.replace("mode: disabled", "mode: offline"))
    resume(run)
    assert list(run.glob("wandb/offline-run-*"))
    assert outcome(run) == outcome(cartpole)


@pytest.mark.parametrize(
    "name", ["point_nav/maml_trpo", pytest.param("half_cheetah_vel/promp", marks=pytest.mark.slow)]
)
def test_another_process_with_other_hashes(tmp_path, name):
    """Python orders sets differently in each process; no result depends on it."""
    flags = [f"--{key}={value}" for key, value in {**TINY, "threads": 2}.items()]
    env = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "3"}
    command = [sys.executable, "-m", "metarl", "train", name, *flags, "--out", tmp_path / "other"]
    root = Path(metarl.__file__).parent.parent
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = train(metarl.load_config(name, **TINY), tmp_path / "run")
    assert outcome(tmp_path / "other") == outcome(run.directory)
