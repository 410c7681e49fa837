"""The files of offline W&B runs, of which a later one may replace an earlier one.

Every process that tracks a run offline makes a file `wandb/offline-run-TIME-ID/run-ID.wandb`. W&B's
process buffers it: after `kill -9` up to 32 KiB are missing, often all, and then `wandb sync` fails
for all files with this id. So a resumed training records again, from the logs in the run's folder,
all iterations that have not been sent, and `wandb sync` leaves the earlier files out.
"""

from __future__ import annotations

import os
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from metarl.runs.atomic_io import write_atomically
from metarl.runs.run import Run

HEADER = 7
"""Bytes of a file without any record."""
NOTE = "metarl-iterations.txt"
LOCK = "metarl.lock"
SUPERSEDED = "superseded: a later file of this run has everything\n"


def superseded_files(run: Run, current: Path, identity: str, job: str) -> list[Path]:
    """Return the files of earlier processes that are not to be sent once this one has finished.

    Args:
        run: the run.
        current: the folder in which W&B records now.
        identity: the id of the W&B run.
        job: the kind of work. Only a training repeats what earlier processes have recorded. Of
            other work, and if the user has chosen one id for all work, only files without any
            record are returned, and not those of processes that still work: W&B may not have
            written their records yet.
    """
    repeats = job == "train" and not os.environ.get("WANDB_RUN_ID")
    files = sorted(run.directory.glob(f"wandb/offline-run-*-{identity}/run-{identity}.wandb"))
    return [
        file
        for file in files
        if file.parent.resolve() != current.resolve()
        and file.resolve().is_relative_to(run.directory.resolve())
        and not _marker(file).exists()
        and (repeats or (file.stat().st_size <= HEADER and not _is_held(file.parent)))
    ]


def hold(folder: Path) -> BaseFileLock:
    """Lock the folder of a process's W&B files as long as the process works; return the lock."""
    lock = FileLock(folder / LOCK, timeout=0)
    lock.acquire()
    return lock


def _is_held(folder: Path) -> bool:
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def mark_synced(file: Path) -> None:
    """Make `wandb sync` skip a file (unless it is asked for --include-synced)."""
    write_atomically(_marker(file), SUPERSEDED.encode())  # in place of a link, not where it leads


def note_iterations(folder: Path, iteration: int) -> None:
    """Note in the folder of a process's W&B files that they reach up to an iteration."""
    (folder / NOTE).write_text(f"{iteration}\n")


def sent_iterations(run: Run, identity: str) -> int:
    """Return the iteration up to which W&B has been sent a training, as far as the files tell: by
    processes that were online, or by `wandb sync`."""
    found = [0]
    for note in run.directory.glob(f"wandb/*run-*-{identity}/{NOTE}"):
        marker = _marker(note.parent / f"run-{identity}.wandb")
        synced = marker.exists() and marker.read_text() != SUPERSEDED
        number = note.read_text().strip()
        if number.isdecimal() and (synced or not note.parent.name.startswith("offline-")):
            found.append(int(number))
    return max(found)


def _marker(file: Path) -> Path:
    return file.with_suffix(".wandb.synced")
