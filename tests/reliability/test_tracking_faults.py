"""With W&B unreachable, slow, crashing or hanging, training goes on and loses nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import metarl
import metarl.training.wandb_start
from metarl.envs import PointNav
from metarl.runs.run import Run
from metarl.training.loop import resume, train
from metarl.training.tracking import start_tracker

TINY = {
    "iterations": 4,
    "num_tasks": 2,
    "num_episodes": 3,
    "checkpoint_every": 2,
    "env.horizon": 6,
    "agent.policy.hidden": [8],
}
MAX_SECONDS = 60.0  # of any fault: without timeouts each takes minutes


def config(mode):
    return metarl.load_config("point_nav/maml_trpo", **{**TINY, "tracking.mode": mode})


@pytest.fixture(scope="module")
def untracked(tmp_path_factory):
    return train(config("disabled"), tmp_path_factory.mktemp("runs") / "untracked")


@pytest.fixture(autouse=True)
def account(own_wandb_service, monkeypatch, tmp_path):
    """Somebody who is logged in, and impatient."""
    for name in ("WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")


def assert_nothing_lost(run, untracked):
    """Metrics to the byte, checkpoints to the bit, and no thread that keeps the process alive."""
    assert run.metrics_file.read_bytes() == untracked.metrics_file.read_bytes()
    names = {path.name for path in untracked.checkpoints.glob("*.pt")}
    assert {path.name for path in run.checkpoints.glob("*.pt")} == names
    for name in names:
        found, expected = (each.load(name.removesuffix(".pt")) for each in (run, untracked))
        assert found.iteration == expected.iteration
        assert found.best_return == expected.best_return
        assert all(torch.equal(found.agent[key], value) for key, value in expected.agent.items())
    assert all(
        thread.daemon or not thread.name.startswith(("wandb", "metarl"))
        for thread in threading.enumerate()
    )


def warnings(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if "warning" in line]


def services():
    """The processes that W&B works in for this one."""
    text = "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    pids = [int(word) for word in text.split()]
    return [pid for pid in pids if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def in_second_iteration(monkeypatch, action):
    """Call `action` when the tasks of the second iteration are drawn."""
    original, calls = PointNav.sample_tasks, []

    def sample_tasks(self, rng, num_tasks):
        calls.append(1)
        if len(calls) == 2:
            action()
        return original(self, rng, num_tasks)

    monkeypatch.setattr(PointNav, "sample_tasks", sample_tasks)
    return calls


# --- servers ---


@pytest.fixture
def closed():
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    return port


@pytest.fixture
def silent():
    """A server that accepts and never answers: the kernel does, for a full queue too."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(100)
        yield server.getsockname()[1]


class Garbage(BaseHTTPRequestHandler):
    """Answers every request with an error whose body is no JSON."""

    def do_GET(self):
        self.answer(500, b"<<<\xff{]")

    do_POST = do_GET

    def answer(self, code, content):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words): ...


class Service(Garbage):
    """Answers what W&B needs for a run to begin online."""

    def do_POST(self):
        query = self.rfile.peek().decode(errors="replace")
        owner = {"id": "1", "name": "project", "entity": {"id": "1", "name": "somebody"}}
        data = {}
        if "RunResumeStatus" in query:
            data = {"model": {**owner, "bucket": None}}
        elif "UpsertBucket" in query:
            bucket = {"id": "1", "name": "run", "displayName": "run", "config": "{}"}
            data = {"upsertBucket": {"bucket": {**bucket, "project": owner}, "inserted": True}}
        elif "Viewer" in query:
            data = {"viewer": {"id": "1", "entity": "somebody", "username": "somebody"}}
        self.answer(200, json.dumps({"data": data}).encode())


def serving(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def garbage():
    server = serving(Garbage)
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def service(monkeypatch):
    server = serving(Service)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "20")
    yield server
    server.shutdown()
    server.server_close()


# --- faults ---


@pytest.mark.parametrize("server", ["closed", "silent", "garbage"])
def test_a_server_out_of_reach(server, untracked, tmp_path, capsys, monkeypatch, request):
    """The run is tracked offline: one warning says so, and W&B's files are there to be synced."""
    port = request.getfixturevalue(server)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    start = time.monotonic()
    run = train(config("auto"), tmp_path / "run")
    assert time.monotonic() - start < MAX_SECONDS
    assert_nothing_lost(run, untracked)
    (line,) = warnings(capsys)
    assert line.startswith("metarl: warning: W&B is out of reach, so this run is tracked offline: ")
    assert list(run.directory.glob("wandb/offline-run-*/*.wandb"))


