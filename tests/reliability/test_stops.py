"""Whatever ends a training early, the last whole iteration is saved, and it goes on from there."""

import os
import signal
import subprocess
import sys

import pytest

from metarl.runs.run import Run
from metarl.training import iterations
from metarl.training.loop import resume, train
from metarl.training.signals import stop_signals
from tests.training.test_loop import TINY, assert_same_outcome, tiny

EVERY = {"checkpoint_every": 100}  # no checkpoint is due before the last iteration


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never stopped."""
    return train(tiny(**EVERY), tmp_path_factory.mktemp("runs") / "finished").directory


@pytest.mark.parametrize("error", [MemoryError("mine"), KeyboardInterrupt("mine"), OSError("mine")])
@pytest.mark.parametrize("place", ["meta_iteration", "tracked"])
def test_an_error_within_an_iteration_costs_that_iteration_only(
    tmp_path, monkeypatch, finished, error, place
):
    """Before the update, and after the lines of the iteration were written."""
    original, calls = getattr(iterations, place), []

    def failing(*args, **settings):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return original(*args, **settings)

    monkeypatch.setattr(iterations, place, failing)
    with pytest.raises(type(error), match="mine"):
        train(tiny(**EVERY), tmp_path / "run")
    monkeypatch.undo()
    assert Run.open(tmp_path / "run").load().iteration == 3
    resume(tmp_path / "run")
    assert_same_outcome(tmp_path / "run", finished)


PROGRAM = """
import os, signal, sys
from metarl.cli.main import main
from metarl.training import iterations
original, played = iterations.meta_iteration, []
def act(*args, **settings):
    played.append(1)
    if len(played) == 4:
        os.close(int(sys.argv[1]))
        if sys.argv[2] != "0":
            signal.raise_signal(int(sys.argv[2]))
    return original(*args, **settings)
iterations.meta_iteration = act
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, 0])
def test_a_pipe_whose_reader_has_ended_loses_nothing(tmp_path, finished, number):
    """As `metarl train ... | tee log` at Ctrl-C, and `| head`: the end of the pipe that reads is
    closed in the fourth iteration, which is saved; the way on is said on stderr."""
    reading, writing = os.pipe()
    flags = [f"--{key}={value}" for key, value in {**TINY, **EVERY}.items()]
    words = ["train", "point_nav/maml_trpo", *flags, f"--out={tmp_path / 'run'}"]
    command = [sys.executable, "-c", PROGRAM, str(reading), str(int(number)), *words]
    process = subprocess.Popen(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, pass_fds=[reading]
    )
    os.close(reading)
    os.close(writing)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    last = error.splitlines()[-1]
    assert last.startswith("metarl: error: training stopped: standard output: cannot be written")
    assert last.endswith(f"go on with: metarl train --resume {tmp_path / 'run'}")
    assert ("finishing the iteration" in error) == bool(number)
    assert Run.open(tmp_path / "run").load().iteration == 4
    resume(tmp_path / "run")
    assert_same_outcome(tmp_path / "run", finished)


def test_a_hangup_is_recorded_once_however_often_it_comes_unless_it_is_ignored(capfd):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup make test` ignores it
    try:
        with stop_signals("stopping") as received:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
        assert received == [signal.SIGHUP]
        assert capfd.readouterr().err == "\nstopping\n"
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stop_signals() as received:
            signal.raise_signal(signal.SIGHUP)
        assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


RENDERING = """
import signal, sys
from metarl.cli.main import main
from metarl.reporting.video import adaptation
number = int(sys.argv.pop())
adaptation.play = lambda *args: signal.raise_signal(number)
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_video_that_is_stopped_leaves_nothing(tmp_path, number):
    out = tmp_path / "videos" / "a.gif"
    words = [sys.executable, "-c", RENDERING, "render", "pretrained/point_nav", f"--out={out}"]
    default = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)}  # under nohup
    done = subprocess.run([*words, str(int(number))], capture_output=True, text=True, **default)
    assert (done.returncode, done.stderr) == (128 + number, "")
    assert not [*out.parent.iterdir()]
