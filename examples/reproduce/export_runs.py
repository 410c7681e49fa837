"""Export of the best run of each config into a folder that is small enough to distribute."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from metarl.runs.atomic_io import write_atomically
from metarl.runs.run import Run, encode
from metarl.training.many_runs import Job

LAST_ITERATIONS = 20
"""Number of iterations over whose mean return runs are compared."""
COPIED_FILES = ("config.yaml", "metrics.jsonl", "timings.jsonl", "checkpoints/latest.pt")


def export_runs(jobs: Sequence[Job], folder: Path) -> list[Path]:
    """Copy the run with the best last training returns of each config; return the new folders.

    A folder that is there already is replaced once the copy is whole. Intermediate checkpoints and
    the provenance's description of the machine are left out.
    """
    best: dict[str, tuple[float, Job]] = {}
    for job in jobs:
        # The last returns count, because the last checkpoint is copied and not the best one.
        reached = fmean(
            line["return_after"] for line in Run.open(job.folder).metrics()[-LAST_ITERATIONS:]
        )
        if job.name not in best or reached > best[job.name][0]:
            best[job.name] = reached, job

    made = []
    for name, (_, job) in best.items():
        made.append(folder / name.replace("/", "-"))
        copy = made[-1].with_name(f".{made[-1].name}")
        shutil.rmtree(copy, ignore_errors=True)
        (copy / "checkpoints").mkdir(parents=True)
        for file in COPIED_FILES:
            shutil.copyfile(job.folder / file, copy / file)
        found = json.loads((job.folder / "provenance.json").read_text())
        command = ["metarl", "train", name, "--seed", str(job.config.seed)]
        kept = {"command": command, "versions": found["versions"], "processor": found["processor"]}
        write_atomically(copy / "provenance.json", encode(kept))
        shutil.rmtree(made[-1], ignore_errors=True)
        copy.rename(made[-1])
    return made
