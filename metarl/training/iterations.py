"""The only training loop: the iterations of a run, and what each leaves in the run's folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from metarl.agents import MetaAgent, check_fits
from metarl.core.errors import StorageError
from metarl.core.parsing import shell_path
from metarl.core.timer import Timer
from metarl.envs import BatchEnv, WorkerError
from metarl.rollout.failures import EpisodeDiverged, Failure, failures_of
from metarl.rollout.sampler import Sampler
from metarl.rollout.task_sampler import TaskSampler
from metarl.runs.atomic_io import wrap_os_errors
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.run import Run
from metarl.training.callbacks import Callback, after_iteration
from metarl.training.meta_iteration import meta_iteration
from metarl.training.monitor import TrainingMonitor
from metarl.training.progress import Progress
from metarl.training.replay import Recorder
from metarl.training.tracker import Tracker
from metarl.training.tracking import tracked
from metarl.training.validation import comparable_return, is_due, validate


class Interrupted(Exception):
    """A signal stopped the training, and its state has been saved.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, run: Run, iteration: int, signal_number: int) -> None:
        self.signal = signal_number
        super().__init__(
            f"stopped after iteration {iteration}; go on with: "
            f"metarl train --resume {shell_path(run.directory)}"
        )


class Iterations:
    """The remaining iterations of a run.

    Attributes:
        state: the checkpoint after the last iteration.
    """

    def __init__(self, run: Run, agent: MetaAgent, state: Checkpoint | None) -> None:
        """Set up the iterations after a checkpoint. Nothing is written.

        Args:
            run: the run.
            agent: its agent, in the state of the checkpoint.
            state: the checkpoint; None before the first iteration.

        Raises:
            UserError: if the checkpoint does not fit the config.
        """
        config = run.config
        self._run, self._agent = run, agent
        self._task_sampler = TaskSampler(config.sampling, config.env)
        if state is not None and state.iteration:
            check_fits(state.sampler, self._task_sampler.state_dict())
            self._task_sampler.load_state_dict(state.sampler)
        self.state = state or Checkpoint(
            0, 0, -np.inf, agent.state_dict(), self._task_sampler.state_dict()
        )
        self._recorder = Recorder(run, agent)
        self._monitor = TrainingMonitor(
            agent.max_update_kl, adapts=config.sampling.adaptation_steps > 0
        )
        self._timer = Timer(agent.device)
        self._returns: list[float | None] = []

    def restore(self) -> None:
        """Read what the iterations so far have left in the run's folder."""
        self._recorder.restore(self.state.iteration)
        for line in self._run.metrics():
            self._returns.append(objective(line))
            self._monitor(line)

    def run(
        self,
        env: BatchEnv | Sampler,
        tracker: Tracker,
        progress: Progress,
        stop: Sequence[int],
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Carry out the iterations.

        Args:
            env: what plays the episodes.
            tracker: records the metrics and the checkpoints.
            progress: shows the metrics.
            stop: the signals received so far; the first one ends the training.
            callbacks: are told the events, and may end the training too.

        Raises:
            Interrupted, EpisodeDiverged, NotFinite, WorkerError, StorageError: as `Trainer.run`.
        """
        run, total = self._run, self._run.config.iterations
        answers = [each.on_start(run, self.state.iteration) for each in callbacks]
        asked, signals = any(answers), []
        while self.state.iteration < total and not (asked or signals):
            with self._saving():
                metrics, timings = self._iterate(env)
                tracker.log(tracked(metrics, timings))
                kept = self._save(metrics, tracker)
                asked = after_iteration(callbacks, run, metrics, kept)
                progress(metrics, timings)  # last: standard output may be closed
            signals = [*stop]  # one that comes later ends the next iteration
            if (asked or signals) and not kept:
                run.save(self.state, best=False, keep=False)
        for each in callbacks:
            each.on_end(run, self.state.iteration)
        if self.state.iteration == total:
            return
        if signals:
            raise Interrupted(run, self.state.iteration, signals[0])
        print(
            f"stopped by a callback after iteration {self.state.iteration}; go on with: "
            f"metarl train --resume {shell_path(run.directory)}",
            flush=True,
        )

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """After an error in the block, save the state after the last whole iteration, where the
        disk allows it."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(StorageError, MemoryError):
                self._run.save(self.state, best=False, keep=False)
            raise

    def _iterate(self, env: BatchEnv | Sampler) -> tuple[dict[str, Any], dict[str, Any]]:
        """Carry out and log the next iteration, and return its metrics and timings."""
        run, before = self._run, self.state
        start = time.perf_counter()
        done = before.iteration + 1
        failures: list[Failure] = []
        try:
            metrics = meta_iteration(
                run.config,
                self._agent,
                env,
                before.iteration,
                self._timer,
                failures,
                self._recorder,
                self._task_sampler,
            )
            seconds = time.perf_counter() - start
            validation = self._validate(done, failures)
        except (EpisodeDiverged, FloatingPointError, WorkerError) as error:
            run.record(done, [*failures, *failures_of(error)])
            raise

        warnings = self._monitor(metrics)
        with wrap_os_errors("standard output"):
            for warning in warnings:
                print(f"warning: iteration {done}: {warning}", flush=True)
        if self._monitor.warnings:
            metrics["warnings"] = len(self._monitor.warnings)
        run.record(done, [*failures, *warnings])
        steps = metrics.pop("steps")
        counts = {"iteration": done, "env_steps": before.env_steps + steps}
        metrics = {**counts, **metrics, **validation}
        timings = {
            "iteration": done,
            "seconds": seconds,
            "env_steps_per_second": steps / seconds,
            **{f"seconds/{name}": spent for name, spent in self._timer.restart().items()},
        }
        run.log(metrics, timings)
        return metrics, timings

    def _validate(self, done: int, failures: list[Failure]) -> dict[str, Any]:
        """Evaluate the agent where the iteration `done` ends with an evaluation, and return the
        metrics; failed episodes are appended to `failures`."""
        if not is_due(self._run.config, done):
            return {}
        with self._timer("validation"):
            metrics, failed = validate(self._run.config, self._agent)
        failures.extend(failed)
        return metrics

    def _save(self, metrics: dict[str, Any], tracker: Tracker) -> bool:
        """Make the checkpoint of an iteration, and write it where it is due or the best so far.
        Return whether the run keeps it."""
        run, config, done = self._run, self._run.config, metrics["iteration"]
        self._returns.append(objective(metrics))
        due = done % config.checkpoint_every == 0 or done == config.iterations
        score = self._score(metrics, due)
        best = score > self.state.best_return
        state = Checkpoint(
            done,
            metrics["env_steps"],
            score if best else self.state.best_return,
            self._agent.state_dict(),
            self._task_sampler.state_dict(),
        )
        if due or best:
            run.save(state, best=best, keep=due)
        self.state = state  # not before: without its files, the iteration is carried out again
        if due:
            self._recorder.trim()
        if due and config.tracking.artifacts == "all":
            tracker.artifact("checkpoint", run.checkpoints / "latest.pt")
        return due

    def _score(self, metrics: dict[str, Any], due: bool) -> float:
        """Return the score by which the agent may become the checkpoint `best`: the return on all
        validation tasks if the config has evaluations, or else the recent return in training,
        see `objective`; -inf where there is none.

        Args:
            metrics: the metrics of the iteration.
            due: whether the checkpoint of the iteration is kept.
        """
        config = self._run.config
        if config.evaluation.every:
            return mean_score([comparable_return(metrics)])
        # The mean over all iterations since the last checkpoint has less variance than the mean of
        # one meta-batch.
        return mean_score(self._returns[-config.checkpoint_every :]) if due else -np.inf


def objective(metrics: Mapping[str, Any]) -> float | None:
    """Return what training raises, by the metrics of an iteration: the return after adaptation, in
    the worst tasks if these are the objective; of sequences of tasks the mean of that and of the
    return on revisited tasks. None if there is no episode."""
    after = metrics.get("return_worst", metrics["return_after"])
    revisited = metrics.get("return_revisited")
    return after if after is None or revisited is None else (after + revisited) / 2


def mean_score(returns: Sequence[float | None]) -> float:
    """Return the mean of the returns that are not None; -inf if all are None."""
    known = [each for each in returns if each is not None]
    return float(np.mean(known)) if known else -np.inf
