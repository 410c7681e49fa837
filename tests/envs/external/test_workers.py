"""Worker processes that die, hang, fail, or outlive: real ones, killed and stopped for real."""

from __future__ import annotations

import errno
import gc
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from metarl.envs import SPLITS, GymnasiumFamily, WorkerError
from metarl.envs.external.pool import MAX_RESTARTS
from metarl.envs.external.process import PROGRAM
from metarl.envs.external.worker.shared_arrays import views
from metarl.envs.gymnasium_env import task_env
from metarl.envs.wrappers.observed import TaskObserved

ONCE = """
        flag = Path(__file__).with_name("once")
        if self.t == 4 and not flag.exists():
            flag.touch()
            {deed}"""


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


# --- nothing changes ---


@pytest.mark.parametrize("cls", ["Walk", "Push"])
def test_results_do_not_depend_on_the_number_of_workers(walk, history, cls):
    family = walk(cls=cls)
    one = history(family, 5, 1)
    assert np.array_equal(one, history(family, 5, 3))


def test_killed_workers_change_no_result(history):
    """CartPole, where episodes end: workers killed at the first step, in the middle, and twice."""
    family = GymnasiumFamily(horizon=30)

    def kill(step: int, pids: list[int]) -> None:
        if step in (0, 5, 6):
            os.kill(pids[step % 2], signal.SIGKILL)

    undisturbed = history(family, 6, 2, steps=30)
    assert np.array_equal(undisturbed, history(family, 6, 2, steps=30, between=kill))


def test_a_worker_killed_before_a_reset_changes_no_result(walk):
    family = walk()
    env, tasks = family.make_batch(4, 2), family.tasks("test", 4)
    streams = [[np.random.default_rng(i) for i in range(4)] for _ in range(2)]
    first = env.reset(tasks, streams[0])
    os.kill(env.pool.pids[0], signal.SIGKILL)
    assert np.array_equal(first, env.reset(tasks, streams[1]))


def test_a_signal_to_the_process_group_does_not_end_the_workers(walk):
    """Ctrl-C, a scheduler's SIGTERM and the end of a terminal: their parent says when they end."""
    family = walk()
    env, tasks = family.make_batch(2, 2), family.tasks("test", 2)
    streams = [[np.random.default_rng(i) for i in range(2)] for _ in range(2)]
    first, pids = env.reset(tasks, streams[0]), [*env.pool.pids]
    for pid in pids:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    assert np.array_equal(first, env.reset(tasks, streams[1]))
    assert [*env.pool.pids] == pids


@pytest.mark.parametrize(
    "deed",
    ["os._exit(3)", "time.sleep(100)", "os.kill(os.getpid(), 11)"],
    ids=["exits", "hangs", "crashes"],
)
def test_a_worker_that_is_lost_once_is_replaced(walk, history, tmp_path, deed):
    family = walk(ONCE.format(deed=deed), timeout=1.0)
    lost = history(family)
    assert (tmp_path / "once").exists()
    assert np.array_equal(lost, history(family))


def test_slow_is_not_hanging(walk, history):
    """The time-out is of one call: three episodes of 0.4 s each may take more than a second."""
    family = walk("time.sleep(0.4)", timeout=1.0)
    assert np.array_equal(history(family, 3, 1, steps=1), history(family, 3, 3, steps=1))


def test_a_worker_that_is_listened_to_late_is_not_hanging(walk):
    """Neither the calls of the worker before nor the import count for its own."""
    family = walk("time.sleep(0.4)", timeout=0.6)
    env = family.make_batch(6, 2)
    env.reset(family.tasks("test", 6), [np.random.default_rng(i) for i in range(6)])
    pids = env.pool.pids
    env.step(np.ones((6, 1)))  # 1.2 s of each worker
    assert env.pool.pids == pids


# --- what cannot be helped is explained ---


