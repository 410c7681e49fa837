"""Clusters that cannot be used: one line each, before any work begins and without a run's folder;
and the loss of a cluster's head."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

import metarl
from metarl.cli.main import main
from metarl.core.errors import ConfigError
from metarl.rollout.cluster.checks import check_object_store, number_of_workers, room
from metarl.rollout.sampler_config import SamplerConfig
from metarl.training.loop import resume, train
from tests.rollout.cluster.conftest import start_cluster
from tests.training.test_loop import TINY, assert_same_outcome

WORDS = ["train", "point_nav/maml_trpo", "--num-tasks=3", "--num-episodes=2", "--env.horizon=5"]
WORDS += ["--tracking.mode=disabled", "--iterations=1", "--sampler.kind=ray"]


def line_of(capsys, words, out):
    """The error of a command that fails as for invalid input, and leaves nothing."""
    assert main([*words, "--out", str(out)]) == 2
    assert not out.exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--sampler.workers=4"],
            r"sampler.workers: expected at most 3, the tasks of a meta-batch",
        ),
        (["--sampler.kind=spark"], r"--sampler.kind: expected one of local, ray, got 'spark'"),
        (
            ["--sampler.address=ray://h:1"],
            r"--sampler.address: expected auto or HOST:PORT, such",
        ),
        (["--sampler.address=head"], r"--sampler.address: expected auto or HOST:PORT, such as"),
        (["--sampler.timeout=0"], r"--sampler.timeout: expected .*more than 0"),
        (["--sampler.placement=strict"], r"--sampler.placement: expected one of pack, spread"),
        (["--sampler.worker=2"], r"--sampler.worker: unknown key .nearest: workers"),
    ],
)
def test_invalid_settings(capsys, tmp_path, words, expected):
    assert re.search(expected, line_of(capsys, [*WORDS, *words], tmp_path / "run"))


def test_ray_is_missing(tmp_path):
    program = "import sys; sys.modules['ray'] = None; from metarl.cli.main import main; "
    program += "sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, *WORDS, "--out", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert 'sampler.kind: ray needs the extra `cluster`: pip install "metarl-' in done.stderr
    assert not (tmp_path / "run").exists()


def test_there_is_no_cluster(capsys, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    address = f"127.0.0.1:{closed_port()}"
    expected = f"sampler.address: no Ray cluster at {address} (Connection refused); start one with"
    words = [*WORDS, f"--sampler.address={address}"]
    assert expected in line_of(capsys, words, tmp_path / "run")
    assert expected in line_of(capsys, [*words, "--dry-run"], tmp_path / "run")
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert expected in line_of(capsys, WORDS, tmp_path / "run")
    assert expected in line_of(capsys, [*WORDS, "--sampler.address=auto"], tmp_path / "run")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert "RAY_ADDRESS: expected auto or HOST:" in line_of(capsys, WORDS, tmp_path / "run")


def test_only_auto_takes_the_token_of_the_users_clusters(capsys, tmp_path, monkeypatch):
    """Ray looks for it there alone; an address needs RAY_AUTH_MODE, as the error says."""
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    joined = []

    def init(address, **options):
        joined.append(address)
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr(ray, "init", init)
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    remedy = "Failed to connect (if the cluster asks for a token, set RAY_AUTH_MODE=token)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        found = "ray._private.services.canonicalize_bootstrap_address"
        monkeypatch.setattr(found, lambda given: address)
        for given in ("auto", address):
            line = line_of(capsys, [*WORDS, f"--sampler.address={given}"], tmp_path / "run")
            assert line.endswith(f"sampler.address: cannot join {address}: {remedy}")
    assert joined == ["auto", address]


def test_a_run_that_a_cluster_refuses_stays_as_it_is(capsys, tmp_path):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    out = str(tmp_path / "run")
    assert main([*WORDS[:-1], "--out", out]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    address = [f"--sampler.address=127.0.0.1:{closed_port()}", "--sampler.kind=ray"]
    assert main(["train", "--resume", out, "--iterations=2", *address]) == 2
    assert "no Ray cluster at" in capsys.readouterr().err
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in files} == before
    assert main(["train", "--resume", out, "--iterations=2"]) == 0


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"CPU": 1}, "CPU: expected sampler.threads for the CPUs of a worker"),
        ({"memory": 1}, "memory: expected another resource"),
        ({"arm": 1e-5}, "arm: expected a whole number, or a part of 1 in steps of 0.0001, got 1e"),
        ({"arm": 1.5}, "arm: expected a whole number"),
    ],
)
def test_resources_that_ray_does_not_take_are_one_line(capsys, tmp_path, resources, expected):
    assert expected in line_of(capsys, [*WORDS, f"--sampler.resources={resources}"], tmp_path / "r")


@pytest.mark.filterwarnings("ignore:Classes should inherit from `BaseModel`")  # in Ray
def test_resources_are_given_as_ray_takes_them():
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    options = SamplerConfig(resources={"GPU": 0.5, "arm": 2, "fast": 0.0001}).ray_options
    assert (options["num_gpus"], options["resources"]) == (0.5, {"arm": 2, "fast": 0.0001})
    ray.remote(SamplerConfig).options(**options)  # which checks them


def nodes(*resources):
    """Nodes as Ray lists them."""
    return [
        {"NodeID": str(i), "NodeManagerAddress": f"10.0.0.{i}", "Alive": True, "Resources": each}
        for i, each in enumerate(resources)
    ]


def test_workers_need_room():
    found = nodes({}, {"CPU": 5.0, "arm": 1.0}, {"CPU": 4.0})
    assert room(found, SamplerConfig(threads=2)) == {"0": 0, "1": 2, "2": 2}
    assert room(found, SamplerConfig(resources={"arm": 0.5})) == {"0": 0, "1": 2, "2": 0}
    thirds = nodes({"CPU": 9.0, "arm": 0.3})  # 0.3 / 0.1 is less than 3
    assert room(thirds, SamplerConfig(resources={"arm": 0.1})) == {"0": 3}
    assert number_of_workers(found, SamplerConfig(threads=2), 40, "C") == 4
    assert number_of_workers(found, SamplerConfig(threads=2), 3, "C") == 3
    with pytest.raises(ConfigError, match=r"workers: expected at most 4, for which C has .*got 5"):
        number_of_workers(found, SamplerConfig(threads=2, workers=5), 40, "C")
    with pytest.raises(ConfigError, match=r"no node of C has room for .* takes 1 CPU, 2 arm"):
        number_of_workers(found, SamplerConfig(resources={"arm": 2}), 40, "C")
    found[1]["Alive"] = False
    assert number_of_workers(found, SamplerConfig(threads=2), 40, "C") == 2


def test_object_stores_hold_a_phase():
    found = nodes({"object_store_memory": 9e6}, {"object_store_memory": 3e6})
    check_object_store(found, "0", 7_000_000, 1_000_000)
    with pytest.raises(ConfigError, match=r"10.0.0.0 has 9 MB, .* need 9.049 MB; choose fewer --"):
        check_object_store(found, "0", 8_000_000, 1_000_000)
    with pytest.raises(ConfigError, match=r"node 10.0.0.1 has 3 MB"):
        check_object_store(found, "0", 7_000_000, 2_000_000)


def test_a_cluster_that_does_not_fit(cluster, capsys, tmp_path):
    """Too small, or with another version of this package on a node."""
    words = [*WORDS, f"--sampler.address={cluster.address}"]
    line = line_of(capsys, [*words, "--sampler.threads=2"], tmp_path / "run")
    assert f"no node of the Ray cluster at {cluster.address} has room for a worker" in line
    line = line_of(capsys, [*words, "--sampler.resources={fast: 1}"], tmp_path / "run")
    assert "takes 1 CPU, 1 fast" in line
    large = ["--env.horizon=1000", "--num-tasks=40", "--num-episodes=200"]
    assert "the object store of node" in line_of(capsys, [*words, *large], tmp_path / "run")
    other = tmp_path / "other" / "metarl_torch-0.0.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: metarl-torch\nVersion: 0.0.9\n")
    node = cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(other.parent)})
    try:
        line = line_of(capsys, words, tmp_path / "run")
        version = metarl.__version__ if hasattr(metarl, "__version__") else ""
        assert re.search(rf"node \S+ has metarl-torch 0.0.9, expected {version}", line)
    finally:
        cluster.remove_node(node)


@pytest.mark.slow
def test_a_signal_to_the_process_group_leaves_ray_to_the_training(tmp_path):
    """Such as that of `timeout`, or of a terminal that is closed: the iteration is finished."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    words = [*WORDS[:-2], "--iterations=100000", "--sampler.kind=ray", "--sampler.workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "metarl", *words, "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("iteration 2/"):
            break
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "stopped after iteration" in output


