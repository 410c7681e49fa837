"""The best run of each config, in a folder small enough to come with the code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from examples.many_runs import Job
from metarl.runs.atomic_io import write_atomically
from metarl.runs.run import Run, encode

END = 20  # iterations
COPIED = ("config.yaml", "metrics.jsonl", "timings.jsonl", "checkpoints/latest.pt")


def ship(jobs: Sequence[Job], folder: Path) -> list[Path]:
    """Copy the finished run that ended best in training, of each config; return the folders made.

    What is left out: the checkpoints on the way and, in the provenance, whose machine it was.
    """
    best: dict[str, tuple[float, Job]] = {}
    for job in jobs:
        # Of the end, as it is the last checkpoint that is copied, and not the best one.
        reached = fmean(line["return_after"] for line in Run.open(job.folder).metrics()[-END:])
        if job.name not in best or reached > best[job.name][0]:
            best[job.name] = reached, job

    made = []
    for name, (_, job) in best.items():
        made.append(folder / name.replace("/", "-"))
        shutil.rmtree(made[-1], ignore_errors=True)
        (made[-1] / "checkpoints").mkdir(parents=True)
        for file in COPIED:
            shutil.copyfile(job.folder / file, made[-1] / file)
        found = json.loads((job.folder / "provenance.json").read_text())
        command = ["metarl", "train", name, "--seed", str(job.config.seed)]
        kept = {"command": command, "versions": found["versions"], "processor": found["processor"]}
        write_atomically(made[-1] / "provenance.json", encode(kept))
    return made