@pytest.mark.parametrize(
    ("deed", "timeout", "ending", "remedy"),
    [
        ("os._exit(print('no more', file=sys.stderr) or 7)", 20, "exit status 7", "memory ran out"),
        ("os.kill(os.getpid(), 9)", 20, r"killed by signal 9 \(SIGKILL\)", "memory ran out"),
        ("time.sleep(100)", 1, "gave no answer for 1 s", r"raise env.timeout \(1 s\)"),
    ],
    ids=["exits", "is killed", "hangs"],
)
def test_a_worker_that_is_lost_again_and_again_is_an_error(
    walk, history, deed, timeout, ending, remedy
):
    """It names worker, environment, episode, step, task, how it ended, and what helps."""
    family = walk(f"({deed}) if self.t == 3 and self.pull > 0 else None", timeout=float(timeout))
    start = time.monotonic()
    with pytest.raises(WorkerError) as error:
        history(family, 4, 2)
    assert time.monotonic() - start < 60  # not the 100 s that it sleeps
    text = str(error.value)
    who = rf"walk\.py:Walk: worker \d \(episodes \d to \d\), started again {MAX_RESTARTS} times, "
    assert re.search(f"{who}.*{ending}", text)
    assert re.search(remedy, text)
    assert re.search(r"\(at step 2 of episode \d, seed \d+, task pull 0\.\d+\)", text)
    if "7" in ending:
        assert "no more" in text, "the last words"
    if "answer" in ending:
        assert "in before_step" in text, "where it hung"


def test_a_worker_that_dies_at_once_is_an_error_of_the_description(walk):
    with pytest.raises(WorkerError, match=r"its worker ended with exit status 5; .*\n.*\n.*memory"):
        walk(preamble="print('x', file=sys.stderr); os._exit(5)").observation_space  # noqa: B018


def test_an_environment_that_is_not_deterministic_cannot_be_restored(walk, history):
    """Not replaced by other episodes, silently."""
    family = walk("self.x += time.time() % 1")
    with pytest.raises(WorkerError, match="seed and actions lead its successor to other observ"):
        history(family, between=lambda step, pids: step == 3 and os.kill(pids[0], signal.SIGKILL))


def test_an_exception_names_environment_step_and_task_and_is_not_tried_again(walk, tmp_path):
    family = walk(
        "(Path(__file__).with_name('count').open('a').write('x'), 1 / 0)"
        " if self.t == 3 and self.pull > 0.5 else None"
    )
    env = family.make_batch(3, 2)
    env.reset(np.array([[0.0], [0.1], [0.9]]), [np.random.default_rng(i) for i in range(3)])
    for _ in range(2):
        env.step(np.ones((3, 1)))
    pids = env.pool.pids
    with pytest.raises(WorkerError) as error:
        env.step(np.ones((3, 1)))
    text = str(error.value)
    assert "walk.py:Walk raised ZeroDivisionError: division by zero" in text
    assert "in before_step" in text
    assert re.search(r"\(at step 2 of episode 2, seed \d+, task pull 0\.9\)", text)
    assert (tmp_path / "count").read_text() == "x"
    assert env.pool.pids == pids
    obs = env.reset(np.zeros((3, 1)), [np.random.default_rng(i) for i in range(3)])
    assert np.isfinite(obs).all(), "the batch is of use again"


def test_what_environments_print_does_not_disturb(walk, history):
    noisy = walk("print('hello'); os.write(1, b'there')")
    told = history(noisy)
    assert np.array_equal(told, history(walk()))


# --- processes ---


