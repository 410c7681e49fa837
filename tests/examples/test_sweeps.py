"""Sweeps of Weights & Biases: their agent's command works with what it would fill in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from metarl.config import config_keys
from metarl.config_files import config_names, load_config
from metarl.runs.run import Run

ROOT = Path(__file__).parent.parent.parent
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
TINY = ["--iterations=1", "--num-tasks=2", "--num-episodes=2", "--env.horizon=5"]


def test_sweeps_are_no_configs():
    assert SWEEPS
    assert not any(name.startswith("sweeps/") for name in config_names())


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweeps_parameters_are_keys_of_its_config(path):
    sweep = yaml.safe_load(path.read_text())
    name = sweep["command"][2].split()[2]
    known = {key.path for key in config_keys(load_config(name))}
    assert sweep["parameters"].keys() <= known
    assert sweep["metric"]["name"] == "return_after"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweeps_command_trains(path, tmp_path):
    """As the agent calls it: its own id in the environment, values as --key=value."""
    sweep = yaml.safe_load(path.read_text())
    chosen = {
        name: each["values"][-1] if "values" in each else each["max"]
        for name, each in sweep["parameters"].items()
    }
    *command, arguments = sweep["command"]
    assert arguments == "${args}"
    flags = [f"--{name}={value}" for name, value in chosen.items()]
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "WANDB_RUN_ID": "abc123",
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_MODE": "offline",
    }
    done = subprocess.run(
        [*command, *flags, *TINY], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "runs" / "sweep" / "abc123")
    assert run.config.seed == chosen["seed"]
    assert run.config.agent.outer.max_kl == chosen["agent.outer.max_kl"]
    assert len(run.metrics()) == 1
    (folder,) = run.directory.glob("wandb/offline-run-*")
    assert folder.name.endswith("-abc123")
