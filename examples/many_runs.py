"""Train many runs to their last iteration, several at a time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from metarl.config import Config
from metarl.config_files import load_config
from metarl.training.loop import start_or_resume


@dataclass(frozen=True)
class Job:
    """A run to train.

    Attributes:
        name: the name of its config.
        settings: values that replace those of the config.
        folder: the run's folder.
        label: suffix that distinguishes its results from others of the same method.
    """

    name: str
    settings: dict[str, Any]
    folder: Path
    label: str = ""

    @property
    def config(self) -> Config:
        """The config, on one thread and untracked."""
        always = {"threads": 1, "tracking.mode": "disabled"}
        return load_config(self.name, **self.settings, **always)


def finish_all(jobs: Sequence[Job], processes: int, then: Callable[[Job], None]) -> None:
    """Train each run and call `then` with its job, `processes` runs at a time.

    Finished runs are not trained again, and runs with fewer iterations are resumed, so the call can
    be stopped and repeated at any time. The output of a run goes to a file beside its folder.
    """
    for job in jobs:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
    if processes == 1:
        for job in jobs:
            finish(job, then)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for done in [pool.submit(finish, job, then) for job in jobs]:
            done.result()


def finish(job: Job, then: Callable[[Job], None]) -> None:
    """Train one run to its last iteration and call `then` with its job."""
    log = job.folder.with_name(f"{job.folder.name}.log")
    with log.open("a") as file, contextlib.redirect_stdout(file):
        start_or_resume(job.config, job.folder)
        then(job)
    print("done:", job.folder, file=sys.stderr, flush=True)
