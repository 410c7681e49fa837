"""A tracker that writes event files of TensorBoard to the folder `tensorboard` of the run.

It needs the extra `tensorboard`; nothing else imports this module.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from metarl.runs.run import Run
from metarl.training.tracker import NullTracker, in_section

FLUSH_SECONDS = 10
"""Time after which TensorBoard can show what was recorded."""


class TensorBoardTracker(NullTracker):
    """Scalars by iteration, and the images of evaluations and reports. A training that goes on
    replaces the event files of its earlier processes, whose iterations it records again."""

    def __init__(self, run: Run, job: str) -> None:
        folder = run.directory / "tensorboard" / job
        if job == "train":
            for file in folder.glob("events.out.tfevents.*"):
                file.unlink()
            logdir = shlex.quote(str(folder.parent))
            print(f"TensorBoard: show it with: tensorboard --logdir {logdir}", flush=True)
        self._writer = SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS)
        self._iteration = len(run.metrics())

    def log(self, metrics: Mapping[str, Any]) -> None:
        for name, value in metrics.items():
            if name != "iteration":
                self._writer.add_scalar(in_section(name), value, metrics["iteration"])

    def scalars(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, self._iteration)

    def image(self, name: str, path: Path) -> None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image(name, pixels, self._iteration, dataformats="HWC")

    def finish(self) -> None:
        self._writer.close()
