"""Nothing grows with the length of a run: memory, threads, open files."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import metarl
from metarl.envs import GymnasiumFamily
from metarl.evaluation.evaluate import evaluate
from metarl.reporting.video.adaptation import adaptation_video

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")

PAGE = os.sysconf("SC_PAGE_SIZE")
TINY = {
    "num_tasks": 2,
    "num_episodes": 2,
    "env.horizon": 4,
    "agent.policy.hidden": [4],
    "threads": 2,
}

TRAIN = """
import sys
import metarl
from metarl.envs import PointNav
from tests.reliability.test_leaks import TINY, held

iterations, warm_up, mode = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
sample_tasks, calls = PointNav.sample_tasks, []

def counting(self, rng, num_tasks):
    calls.append(1)
    if len(calls) in (warm_up, iterations):
        print("held", *held())
    return sample_tasks(self, rng, num_tasks)

PointNav.sample_tasks = counting
overrides = {**TINY, "iterations": iterations, "checkpoint_every": 25, "tracking.mode": mode}
overrides["threads"] = int(sys.argv[5])
metarl.train(metarl.load_config("point_nav/maml_trpo", **overrides), sys.argv[1])
"""


def held(before=()):
    """Resident megabytes, threads, and open files of this process. If it has more of the last two
    than `before`, threads that were told to end have ten seconds for it."""
    gc.collect()
    deadline = time.monotonic() + 10
    time.sleep(0.2)
    found = measured()
    while any(x > y for x, y in zip(found[1:], before, strict=False)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
        found = measured()
    return found


def measured():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    threads = len(list(Path("/proc/self/task").iterdir()))
    return pages * PAGE / 1e6, threads, len(os.listdir("/proc/self/fd"))


def workers():
    """The worker processes of this process."""
    children = "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in children.split()}
    return {pid for pid, path in commands.items() if b"external/worker" in path.read_bytes()}


@pytest.mark.parametrize(
    ("iterations", "warm_up", "mode", "threads"),
    [
        (100, 30, "disabled", 1),
        pytest.param(2000, 200, "disabled", 2, marks=pytest.mark.slow),
        pytest.param(2000, 200, "offline", 1, marks=pytest.mark.slow),
    ],
)
def test_training_holds_no_more_after_many_iterations(tmp_path, iterations, warm_up, mode, threads):
    words = [tmp_path / "run", iterations, warm_up, mode, threads]
    folders = [str(Path(metarl.__file__).parent.parent)]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("held")]
    (memory, *others), (later, *others_later) = (list(map(float, line)) for line in lines)
    assert all(x <= y for x, y in zip(others_later, others, strict=True)), "threads and files"
    assert later - memory < 4, f"{later - memory:.1f} MB more"


def test_batches_of_workers_leave_nothing():
    """Closed, or forgotten."""
    family = GymnasiumFamily(horizon=5)

    def play(close):
        env = family.make_batch(4, 2)
        env.reset(family.tasks("test", 4), [np.random.default_rng(i) for i in range(4)])
        env.step(np.zeros((4, 1)))
        if close:
            env.pool.close()

    play(True)
    _, *before = held()
    running = workers()
    play(True)
    play(False)
    _, *after = held(before)
    assert all(x <= y for x, y in zip(after, before, strict=True)), "threads and open files"
    assert workers() <= running


def test_evaluations_and_videos_leave_nothing(tmp_path):
    config = metarl.load_config("point_nav/maml_trpo", **TINY)

    def work():
        agent = config.make_agent()
        evaluate(agent, config.env, tasks=3, episodes=2, steps=2, threads=2)
        out = tmp_path / "video.gif"
        task = config.env.tasks("test", 1)[0]
        adaptation_video(agent, config.env, task, steps=1, out=out, width=96, height=96)

    for _ in range(3):
        work()
    memory, *before = held()
    for _ in range(6):
        work()
    later, *after = held(before)
    assert all(x <= y for x, y in zip(after, before, strict=True)), "threads and open files"
    assert later - memory < 4, f"{later - memory:.1f} MB more"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("metarl")]
