"""metarl compare on a Ray cluster, a run in each slot: the runs of one machine to the bit."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from metarl.cli.main import main
from metarl.training import cluster_runs
from tests.rollout.cluster.conftest import start_cluster
from tests.training.test_loop import assert_same_outcome

ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
psutil = pytest.importorskip("psutil")
SETTINGS = ["--seeds=2", "--iterations=3", "--num-tasks=3", "--num-episodes=2", "--env.horizon=6"]
SETTINGS += ["--agent.policy.hidden=[4]", "--tasks=4", "--episodes=2", "--steps=1"]
RUNS = ["point_nav-reptile-seed0", "point_nav-reptile-seed1"]


@pytest.fixture(scope="module")
def nodes():
    """A head and two nodes with a CPU each, to which this process is not connected."""
    with start_cluster(1, 1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The comparison on one machine."""
    out = tmp_path_factory.mktemp("compare") / "whole"
    assert main(["compare", "point_nav/reptile", f"--out={out}", *SETTINGS]) == 0
    return out


def words(out, nodes, *more):
    address = f"--sampler.address={nodes.address}"
    cluster = ["--sampler.kind=ray", address, *more]
    return ["compare", "point_nav/reptile", f"--out={out}", *SETTINGS, *cluster]


def processes():
    """The processes in which Ray trains runs."""
    found = psutil.process_iter(["cmdline"])
    return [each for each in found if "ray::Slot" in " ".join(each.info["cmdline"] or ())]


def kill_one(seconds=60):
    """Kill the first process of a run that there is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for process in processes():
            process.kill()
            return
        time.sleep(0.02)


def test_a_run_whose_process_is_killed_goes_on_with_the_same_bits(nodes, whole, tmp_path, capsys):
    out = tmp_path / "spread"
    killer = threading.Thread(target=kill_one)
    killer.start()
    assert main(words(out, nodes)) == 0
    killer.join()
    said = capsys.readouterr()
    assert "its process was lost" in said.err
    assert "2/2  point_nav-reptile-seed" in said.err
    for name in RUNS:
        assert_same_outcome(out / name, whole / name)
    assert (out / "comparison.csv").read_text() == (whole / "comparison.csv").read_text()
    assert not list(out.glob(".metarl-*"))
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_run_whose_node_is_lost_goes_on_with_the_same_bits(tmp_path, capsys):
    longer = [*SETTINGS, "--iterations=150"]
    assert main(["compare", "point_nav/reptile", f"--out={tmp_path / 'whole'}", *longer]) == 0
    out = tmp_path / "lost"
    with start_cluster(1, 1) as nodes:

        def lose():
            while not (out / RUNS[0] / "metrics.jsonl").exists():
                time.sleep(0.02)
            nodes.remove_node(nodes.list_all_nodes()[1], allow_graceful=False)

        loser = threading.Thread(target=lose)
        loser.start()
        assert main(words(out, nodes, "--iterations=150")) == 0
        loser.join()
    assert "its process was lost" in capsys.readouterr().err
    for name in RUNS:
        assert_same_outcome(out / name, tmp_path / "whole" / name)


def test_stopped_by_a_signal_the_same_command_goes_on_anywhere(nodes, whole, tmp_path, capsys):
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "metarl", *words(out, nodes, "--sampler.workers=1")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (out / RUNS[0]).exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.terminate()
    assert "stopped; the same command goes on" in running.communicate(timeout=60)[1]
    assert running.returncode == 130
    deadline = time.monotonic() + 30
    while processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes()
    assert main(["compare", "point_nav/reptile", f"--out={out}", *SETTINGS]) == 0
    for name in RUNS:
        assert_same_outcome(out / name, whole / name)


def test_what_fails_in_a_slot_is_told(nodes, tmp_path, capsys):
    """The first run's folder holds something else."""
    out = tmp_path / "failing"
    (out / RUNS[0]).mkdir(parents=True)
    (out / RUNS[0] / "notes.txt").write_text("mine")
    assert main(words(out, nodes)) == 1
    assert f"{out / RUNS[0]}: UserError: " in capsys.readouterr().err.splitlines()[-1]
    assert (out / RUNS[1] / "config.yaml").exists()


def test_a_folder_that_a_node_does_not_see_is_refused(nodes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cluster_runs, "_exists", lambda path: False)
    assert main(words(tmp_path / "out", nodes)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("metarl: error: --out: node ")
    assert line.endswith("; expected a folder on a disk that all nodes share")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sampler.workers=5"], "sampler.workers: expected at most 2, for which"),
        (["--sampler.workers=-1"], "--sampler.workers: expected between 0 and 4096, got -1"),
        (["--jobs=2"], "--jobs: expected --sampler.workers, the number of runs at a time on a cl"),
        (["--sampler.threads=9"], "sampler.threads: no node of the Ray cluster at"),
    ],
)
def test_bad_input_is_refused(nodes, tmp_path, capsys, flags, message):
    assert main(words(tmp_path / "out", nodes, *flags)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*/config.yaml"))
