"""Callbacks: the events that they are told, stopping, and exceptions in them."""

import os
import signal

import pytest

import metarl
from metarl.core.errors import StorageError, UserError
from metarl.runs.run import Run
from metarl.training.iterations import Interrupted
from metarl.training.loop import resume, train
from tests.training.test_loop import assert_same_outcome, tiny


class Log(metarl.Callback):
    """Keeps the events; stops after, or fails in, an iteration."""

    def __init__(self, stop=None, fail=None, event="on_iteration"):
        self.events, self.stop, self.fail, self.event = [], stop, fail, event

    def note(self, event, iteration):
        self.events.append((event.removeprefix("on_"), iteration))
        if event == self.event and iteration == self.fail:
            raise KeyError("mine")
        return event == self.event and iteration == self.stop

    def on_start(self, run, iteration):
        return self.note("on_start", iteration)

    def on_iteration(self, run, metrics):
        assert run.metrics()[-1] == metrics
        return self.note("on_iteration", metrics["iteration"])

    def on_evaluation(self, run, metrics):
        assert "validation/return_after" in metrics
        return self.note("on_evaluation", metrics["iteration"])

    def on_checkpoint(self, run, iteration):
        assert run.load(str(iteration)).iteration == run.load().iteration == iteration
        return self.note("on_checkpoint", iteration)

    def on_end(self, run, iteration):
        self.note("on_end", iteration)


@pytest.fixture(scope="module")
def config():
    section = {"evaluation.every": 3, "evaluation.tasks": 2, "evaluation.episodes": 2}
    return tiny(iterations=4, checkpoint_every=2, **section)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    return train(config, tmp_path_factory.mktemp("runs") / "finished")


def test_events_come_in_order_and_change_nothing(config, finished, tmp_path):
    log, other = Log(), Log()
    run = train(config, tmp_path / "run", callbacks=[log, other, metarl.Callback()])
    assert log.events == [
        ("start", 0),
        ("iteration", 1),
        ("iteration", 2),
        ("checkpoint", 2),
        ("iteration", 3),
        ("evaluation", 3),
        ("iteration", 4),
        ("evaluation", 4),
        ("checkpoint", 4),
        ("end", 4),
    ]
    assert other.events == log.events
    assert_same_outcome(run.directory, finished.directory)


@pytest.mark.parametrize(
    ("event", "iteration"),
    [("on_start", 0), ("on_iteration", 1), ("on_evaluation", 3), ("on_checkpoint", 2)],
)
def test_a_callback_stops_a_training_that_then_goes_on(
    config, finished, tmp_path, capsys, event, iteration
):
    log, other = Log(stop=iteration, event=event), Log()
    run = train(config, tmp_path / "run", callbacks=[log, other])
    assert log.events[-1] == other.events[-1] == ("end", iteration)
    assert len(run.metrics()) == iteration
    assert (run.load().iteration if iteration else 0) == iteration
    text = f"stopped by a callback after iteration {iteration}; go on with: metarl train --resume"
    assert text in capsys.readouterr().out
    again = Log()
    resume(run.directory, callbacks=[again])
    assert again.events[0] == ("start", iteration)
    assert_same_outcome(run.directory, finished.directory)


def test_an_exception_is_raised_once_the_state_is_saved(config, finished, tmp_path):
    for number in (0, 1, 2, 3):
        event = "on_iteration" if number else "on_start"
        log = Log(fail=number, event=event)
        directory = tmp_path / str(number)
        with pytest.raises(KeyError, match="mine"):
            train(config, directory, callbacks=[log])
        assert ("end", number) not in log.events
        run = Run.open(directory)
        assert len(run.metrics()) == number
        state = run.latest()
        assert (state.iteration if state else 0) == number
        resume(directory)
        assert_same_outcome(directory, finished.directory)


def test_an_exception_at_the_end_loses_nothing(config, finished, tmp_path):
    with pytest.raises(KeyError, match="mine"):
        train(config, tmp_path / "run", callbacks=[Log(fail=4, event="on_end")])
    assert_same_outcome(tmp_path / "run", finished.directory)


def test_a_signal_ends_the_training_with_the_event(config, tmp_path):
    class Kill(Log):
        def on_iteration(self, run, metrics):
            if metrics["iteration"] == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    log = Kill()
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", callbacks=[log])
    assert log.events == [("start", 0), ("end", 1)]
    assert Run.open(tmp_path / "run").load().iteration == 1


def test_a_method_of_no_event_is_refused_before_the_work_begins(config, tmp_path):
    class Misspelt(metarl.Callback):
        def on_iterations(self, run, metrics):
            return True

    said = r"callbacks: Misspelt.on_iterations: there is no such event \(nearest: on_iteration\)"
    with pytest.raises(UserError, match=said):
        metarl.train(config, tmp_path / "run", callbacks=[Misspelt()])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [[print], Log(), [Log]])
def test_what_is_no_callback_is_refused_before_the_work_begins(config, tmp_path, wrong):
    with pytest.raises(UserError, match=r"^callbacks: expected a list of instances of classes"):
        train(config, tmp_path / "run", callbacks=wrong)
    assert not (tmp_path / "run").exists()


def test_no_iteration_is_kept_from_them_by_standard_output_that_was_closed(
    config, tmp_path, monkeypatch
):
    def closed(self, metrics, timings):
        raise StorageError("standard output: cannot be written")

    monkeypatch.setattr("metarl.training.progress.Progress.__call__", closed)
    log = Log()
    with pytest.raises(StorageError):
        train(config, tmp_path / "run", callbacks=[log])
    assert Run.open(tmp_path / "run").load().iteration == 1
    assert ("iteration", 1) in log.events