@pytest.mark.slow
@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_lost_head_ends_training(tmp_path, part):
    """Its process is killed at a random moment, and the run goes on here to the same bits."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    settings = {**TINY, "iterations": 100_000, "checkpoint_every": 3}
    config = metarl.load_config("point_nav/maml_trpo", **settings)
    with start_cluster(1, 1) as cluster:
        words = [sys.executable, "-m", "metarl", "train", "point_nav/maml_trpo"]
        words += [f"--{name}={value}" for name, value in settings.items()]
        words += ["--sampler.kind=ray", f"--sampler.address={cluster.address}"]
        process = subprocess.Popen(
            [*words, "--out", str(tmp_path / "run")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("iteration 5/"):
                break
        (server, *_) = cluster.head_node.all_processes[part]
        server.process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    if part == "gcs_server":  # without the raylet of this machine Ray itself ends the process
        found = [line for line in errors.splitlines() if line.startswith("metarl: ")]
        assert re.search(r"training stopped: sampler: .* was lost: .* --resume \S+run$", found[-1])
    done = len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert done >= 5
    resume(tmp_path / "run", iterations=done + 2, **{"sampler.kind": "local"})
    train(config.replace(iterations=done + 2), tmp_path / "here")
    assert_same_outcome(tmp_path / "here", tmp_path / "run")
