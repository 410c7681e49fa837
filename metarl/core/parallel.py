"""Work on microbatches of tasks in threads; results do not depend on the number of threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

# mallopt's names for its parameters (malloc.h)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEEP, OWN_PAGES = 1 << 30, 1 << 17  # bytes


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return libc if hasattr(libc, "mallopt") else None


LIBC = _glibc()


def available_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class MicrobatchPool:
    """Maps functions over microbatches of tasks.

    One thread works on a microbatch, and results are combined in the order of the microbatches. So
    sums are rounded alike on any number of threads, which torch's own threads do not promise.
    """

    def __init__(self, num_threads: int) -> None:
        # Without this, a thread's first matrix products are rounded as those of two threads are.
        single = {"initializer": torch.set_num_threads, "initargs": (1,)}
        self._executor = ThreadPoolExecutor(num_threads, **single) if num_threads > 1 else None

    def map(self, function: Callable[[T], R], microbatches: Sequence[T]) -> list[R]:
        """Return the results in the order of the microbatches."""
        if self._executor is None or len(microbatches) == 1:
            return [function(microbatch) for microbatch in microbatches]
        return list(self._executor.map(function, microbatches))


@contextlib.contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Let every torch operation use one thread: parallelism is over microbatches of tasks.

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
    # One arena for all threads, since only the main one honours the trim threshold.
    _mallopt(M_ARENA_MAX, 1)
    _mallopt(M_TRIM_THRESHOLD, KEEP)
    _mallopt(M_MMAP_THRESHOLD, KEEP)


@contextlib.contextmanager
def long_lived_memory() -> Iterator[None]:
    """Give each large block its own pages, for building what is kept while much else is freed.

    In the common heap the blocks that stay would leave holes between them: glibc cannot fill the
    hole of an aligned block with another of the same size, and four fifths of the memory were lost.
    """
    _mallopt(M_MMAP_THRESHOLD, OWN_PAGES)
    try:
        yield
    finally:
        _mallopt(M_MMAP_THRESHOLD, KEEP)


def _mallopt(parameter: int, value: int) -> None:
    if LIBC is not None:
        LIBC.mallopt(parameter, value)
