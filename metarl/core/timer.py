"""A timer of the sections of an iteration."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # workers of a cluster, which play episodes, start without torch
    import torch


class Timer:
    """Accumulates the wall-clock seconds spent in named sections.

    Attributes:
        seconds: accumulated seconds by name of the section.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """Set up; a CUDA `device` is synchronised at the end of each section."""
        self.seconds: dict[str, float] = defaultdict(float)
        self._gpu = device if device is not None and device.type == "cuda" else None

    @contextlib.contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        """Add the duration of the `with` block to `section`."""
        start = time.perf_counter()
        yield
        if self._gpu is not None:
            import torch

            torch.cuda.synchronize(self._gpu)
        self.seconds[section] += time.perf_counter() - start

    def restart(self) -> dict[str, float]:
        """Return the seconds by section, and reset them."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds
