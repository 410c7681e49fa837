"""The best run of each family, in a folder small enough to come with the code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from examples.many_runs import Job
from metarl.files import write_atomically
from metarl.runs import Run, encode

COPIED = ("config.yaml", "metrics.jsonl", "timings.jsonl", "checkpoints/latest.pt")


def ship(jobs: Sequence[Job], folder: Path) -> list[Path]:
    """Copy the finished run that was best in training, of each family; return the folders made.

    What is left out: the checkpoints on the way and, in the provenance, whose machine it was.
    """
    best: dict[str, tuple[float, Job]] = {}
    for job in jobs:
        family, reached = job.config.env.name, Run.open(job.folder).load().best_return
        if family not in best or reached > best[family][0]:
            best[family] = reached, job

    made = []
    for family, (_, job) in best.items():
        made.append(folder / family)
        shutil.rmtree(made[-1], ignore_errors=True)
        (made[-1] / "checkpoints").mkdir(parents=True)
        for name in COPIED:
            shutil.copyfile(job.folder / name, made[-1] / name)
        found = json.loads((job.folder / "provenance.json").read_text())
        command = ["metarl", "train", job.name, "--seed", str(job.config.seed)]
        kept = {"command": command, "versions": found["versions"], "processor": found["processor"]}
        write_atomically(made[-1] / "provenance.json", encode(kept))
    return made
