"""Nodes whose network cable is cut: unlike a killed node, nothing says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import metarl
from metarl.cli.main import main
from metarl.training.callbacks import Callback
from metarl.training.loop import resume, train
from tests.rollout.cluster.hosts import start_hosts
from tests.training.test_loop import assert_same_outcome

ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
pytestmark = pytest.mark.slow
RNG = np.random.default_rng(int(os.environ.get("METARL_KILL_SEED", "0")))
WORKER = "ray::RolloutWorker"
BOUND = 120.0
"""Seconds in which all must be over; two nodes are given up in a quarter of them."""
CONFIG = "half_cheetah_vel/maml_trpo"
LONG = {
    "iterations": 6,
    "sampling.num_tasks": 4,
    "sampling.num_episodes": 60,
    "agent.policy.hidden": [4],
    "tracking.mode": "disabled",
}


class Cutting(Callback):
    """Cuts off a host with a worker at a random moment after some iterations."""

    def __init__(self, hosts, iterations):
        self.hosts, self.iterations, self.lost = hosts, iterations, []

    def on_iteration(self, run, metrics):
        if metrics["iteration"] in self.iterations:
            threading.Timer(RNG.uniform(0, 1), self.cut).start()

    def cut(self):
        host = self.hosts.wait_for(WORKER, tuple(self.lost))
        self.hosts.cut(host)
        self.lost.append(host)


def on(hosts, **settings):
    """The settings of training on a cluster of hosts."""
    settings = {"kind": "ray", "address": hosts.address, "placement": "spread", **settings}
    return {f"sampler.{name}": value for name, value in settings.items()}


def test_training_goes_on_when_nodes_are_cut_off(tmp_path, capsys):
    """The first one's worker goes on on a spare node; after the second one there is no room, and
    the other worker plays its episodes."""
    train(metarl.load_config(CONFIG, **LONG), tmp_path / "here")
    with start_hosts(3) as hosts:
        for host in range(3):
            hosts.start(host)
        cutting = Cutting(hosts, (1, 3))
        config = metarl.load_config(CONFIG, **LONG, **on(hosts, workers=2))
        begin = time.monotonic()
        train(config, tmp_path / "there", callbacks=[cutting])
        spent = time.monotonic() - begin
    assert_same_outcome(tmp_path / "here", tmp_path / "there")
    warnings = capsys.readouterr().err
    assert len(re.findall(r"worker \d, process \d+ on .* was lost .*; it is repl", warnings)) == 2
    assert len(set(cutting.lost)) == 2
    assert spent < BOUND


def test_runs_of_cut_off_nodes_go_on_elsewhere(tmp_path, capsys):
    """The process on the node that is cut off still trains, and holds the run's lock, for a
    while."""
    words = ["compare", "point_nav/maml_trpo", "--seeds=2", "--iterations=150", "--num-tasks=3"]
    words += ["--num-episodes=2", "--env.horizon=6", "--agent.policy.hidden=[4]", "--tasks=4"]
    words += ["--episodes=2", "--steps=1"]
    assert main([*words, f"--out={tmp_path / 'here'}"]) == 0
    out = tmp_path / "there"
    with start_hosts(2) as hosts:
        for host in range(2):
            hosts.start(host)

        def cut():
            while not (out / "point_nav-maml_trpo-seed0" / "metrics.jsonl").exists():
                time.sleep(0.02)
            time.sleep(RNG.uniform(0, 1))
            hosts.cut(hosts.wait_for("ray::Slot"))

        threading.Thread(target=cut, daemon=True).start()
        begin = time.monotonic()
        cluster = ["--sampler.kind=ray", f"--sampler.address={hosts.address}"]
        assert main([*words, f"--out={out}", *cluster]) == 0
        spent = time.monotonic() - begin
    said = capsys.readouterr().err
    assert spent < BOUND
    assert "its process was lost" in said
    for name in ("point_nav-maml_trpo-seed0", "point_nav-maml_trpo-seed1"):
        assert_same_outcome(out / name, tmp_path / "here" / name)


def test_a_learner_that_is_cut_off_from_the_head_stops(tmp_path):
    """In its first phase, and Ray, which would wait for the head, does not keep it from its end."""
    out = tmp_path / "run"
    with start_hosts(1) as hosts:
        hosts.start(0)
        words = [f"--{name}={value}" for name, value in {**LONG, **on(hosts)}.items()]
        program = [sys.executable, "-X", "faulthandler", "-u", "-m", "metarl", "train", CONFIG]
        with subprocess.Popen(
            hosts.command(0, *program, *words, f"--out={out}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline().startswith("run: ")
            time.sleep(RNG.uniform(0, 1))
            hosts.cut(0)
            try:
                _, errors = running.communicate(timeout=60)
            finally:
                running.kill()
    assert running.returncode == 1, errors
    found = [line for line in errors.splitlines() if line.startswith("metarl: ")]
    assert re.search(r"training stopped: sampler: .* was lost: its head, .* --resume ", found[-1])
    resume(out, **{"sampler.kind": "local"})
    train(metarl.load_config(CONFIG, **LONG), tmp_path / "here")
    assert_same_outcome(tmp_path / "here", out)
