"""Many runs to their last iteration, several at a time."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from metarl.config import Config
from metarl.config_files import load_config
from metarl.training.callbacks import Callback
from metarl.training.iterations import Interrupted
from metarl.training.loop import start_or_resume


@dataclass(frozen=True)
class Job:
    """A run to train.

    Attributes:
        name: the name of its config.
        settings: values that replace those of the config.
        folder: the run's folder.
        label: suffix that distinguishes its results from others of the same method.
        callbacks: are told the events of its training. They travel to the process of the run.
    """

    name: str
    settings: dict[str, Any]
    folder: Path
    label: str = ""
    callbacks: tuple[Callback, ...] = ()

    @property
    def config(self) -> Config:
        """The config, on one thread and untracked unless `settings` say otherwise."""
        usual = {"threads": 1, "tracking.mode": "disabled"}
        return load_config(self.name, **{**usual, **self.settings})

    @property
    def log(self) -> Path:
        """The file with what the run prints, beside its folder."""
        return self.folder.with_name(f"{self.folder.name}.log")


class Outcome(NamedTuple):
    """The end of a job.

    Attributes:
        job: the job.
        seconds: the time it took now.
        error: why it failed; None if it did not.
        stopped: whether a signal stopped it, after which no other job begins.
    """

    job: Job
    seconds: float
    error: str | None
    stopped: bool = False


def finished(jobs: Iterable[Job], processes: int, then: Callable[[Job], None]) -> Iterator[Outcome]:
    """Train each run and call `then` with its job, `processes` runs at a time.

    Finished runs are not trained again, and others are resumed, so the call can be stopped and
    repeated at any time. A job that fails does not keep the others from their end. The output of a
    run goes to a file beside its folder.

    Args:
        jobs: the runs. A job is taken once a process is free for it and the outcomes so far were
            received, so it may depend on these.
        processes: number of runs at a time; a single one is trained in this process.
        then: called in the process of the run. It must be importable.

    Yields:
        The outcomes, in the order in which the jobs end.
    """
    waiting = iter(jobs)
    if processes == 1:
        for job in waiting:
            yield (outcome := finish(job, then))
            if outcome.stopped:
                return
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"))
    try:
        running = {pool.submit(finish, job, then) for job in islice(waiting, processes)}
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for done in ended:
                yield (outcome := done.result())
                if outcome.stopped:
                    return
                running |= {pool.submit(finish, job, then) for job in islice(waiting, 1)}
    finally:
        pool.shutdown(cancel_futures=True)


def finish(job: Job, then: Callable[[Job], None]) -> Outcome:
    """Train one run to its last iteration, and call `then` with its job."""
    start, error, stopped = time.perf_counter(), None, False
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as file, contextlib.redirect_stdout(file):
        try:
            start_or_resume(job.config, job.folder, callbacks=job.callbacks)
            then(job)
        except Interrupted as raised:
            error, stopped = str(raised), True
        except Exception as raised:  # of whatever kind: it may not be transported as it is
            traceback.print_exc(file=file)
            error = f"{type(raised).__name__}: {raised}"
    return Outcome(job, time.perf_counter() - start, error, stopped)


def finish_all(jobs: Sequence[Job], processes: int, then: Callable[[Job], None]) -> None:
    """Finish all jobs as `finished`, and say so on stderr.

    Raises:
        RuntimeError: if a job fails, once all others have ended.
    """
    failed = []
    for outcome in finished(jobs, processes, then):
        if outcome.error is None:
            print("done:", outcome.job.folder, file=sys.stderr, flush=True)
        else:
            failed.append(outcome)
    if failed:
        first = failed[0]
        raise RuntimeError(
            f"{first.job.folder}: {first.error} (see {first.job.log}; {len(failed)} of {len(jobs)} "
            "runs failed)"
        )
