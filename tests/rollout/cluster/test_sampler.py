"""Training on a Ray cluster, by the commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

import metarl
from metarl.training.loop import resume, train
from tests.training.test_loop import TINY, assert_same_outcome

pytest.importorskip("ray", reason="the extra `cluster` is not installed")


@pytest.fixture
def on_ray(cluster):
    """The settings of training on two workers of the cluster."""
    address = {"sampler.kind": "ray", "sampler.address": cluster.address}
    return {**address, "sampler.workers": 2, "sampler.max_restarts": 0}


def test_a_run_goes_on_with_other_workers(on_ray, tmp_path):
    """Begun here, then on one worker, then on two: as if never moved."""
    config = metarl.load_config("point_nav/maml_trpo", **TINY)
    train(config, tmp_path / "here")
    begun = train(config.replace(iterations=2), tmp_path / "moved")
    handler = signal.getsignal(signal.SIGTERM)
    for iterations, workers in [(4, 1), (6, 2)]:
        resume(begun.directory, iterations=iterations, **{**on_ray, "sampler.workers": workers})
    assert signal.getsignal(signal.SIGTERM) is handler
    assert_same_outcome(tmp_path / "here", tmp_path / "moved")
    *_, last = map(json.loads, (begun.directory / "timings.jsonl").read_text().splitlines())
    assert last["seconds/sampling"] > 0
    assert "seconds/environment" not in last


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("point_nav/continual_maml", {}),
        (
            "half_cheetah_body/maml_trpo_drift",
            {
                "sampling.nuisances.observation_noise": (0.0, 0.1),
                "sampling.nuisances.action_delay": (0, 2),
                "sampling.risk.alpha": 0.5,
            },
        ),
    ],
)
def test_sequences_drift_and_nuisances_are_the_same_on_workers(on_ray, tmp_path, name, changes):
    changes = {**changes, "iterations": 2, "sampling.num_tasks": 4, "sampling.num_episodes": 2}
    changes |= {"env.horizon": 8, "agent.policy.hidden": [4], "tracking.mode": "disabled"}
    train(metarl.load_config(name, **changes), tmp_path / "here")
    train(metarl.load_config(name, **changes, **on_ray), tmp_path / "there")
    assert_same_outcome(tmp_path / "here", tmp_path / "there")


def test_environments_in_other_processes_run_on_the_workers(on_ray, tmp_path):
    changes = {"iterations": 1, "sampling.num_tasks": 2, "env.workers": 1, "env.horizon": 20}
    changes |= {"tracking.mode": "disabled", "agent.network.size": 6}
    train(metarl.load_config("cartpole/rl2", **changes), tmp_path / "here")
    train(metarl.load_config("cartpole/rl2", **changes, **on_ray), tmp_path / "there")
    assert_same_outcome(tmp_path / "here", tmp_path / "there")


def test_a_session_of_the_user_goes_on(cluster):
    """In a process that is connected to Ray before and after, and has objects there."""
    program = f"""
import ray
ray.init({cluster.address!r}, log_to_driver=False)
from metarl.envs import PointNav
from metarl.rollout.cluster.sampler import RaySampler
from metarl.rollout.sampler_config import SamplerConfig
held = ray.put(7)
sampler = RaySampler(SamplerConfig(kind="ray", workers=1), PointNav(horizon=3), 2, 1)
sampler.close()
assert ray.is_initialized() and ray.get(held) == 7
print("goes on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.endswith("goes on\n"), done.stderr
