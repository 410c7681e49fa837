"""Trainers to be harmed: `metarl` in forked processes, as starting Python takes seconds."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from metarl.cli.main import main
from metarl.runs import checkpoint
from metarl.runs.packed import checksum
from metarl.runs.run import Run

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["examples.soak.warm"])
OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir")  # Python's audit events


def start(
    words: Sequence[str], directory: Path, errors: Path, die_at: int = 0
) -> ForkServerProcess:
    """Start `metarl` with some words.

    Args:
        words: its arguments.
        directory: the run's folder.
        errors: a file for what it says on stderr.
        die_at: the process kills itself before this operation on files of the run, counted from 1.
    """
    errors.unlink(missing_ok=True)  # a process may end before it has begun to write its own
    process = CONTEXT.Process(target=_run, args=(words, str(directory), errors, die_at))
    process.start()
    return process


def _run(words: Sequence[str], directory: str, errors: Path, die_at: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    number = itertools.count(1)

    def count(event: str, args: tuple[Any, ...]) -> None:
        mine = event in OPERATIONS and str(args[0]).startswith(directory)
        if mine and next(number) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if die_at:
        sys.addaudithook(count)
    sys.exit(main(list(words)))


def fingerprint(directory: Path) -> dict[str, str]:
    """Return, by file, a checksum of all that must not depend on how a run came about."""
    run = Run.open(directory)
    metrics = run.metrics_file.read_bytes()
    return {
        run.metrics_file.name: hashlib.sha256(metrics).hexdigest(),
        "lines of timings": str(len(run.timings())),
        **{
            path.name: checksum(vars(checkpoint.load(path)))
            for path in sorted(run.checkpoints.iterdir())
        },
    }
