"""Many runs to their last iteration, several at a time."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from metarl.config import Config
from metarl.config_files import make_config, read_config
from metarl.core.errors import StorageError, UserError
from metarl.rollout.failures import EpisodeDiverged, NotFinite
from metarl.runs.atomic_io import make_folder, wrap_os_errors
from metarl.runs.lock import training_lock
from metarl.training.callbacks import Callback
from metarl.training.iterations import Interrupted
from metarl.training.job_workers import Worker
from metarl.training.loop import start_or_resume
from metarl.training.signals import stop_signals

POLL = 0.5  # s, between two looks at the signals
STOPPING = "stopping after the iterations or evaluations under way; once more to stop at once"
USUAL = {"threads": 1, "tracking.mode": "disabled"}
"""Values of each of many runs, unless they are set for all."""
STOPPED = "stopped by a signal"
EXPECTED = (UserError, StorageError, EpisodeDiverged, NotFinite)
"""Errors that a run may end with by its config or by what it meets; their messages tell all."""
LOST = "its process was lost (killed, or out of memory)"


@dataclass(frozen=True)
class Job:
    """A run to train.

    Attributes:
        name: the name of its config.
        settings: values that replace those of the config.
        folder: the run's folder.
        label: suffix that distinguishes its results from others of the same method.
        callbacks: are told the events of its training. They travel to the process of the run.
        values: the plain values of its config (`metarl.config_files.read_config`), which then do
            not depend on when they are used; None reads them by the name each time.
    """

    name: str
    settings: dict[str, Any]
    folder: Path
    label: str = ""
    callbacks: tuple[Callback, ...] = ()
    values: Mapping[str, Any] | None = None

    @property
    def config(self) -> Config:
        """The config, on one thread and untracked unless `settings` say otherwise."""
        values = read_config(self.name) if self.values is None else self.values
        config = make_config(values, self.name, {**USUAL, **self.settings})
        # W&B has a mode, which the environment may set; other trackers have none.
        kept = tuple(each for each in config.tracking.trackers if each == "wandb")
        asked = any(key.startswith("tracking.") for key in self.settings)
        if asked or kept == config.tracking.trackers:
            return config
        return make_config(values, self.name, {**USUAL, "tracking.trackers": kept, **self.settings})

    @property
    def log(self) -> Path:
        """The file with what the run prints, in a folder beside that of the run."""
        return log_file(self.folder)


def log_file(folder: Path) -> Path:
    """Return the file with what one of many runs prints, by the run's folder."""
    return folder.parent / "logs" / f"{folder.name}.log"


class Outcome(NamedTuple):
    """The end of a job.

    Attributes:
        job: the job.
        seconds: the time it took now.
        error: why it is not done; None if it is.
        stopped: whether a signal came, after which no other job begins.
        passing: whether the error is not one of the run, but of what it met: the disk, another
            process that trains it, the loss of its process.
    """

    job: Job
    seconds: float
    error: str | None
    stopped: bool = False
    passing: bool = False


def finished(
    jobs: Iterable[Job], processes: int, then: Callable[[Job], None]
) -> Generator[Outcome, None, None]:
    """Train each run and call `then` with its job, `processes` runs at a time.

    Finished runs are not trained again, and others are resumed, so the call can be stopped and
    repeated at any time. A job that fails does not keep the others from their end. The output of a
    run goes to `Job.log`.

    Args:
        jobs: the runs. A job is taken once a process is free for it and the outcomes so far were
            received, so it may depend on these.
        processes: number of runs at a time; a single one is trained in this process.
        then: called in the process of the run. It must be importable.

    Yields:
        The outcomes, in the order in which the jobs end. After a signal, those of the runs under
        way are the last ones.
    """
    waiting = iter(jobs)
    with stop_signals(STOPPING) as stop:
        if processes > 1:
            yield from _finished_by_workers(waiting, processes, then, stop)
            return
        for job in waiting:
            yield (outcome := finish(job, then))
            if outcome.stopped:
                return