def test_a_server_that_goes_away(service, untracked, tmp_path, capsys, monkeypatch):
    """In the middle of a run: data that is not sent in time is given up."""
    began = []

    def go_away():
        began.extend((tmp_path / "run").glob("wandb/run-*/*.wandb"))
        service.shutdown()
        service.server_close()

    in_second_iteration(monkeypatch, go_away)
    start = time.monotonic()
    run = train(config("online"), tmp_path / "run")
    assert time.monotonic() - start < MAX_SECONDS
    assert began, "online until then"
    assert_nothing_lost(run, untracked)
    (line,) = warnings(capsys)
    assert line.startswith("metarl: warning: W&B failed, and no longer tracks this run: ")


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_its_process_is_killed(mode, service, untracked, tmp_path, capsys, monkeypatch):
    killed = []

    def kill():
        for pid in services():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    calls = in_second_iteration(monkeypatch, kill)
    run = train(config(mode), tmp_path / "run")
    assert len(calls) == 4
    assert len(killed) == 1
    assert_nothing_lost(run, untracked)
    (line,) = warnings(capsys)
    assert line.startswith("metarl: warning: W&B failed, and no longer tracks this run: ")
    assert "the files hold everything" in line
    assert services() == []


def test_its_process_hangs(untracked, tmp_path, capsys, monkeypatch):
    """Stopped, it takes what fits into its socket, and never says that it has ended."""
    # Seconds beyond the timeouts of the fixture.
    monkeypatch.setattr(metarl.training.wandb_start, "HANG_TIMEOUT", 1.0)
    in_second_iteration(monkeypatch, lambda: [os.kill(pid, signal.SIGSTOP) for pid in services()])
    start = time.monotonic()
    run = train(config("offline"), tmp_path / "run")
    assert time.monotonic() - start < MAX_SECONDS
    assert_nothing_lost(run, untracked)
    (line,) = warnings(capsys)
    assert "no longer tracks this run: no answer for 2 s" in line
    assert services() == []


@pytest.mark.parametrize("device", [True, False])
def test_a_folder_that_cannot_be_written(device, untracked, tmp_path, capsys):
    directory = tmp_path / "run"
    path = Run.create(config("offline"), directory).directory / "wandb"
    path.symlink_to("/dev/full") if device else path.write_text("no folder")
    run = resume(directory)
    assert_nothing_lost(run, untracked)
    (line,) = warnings(capsys)
    assert line.startswith("metarl: warning: W&B failed, and no longer tracks this run: ")
    assert "Error: " in line


def test_after_a_failure_the_next_run_is_tracked_again(tmp_path, capsys):
    run = Run.create(config("offline"), tmp_path / "run")
    tracker = start_tracker(run)
    os.kill(services()[0], signal.SIGKILL)
    for _ in range(20):
        tracker.log({"return_after": 1.0})
        time.sleep(0.05)
    tracker.finish()
    assert len(warnings(capsys)) == 1
    other = start_tracker(Run.create(config("offline"), tmp_path / "other"))
    other.log({"return_after": 1.0})
    other.finish()
    assert warnings(capsys) == []
    assert list(tmp_path.glob("other/wandb/offline-run-*/*.wandb"))


SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
import metarl
from tests.reliability.test_tracking_faults import config, services
from metarl.envs import PointNav
sample_tasks = PointNav.sample_tasks
def deadly(self, rng, num_tasks):
    for pid in services():
        os.kill(pid, signal.SIGKILL)
    return sample_tasks(self, rng, num_tasks)
PointNav.sample_tasks = deadly
metarl.train(config("offline"), sys.argv[1])
"""


def test_a_process_exits_quietly_after_its_tracker_died(tmp_path):
    """No exit hook of W&B's fails, hangs, or says anything."""
    command = [sys.executable, "-c", SCRIPT, tmp_path / "run", Path(__file__).parent.parent.parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("metarl: warning: W&B failed")
