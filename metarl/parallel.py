"""Work on chunks of tasks in threads, with results that do not depend on how many."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

# mallopt's names for its parameters (malloc.h)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


class ChunkPool:
    """Maps functions over chunks of tasks.

    Each chunk is worked on by one thread, and results are combined in the order of the chunks; so
    sums are rounded alike on any number of threads, which torch's own threads do not promise.
    """

    def __init__(self, num_threads: int) -> None:
        self._executor = ThreadPoolExecutor(num_threads) if num_threads > 1 else None

    def map(self, function: Callable[[T], R], chunks: Sequence[T]) -> list[R]:
        """Return the results in the order of the chunks."""
        if self._executor is None or len(chunks) == 1:
            return [function(chunk) for chunk in chunks]
        return list(self._executor.map(function, chunks))


@contextlib.contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Let every torch operation use one thread: parallelism is over chunks of tasks.

    It also keeps torch's waiting threads, which spin, from slowing the physics.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of handing them back to the kernel at once.

    Large tensors are otherwise mapped anew, page by page, at every operation. No effect elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(ctypes.util.find_library("c"))
    if hasattr(libc, "mallopt"):
        # One arena for all threads, since only the main one honours the trim threshold.
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