def _finished_by_workers(
    jobs: Iterator[Job], processes: int, then: Callable[[Job], None], stop: Sequence[int]
) -> Iterator[Outcome]:
    """Yield the outcomes as `finished`, of processes that a signal in `stop` is passed on to."""
    free: list[Worker] = []
    running: dict[Future[Outcome], tuple[Job, Worker, float]] = {}
    is_told = False
    try:
        while True:
            while len(running) < processes and not stop and (job := next(jobs, None)) is not None:
                worker, future = _begin(job, then, free)
                running[future] = job, worker, time.perf_counter()
            if not running:
                break
            ended, _ = wait(running, POLL, FIRST_COMPLETED)
            for _, worker, _ in running.values() if stop else ():
                worker.stop(stop[0])
            for future in ended:
                job, worker, start = running.pop(future)
                try:
                    outcome = future.result()
                    free.append(worker)
                except BrokenProcessPool:
                    worker.close()
                    spent = time.perf_counter() - start
                    outcome = Outcome(job, spent, STOPPED if stop else LOST, passing=True)
                is_told = is_told or bool(stop)
                yield outcome._replace(stopped=bool(stop))
        if stop and not is_told and (job := next(jobs, None)) is not None:
            yield Outcome(job, 0.0, STOPPED, stopped=True)
    finally:
        workers = [*free, *(worker for _, worker, _ in running.values())]
        for worker in workers:
            worker.stop(stop[0] if stop else signal.SIGTERM)
        for worker in workers:
            worker.close()


def _begin(
    job: Job, then: Callable[[Job], None], free: list[Worker]
) -> tuple[Worker, Future[Outcome]]:
    """Begin a job in a free worker, or in a new one, and return both."""
    while free:
        worker = free.pop()
        try:
            return worker, worker.submit(finish, job, then)
        except BrokenProcessPool:  # it was killed between two jobs
            worker.close()
    worker = Worker()
    return worker, worker.submit(finish, job, then)


def finish(job: Job, then: Callable[[Job], None]) -> Outcome:
    """Train one run to its last iteration, and call `then` with its job."""
    start, error, passing = time.perf_counter(), None, False
    with stop_signals(STOPPING) as stop:
        if stop:
            return Outcome(job, 0.0, STOPPED, stopped=True)
        try:
            with _printing_to(job.log):
                start_or_resume(job.config, job.folder, callbacks=job.callbacks)
                error = STOPPED if stop else None
                if error is None:
                    then(job)
        except Interrupted as raised:
            error = str(raised)
        except Exception as raised:  # of whatever kind: it may not be transported as it is
            error = f"{type(raised).__name__}: {raised}"
            is_foreign = isinstance(raised, UserError) and is_locked(job.folder)
            passing = is_foreign or isinstance(raised, StorageError)
        return Outcome(job, time.perf_counter() - start, error, bool(stop), passing)


@contextlib.contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Append to a file what is printed in the block, and an error in it, with its traceback unless
    its message tells all.

    Raises:
        StorageError: if the file cannot be opened.
    """
    make_folder(log.parent)
    with wrap_os_errors(log):
        file = log.open("a", encoding="utf-8", errors="backslashreplace")
    try:
        with contextlib.redirect_stdout(file):
            yield
    except Interrupted:
        raise
    except EXPECTED as error:
        with contextlib.suppress(OSError):
            print(f"error: {type(error).__name__}: {error}", file=file)
        raise
    except Exception:
        with contextlib.suppress(OSError):
            traceback.print_exc(file=file)
        raise
    finally:
        with contextlib.suppress(OSError):  # a full disk, of which the run has told
            file.close()


def is_locked(folder: Path) -> bool:
    """Return whether another process trains the run of a folder."""
    if not folder.exists():
        return False
    try:
        with training_lock(folder):
            return False
    except UserError:
        return True
    except StorageError:
        return False


def finish_all(jobs: Sequence[Job], processes: int, then: Callable[[Job], None]) -> None:
    """Finish all jobs as `finished`, and say so on stderr.

    Raises:
        RuntimeError: if a job fails, once all others have ended, or if a signal stops them.
    """
    failed, stopped = [], False
    for outcome in finished(jobs, processes, then):
        stopped |= outcome.stopped
        if outcome.error is None:
            print("done:", outcome.job.folder, file=sys.stderr, flush=True)
        elif not outcome.stopped:
            failed.append(outcome)
    if stopped:
        raise RuntimeError("stopped; the same command goes on")
    if failed:
        first = failed[0]
        raise RuntimeError(
            f"{first.job.folder}: {first.error} (see {first.job.log}; {len(failed)} of {len(jobs)} "
            "runs failed)"
        )
