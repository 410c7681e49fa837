"""Code of the user's that is told the events of a training, and may stop it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metarl.core.errors import UserError, nearest, shown
from metarl.runs.run import Run
from metarl.training.validation import is_due


class Callback:
    """Derive from it and define the methods of the events of interest.

    A method that returns True asks the training to stop once the event is over: its state is saved,
    and `metarl.resume` goes on. By then `metrics.jsonl` has the iteration. An exception in a method
    also stops the training, is raised as it is, and the state is saved all the same.

    Callbacks have no influence on what is learned.
    """

    def on_start(self, run: Run, iteration: int) -> bool | None:
        """The training of a run begins, or goes on after `iteration` iterations."""

    def on_iteration(self, run: Run, metrics: Mapping[str, Any]) -> bool | None:
        """An iteration has ended; `metrics` are those of its line in `metrics.jsonl`."""

    def on_evaluation(self, run: Run, metrics: Mapping[str, Any]) -> bool | None:
        """An iteration has ended with an evaluation (`evaluation.every`), which is in `metrics` as
        `validation/return_after` and others."""

    def on_checkpoint(self, run: Run, iteration: int) -> bool | None:
        """A checkpoint was written that the run keeps; `run.load(iteration)` reads it."""

    def on_end(self, run: Run, iteration: int) -> None:
        """The training ends after `iteration` iterations: finished, or stopped by a callback or a
        signal, but not by an error."""


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Check that callbacks are a sequence of instances of `Callback`, whose methods named `on_`
    something are events.

    Raises:
        UserError: if they are not; names the first other object, or method.
    """
    expected = "expected a list of instances of classes derived from metarl.Callback"
    if not isinstance(callbacks, Sequence):
        raise UserError(f"callbacks: {expected}, got {shown(callbacks)}")
    events = [name for name in vars(Callback) if name.startswith("on_")]
    for each in callbacks:
        if not isinstance(each, Callback):
            raise UserError(f"callbacks: {expected}, got {shown(each)} in it")
        for name in dir(each):
            if name.startswith("on_") and name not in events:
                raise UserError(
                    f"callbacks: {type(each).__name__}.{name}: there is no such event"
                    f"{nearest(name, events)}: expected one of {', '.join(events)}"
                )


def after_iteration(
    callbacks: Sequence[Callback], run: Run, metrics: Mapping[str, Any], kept: bool
) -> bool:
    """Tell all callbacks the events of an iteration.

    Args:
        callbacks: the callbacks.
        run: the run.
        metrics: the metrics of the iteration.
        kept: whether the checkpoint of the iteration is kept.

    Returns:
        Whether any of them asks to stop.
    """
    iteration = metrics["iteration"]
    answers = []
    for each in callbacks:
        answers.append(each.on_iteration(run, dict(metrics)))
        if is_due(run.config, iteration):
            answers.append(each.on_evaluation(run, dict(metrics)))
        if kept:
            answers.append(each.on_checkpoint(run, iteration))
    return any(answers)
