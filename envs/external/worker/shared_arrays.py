"""Layout of the arrays that a pool and its workers share."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping

import numpy as np


def views(
    sizes: Mapping[str, int], buffer: mmap.mmap | None = None
) -> tuple[dict[str, np.ndarray], int]:
    """Lay out the shared arrays: every number takes 8 bytes.

    Args:
        sizes: `episodes` N, `workers` W, and the dimensions `obs`, `action` and `task`.
        buffer: the shared memory; None to compute the size only.

    Returns:
        The arrays by name (none without a buffer), and their size in bytes.
    """
    n, w = sizes["episodes"], sizes["workers"]
    shapes = {
        "task": (n, sizes["task"]),
        "seed": (n,),
        "action": (n, sizes["action"]),
        "active": (n,),  # whether to step the episode
        "obs": (n, sizes["obs"]),
        "reward": (n,),
        "terminated": (n,),
        "truncated": (n,),
        "success": (n,),  # NaN if the environment does not report it
        "calls": (w,),  # of environments, so far: a worker whose count grows is not hanging
        "row": (w,),  # the episode being worked on
        "seconds": (w,),  # inside the environments, of the last command
    }
    integers = ("seed", "active", "terminated", "truncated", "calls", "row")
    arrays: dict[str, np.ndarray] = {}
    offset = 0
    for name, shape in shapes.items():
        dtype = np.int64 if name in integers else np.float64
        if buffer is not None:
            arrays[name] = np.ndarray(shape, dtype, buffer, offset)
        offset += 8 * math.prod(shape)
    return arrays, max(offset, 8)
