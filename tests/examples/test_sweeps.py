"""Sweeps of Weights & Biases: their agent's command works with what it would fill in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from metarl.config import config_keys
from metarl.config_files import config_names, load_config
from metarl.runs.run import Run
from tests.training.wandb_server import Server

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
    assert not any(name.split(".")[-1] == "seed" for name in sweep["parameters"]), "chooses luck"
    assert "--split validation" in sweep["command"][2]
    method = load_config(name).method
    assert sweep["metric"]["name"] == f"eval/k_step-validation/{method}/return/3"


@pytest.fixture
def server():
    found = Server()
    yield found
    found.close()


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweeps_command_trains_and_records_its_metric(path, tmp_path, server):
    """As the agent calls it: its own id in the environment, values as --key=value."""
    sweep = yaml.safe_load(path.read_text())
    chosen = {
        name: each["values"][-1] if "values" in each else each["max"]
        for name, each in sweep["parameters"].items()
    }
    *command, arguments = sweep["command"]
    assert arguments == "${args}"
    flags = [f"--{name}={value}" for name, value in chosen.items()]
    others = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env = {
        **others,  # without W&B's service of this process, which may know another server
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "WANDB_RUN_ID": "abc123",
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_MODE": "offline",
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": "a" * 40,
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
    }
    done = subprocess.run(
        [*command, *flags, *TINY], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "runs" / "sweep" / "abc123")
    assert run.config.agent.inner.lr == chosen["agent.inner.lr"]
    assert run.config.agent.outer.max_kl == chosen["agent.outer.max_kl"]
    assert len(run.metrics()) == 1
    folders = list(run.directory.glob("wandb/offline-run-*"))
    assert [folder.name.endswith("-abc123") for folder in folders] == [True, True]
    sync = [sys.executable, "-m", "wandb", "sync", str(run.directory / "wandb")]
    subprocess.run(sync, env=env, check=True, capture_output=True, timeout=120, cwd=tmp_path)
    assert server.history.keys() == {"abc123"}
    assert server.values("iteration") == [1]
    (value,) = server.values(sweep["metric"]["name"])
    results = json.loads((run.directory / "evaluation" / "k_step-validation.json").read_text())
    (result,) = results["methods"][run.config.method]["parts"].values()
    assert value == pytest.approx(np.mean(result["returns"], axis=(0, 2))[3])
