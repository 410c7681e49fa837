"""The lock of a run's folder: at most one process trains a run."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from metarl.core.errors import UserError
from metarl.runs.atomic_io import wrap_os_errors


@contextlib.contextmanager
def training_lock(directory: Path) -> Iterator[None]:
    """Hold the exclusive training lock of a run; released by the OS if the process dies.

    Raises:
        UserError: if another process is training the run; names the process.
        StorageError: if the folder cannot be written.
    """
    path = directory / ".lock"
    lock = FileLock(path, timeout=0)
    with wrap_os_errors(path):
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"{directory}: {lock_owner(path)} is training here; wait for it, stop it, or "
                "choose another folder with --out"
            ) from None
    try:
        # On file systems without locks the file itself is the lock, and names its owner already.
        if not isinstance(lock, SoftFileLock):
            with wrap_os_errors(path):
                path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
        yield
    finally:
        lock.release()


def lock_owner(path: Path) -> str:
    """Return a text that names the process that holds a lock, read from the file of the lock: its
    number and its machine, a line each."""
    try:
        return f"process {' on '.join(path.read_text().split()[:2]) or '(of unknown number)'}"
    except (OSError, ValueError):
        return "another process"