def test_the_worker_needs_nothing_of_ours(tmp_path):
    """Run away from the repository, isolated, it imports neither envs nor metarl, nor torch."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys\n\n\ndef make(**kwargs):\n"
        "    found = {'envs', 'metarl', 'torch', 'mujoco'} & set(sys.modules)\n"
        "    raise RuntimeError(f'imported: {sorted(found)}; flags {sys.flags.isolated}')\n"
    )
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\ncd /\nexec "{sys.executable}" -I "$@"\n')
    interpreter.chmod(0o755)
    family = GymnasiumFamily(env_id=f"{probe}:make", python=str(interpreter))
    with pytest.raises(WorkerError, match=r"imported: \[\]; flags 1"):
        family.observation_space  # noqa: B018
    cartpole = GymnasiumFamily(python=str(interpreter))
    assert cartpole.observation_space.shape == (4,)


def test_an_interpreter_without_gymnasium_is_told_what_to_install(tmp_path):
    interpreter = tmp_path / "python"
    block = "import sys; sys.modules['gymnasium'] = None; sys.argv[:] = sys.argv[1:]; import runpy"
    interpreter.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "{block}; '
        'runpy.run_path(sys.argv[0], run_name=\'__main__\')" "$@"\n'
    )
    interpreter.chmod(0o755)
    family = GymnasiumFamily(env_id="CartPole-v1", python=str(interpreter))
    with pytest.raises(WorkerError, match=r"needs Gymnasium, .*-m pip install gymnasium"):
        family.observation_space  # noqa: B018


def test_workers_end_with_the_batch_of_episodes(walk):
    env = walk().make_batch(4, 2)
    env.reset(np.zeros((4, 1)), [np.random.default_rng(i) for i in range(4)])
    pids = env.pool.pids
    assert all(alive(pid) for pid in pids)
    del env
    gc.collect()
    assert not any(alive(pid) for pid in pids)


def test_workers_end_when_an_environment_is_closed(walk):
    """Also through the wrapper that shows the task, and Gymnasium's interface."""
    env = task_env(TaskObserved(walk()))
    env.reset(seed=0)
    pids = env.unwrapped.batch_env.batch_env.pool.pids
    assert all(alive(pid) for pid in pids)
    env.close()
    env.close()
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(WorkerError, match="is closed; make the environment again"):
        env.reset(seed=0)


PARENT = """
import numpy as np, os, signal, sys, threading, time
from metarl.envs import GymnasiumFamily
family = GymnasiumFamily(env_id=sys.argv[1], parameters={"pull": (-1, 1)})
env = family.make_batch(4, 2)
env.reset(np.zeros((4, 1)), [np.random.default_rng(i) for i in range(4)])
print(*env.pool.pids, flush=True)
if sys.argv[2] == "killed":
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
    env.step(np.ones((4, 1)))
"""


@pytest.mark.parametrize("way", ["ends", "killed"])
def test_workers_never_outlive_the_parent(walk, way):
    """Not when it ends in peace, nor when it is killed while they are busy."""
    family = walk("time.sleep(100)")
    root = Path(__file__).parent.parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", PARENT, family.env_id, way],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=60,
        check=False,
    )
    assert done.returncode == (-9 if way == "killed" else 0), done.stderr
    assert done.stderr == ""
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    assert wait_until(lambda: not any(alive(pid) for pid in pids), 5.0)


def test_the_shared_arrays_do_not_overlap():
    sizes = {"episodes": 3, "workers": 2, "obs": 4, "action": 2, "task": 1}
    _, length = views(sizes)
    memory = bytearray(length)
    arrays, again = views(sizes, memory)
    assert again == length
    for number, array in enumerate(arrays.values()):
        array[:] = number
    assert all((array == number).all() for number, array in enumerate(arrays.values()))


def test_there_is_one_worker_program_and_it_is_where_we_look(walk):
    assert PROGRAM.is_file()
    assert all(len(walk().tasks(split, 2)) == 2 for split in SPLITS), "no process is needed"


def test_shared_arrays_are_in_a_file_where_memory_has_no_room(walk, monkeypatch):
    """As in a container, whose /dev/shm has 64 MB: a write beyond it would kill the process."""
    reserve, refusals = os.posix_fallocate, 0

    def small(descriptor, offset, length):
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return reserve(descriptor, offset, length)

    def first():
        rngs = [np.random.default_rng(i) for i in range(2)]
        return walk().make_batch(2).reset(np.zeros((2, 1)), rngs)

    expected = first()
    monkeypatch.setattr("os.posix_fallocate", small)
    refusals = 1
    assert np.array_equal(first(), expected)
    assert refusals == 0
    refusals = 2
    error = r"no room for the 0 MB .* share .No space left on device.; play"
    with pytest.raises(WorkerError, match=error):
        first()
