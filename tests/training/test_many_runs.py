"""Many runs at a time: signals, and processes that are lost."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from metarl.core.errors import StorageError, UserError
from metarl.reporting.comparison_plan import plan
from metarl.rollout.failures import NotFinite
from metarl.runs.run import Run
from metarl.training import iterations
from metarl.training.many_runs import (
    LOST,
    STOPPED,
    STOPPING,
    Job,
    finish,
    finish_all,
    finished,
    is_locked,
)
from tests.training.test_loop import TINY

ENDLESS = {**TINY, "iterations": 1_000_000, "checkpoint_every": 1_000_000}


def job(folder, settings):
    return Job("point_nav/maml_trpo", settings, folder)


def wait_for(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_begun(folder):
    return (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size


def is_saved(folder):
    run = Run.open(folder)
    return run.load().iteration == len(run.metrics()) > 0


def test_a_signal_is_passed_on_to_the_processes_of_the_runs(tmp_path, capfd):
    folders = [tmp_path / name for name in "abc"]

    def stop():
        wait_for(lambda: all(map(has_begun, folders[:2])))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    outcomes = list(finished([job(folder, ENDLESS) for folder in folders], 2, print))
    assert {outcome.job.folder for outcome in outcomes} == {*folders[:2]}
    for outcome in outcomes:
        assert outcome.stopped
        assert outcome.error.startswith("stopped after iteration ")
        assert is_saved(outcome.job.folder)
    assert not folders[2].exists()
    assert capfd.readouterr().err == f"\n{STOPPING}\n"


def test_a_run_whose_process_is_killed_does_not_take_the_others_with_it(tmp_path):
    lost, *others = (tmp_path / name for name in "abc")

    def kill():
        wait_for(lambda: has_begun(lost))
        os.kill(int((lost / ".lock").read_text().split()[0]), signal.SIGKILL)

    threading.Thread(target=kill).start()
    jobs = [job(lost, ENDLESS), *(job(folder, TINY) for folder in others)]
    found = {outcome.job.folder: outcome for outcome in finished(jobs, 2, print)}
    assert [found[folder].error for folder in others] == [None, None]
    assert (found[lost].error, found[lost].passing, found[lost].stopped) == (LOST, True, False)


PROGRAM = """
import sys
from pathlib import Path
from metarl.training.many_runs import Job, finished
if __name__ == "__main__":
    settings = {"num_tasks": 2, "num_episodes": 2, "env.horizon": 4, "iterations": 1_000_000}
    settings |= {"checkpoint_every": 1_000_000}
    list(finished([Job("point_nav/maml_trpo", settings, Path(sys.argv[1]))], 2, print))
"""


def test_the_process_of_a_run_saves_it_and_ends_when_its_parent_was_killed(tmp_path):
    folder, program = tmp_path / "run", tmp_path / "program.py"
    program.write_text(PROGRAM)
    parent = subprocess.Popen([sys.executable, str(program), str(folder)])
    wait_for(lambda: has_begun(folder) or parent.poll() is not None)
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_locked(folder))
    assert is_saved(folder)


def test_after_a_signal_in_the_last_iteration_of_a_run_no_other_begins(tmp_path, monkeypatch):
    iteration = iterations.meta_iteration

    def stop(*args, **settings):
        signal.raise_signal(signal.SIGTERM)
        return iteration(*args, **settings)

    monkeypatch.setattr(iterations, "meta_iteration", stop)
    jobs = [job(tmp_path / name, {**TINY, "iterations": 1}) for name in "ab"]
    (outcome,) = finished(jobs, 1, lambda job: pytest.fail("its evaluation begins"))
    assert (outcome.error, outcome.stopped) == (STOPPED, True)
    assert is_saved(tmp_path / "a")
    with pytest.raises(RuntimeError, match=r"^stopped; the same command goes on$"):
        finish_all(jobs[1:], 1, print)


def test_a_file_that_changes_meanwhile_changes_no_run_that_was_planned(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("env: {family: point_nav}\niterations: 3\n")
    (planned,) = plan([str(file)], 1, tmp_path, {}, env_steps=None)["point_nav"]
    by_name = Job(str(file), {}, tmp_path)
    file.write_text("env: {family: point_nav}\niterations: 4\n")
    assert planned.config.iterations == 3
    assert by_name.config.iterations == 4


def test_a_run_of_many_is_tracked_by_no_tracker_unless_its_settings_say_so(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("env: {family: point_nav}\ntracking: {trackers: [csv]}\n")
    tracking = Job(str(file), {}, tmp_path).config.tracking
    assert (tracking.trackers, tracking.mode) == ((), "disabled")
    given = {"tracking.trackers": ["csv"]}
    assert Job(str(file), given, tmp_path).config.tracking.trackers == ("csv",)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotFinite("the mean return"), "error: NotFinite: the mean return is not finite"),
        (UserError("out: expected"), "error: UserError: out: expected\n"),
        (StorageError("a full disk"), "error: StorageError: a full disk\n"),
        (ZeroDivisionError("division by zero"), "Traceback .*ZeroDivisionError: division by zero"),
    ],
)
def test_the_log_has_a_traceback_of_errors_that_nobody_expects_alone(tmp_path, error, told):
    def fail(job):
        raise error

    outcome = finish(job(tmp_path / "a", TINY), fail)
    assert outcome.error == f"{type(error).__name__}: {error}"
    log = outcome.job.log.read_text()
    assert re.search(told, log, re.DOTALL)
    assert ("Traceback" in log) == isinstance(error, ZeroDivisionError)
