"""Measured times of the sections of an iteration."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import torch


class Timer:
    """Adds up the wall-clock time spent in named sections.

    On a GPU the end of a section waits for the kernels that the section has started.

    Attributes:
        seconds: total time in seconds, by section.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._synchronize = device is not None and device.type == "cuda"

    @contextlib.contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        """Add the time of the enclosed block to `section`."""
        start = time.perf_counter()
        yield
        if self._synchronize:
            torch.cuda.synchronize()
        self.seconds[section] += time.perf_counter() - start

    def restart(self) -> dict[str, float]:
        """Return the seconds by section, and set all of them to zero."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds
