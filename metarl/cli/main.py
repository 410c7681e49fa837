"""The entry point of `metarl`: run a command, report errors by one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click

from metarl.cli import commands, compare, package, tools, train, tune  # noqa: F401 (they add themselves to the group)
from metarl.cli.group import cli
from metarl.cli.parser import print_error, usage_message
from metarl.core.errors import StorageError, UserError

UNUSABLE = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
"""What is wrong with a path that is given, where files are only looked for."""
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED", "bad_alloc")
"""Texts in the errors of torch where memory is exhausted; on a CPU they are plain RuntimeErrors."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 after a failure, 2 after invalid input, 130
    after Ctrl-C, or 128 plus the number of the signal that stopped the training.

    Args:
        argv: the arguments; None for the arguments of the process.

    Raises:
        SystemExit: after shell completion, if stdout is a closed pipe, and at SIGTERM or SIGHUP
            while nothing is trained.
    """
    if argv is None:
        open_standard_files()
        end_at_signals()
    if argv is None and isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr; names are any text
    code = run(argv)
    cluster = sys.modules.get("metarl.rollout.cluster.session")
    if argv is None and cluster is not None and cluster.was_lost():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # Python's usual end may crash in Ray's threads
    return code


def open_standard_files() -> None:
    """Open those of stdin, stdout and stderr that are closed, such as by `2>&-`, as the null
    device: libraries would write messages into the next file that is opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free; other programs need it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", errors="backslashreplace", closefd=False))


def end_at_signals() -> None:
    """Let SIGTERM and SIGHUP end the process by an exception, so that temporary files go with it;
    one that is ignored, as SIGHUP with nohup, stays so."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):  # there is no SIGHUP on Windows
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


def run(argv: Sequence[str] | None) -> int:
    """Run a command as `main`, and return its exit code."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        return print_error("the current folder is not there any more; change to another", 2)
    try:
        if folder not in sys.path:
            sys.path.append(folder)  # for task families of the user
        return cli.main(argv, "metarl", standalone_mode=False) or 0
    except click.ClickException as error:
        return print_error(usage_message(error), 2)
    except UserError as error:
        return print_error(" ".join(str(error).splitlines()), 2)  # names may have line breaks
    except click.Abort:  # Ctrl-C
        return 130
    except OSError as error:
        unusable = error.errno in UNUSABLE and error.filename is not None
        if unusable and not isinstance(error, StorageError):
            return print_error(f"{error.filename}: cannot be used ({error.strerror})", 2)
        # Files are written with errors that name them.
        full = error.errno == errno.ENOSPC and not isinstance(error, StorageError)
        return print_error(f"standard output: {error.strerror}" if full else error, 1)
    except (MemoryError, RuntimeError) as error:
        from metarl.envs import EnvironmentRefused, WorkerError

        if isinstance(error, WorkerError):
            return print_error(error, 2 if isinstance(error, EnvironmentRefused) else 1)
        if str(error).startswith("Symlink loop"):  # of pathlib, before Python 3.13
            return print_error(error, 2)
        if message := out_of_memory_message(error):
            return print_error(message, 1)
        raise


def out_of_memory_message(error: Exception) -> str | None:
    """Return the error on one line if it means that memory is exhausted; None for other errors."""
    text = str(error)
    if not isinstance(error, MemoryError) and not any(sign in text for sign in OUT_OF_MEMORY):
        return None
    remedy = "choose fewer tasks, episodes or steps at once"
    if "CUDA" in text or "CUBLAS" in text:
        microbatches = "smaller microbatches (agent.tasks_per_microbatch)"
        return f"out of memory on the GPU; {remedy}, {microbatches}, or --device cpu"
    return f"out of memory; {remedy}"
