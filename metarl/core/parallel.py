"""Parallelism over microbatches of tasks, and settings of torch and of the memory allocator.

Within `single_threaded_math`, results do not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

# Parameters of mallopt, from malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEEP, OWN_PAGES = 1 << 30, 1 << 17  # bytes


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return libc if hasattr(libc, "mallopt") else None


LIBC = _glibc()


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class MicrobatchPool:
    """Threads that map functions over microbatches of tasks: the caller's and those of a pool.

    A microbatch is processed by one thread, and the results keep the order of the microbatches.
    Sums are therefore rounded identically for any number of threads, which the threads inside
    torch's operations do not guarantee.
    """

    def __init__(self, num_threads: int) -> None:
        """Start the pool of all threads but the caller's."""
        # Otherwise the first matrix products of a new thread use two threads of torch, which
        # changes the rounding.
        single = {"initializer": set_torch_threads, "initargs": (1,)}
        self._num_threads = num_threads
        self._executor = ThreadPoolExecutor(num_threads - 1, **single) if num_threads > 1 else None

    def __reduce__(self) -> tuple[type[MicrobatchPool], tuple[int]]:
        """Let an agent be copied and pickled: its copy has a pool, with threads of its own."""
        return MicrobatchPool, (self._num_threads,)

    def map(self, function: Callable[[T], R], microbatches: Sequence[T]) -> list[R]:
        """Return the results of `function`, in the order of the microbatches."""
        left, results = iter(range(len(microbatches))), {}

        def work() -> None:
            try:
                for index in left:  # of which each thread takes the next one
                    results[index] = function(microbatches[index])
            except BaseException:
                list(left)  # no thread begins another one
                raise

        # The caller works too, as a hand-over to another thread takes time.
        shared = [work]  # emptied at the end: a pool that is busy keeps what it has not begun
        helping: list[Future[Any]] = []
        if self._executor is not None:
            submit = partial(self._executor.submit, lambda: [each() for each in shared])
            helping = [submit() for _ in range(min(self._num_threads, len(microbatches)) - 1)]
        previous = set_torch_threads(1)
        try:
            work()
        finally:
            shared.clear()
            begun = [each for each in helping if not each.cancel()]
            wait(begun)
            set_torch_threads(previous)  # some of torch's settings are those of all threads
        for each in begun:
            each.result()
        return [results[index] for index in range(len(microbatches))]

    def start(self, function: Callable[[], R]) -> Future[R]:
        """Begin a call in a thread of the pool, beside the caller; with one thread, make it now."""
        if self._executor is not None:
            return self._executor.submit(function)
        made: Future[R] = Future()
        try:
            [result] = self.map(lambda call: call(), [function])
            made.set_result(result)
        except Exception as error:  # which the caller gets with the result
            made.set_exception(error)
        return made


@contextlib.contextmanager
def single_threaded_math() -> Iterator[None]:
    """Limit every operation of torch, and every matrix product of NumPy, to one thread, since
    parallelism is over episodes and over microbatches of tasks. Torch must be imported before: an
    actor that uses it imports it at the top of its module, not while it acts.

    The rounding of NumPy's larger products depends on the number of threads, that is of cores. The
    idle threads of torch, which wait in a busy loop, would also slow down the physics.
    """
    previous = set_torch_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        set_torch_threads(previous)


def set_torch_threads(number: int) -> int:
    """Set the number of threads inside an operation of torch, and return the number before.

    Torch is not imported for it, which takes seconds: a process that only plays episodes does
    without.
    """
    if (torch := sys.modules.get("torch")) is None:
        return number
    previous: int = torch.get_num_threads()
    torch.set_num_threads(number)
    return previous


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for reuse instead of returning it to the kernel immediately.

    By default, large tensors are mapped again, page by page, at every operation. The function has
    no effect on systems without glibc.
    """
    # One arena for all threads: the trim threshold applies to the main arena only.
    _mallopt(M_ARENA_MAX, 1)
    _mallopt(M_TRIM_THRESHOLD, KEEP)
    _mallopt(M_MMAP_THRESHOLD, KEEP)


@contextlib.contextmanager
def long_lived_memory() -> Iterator[None]:
    """Allocate large blocks on separate pages while long-lived tensors are built.

    During such a build many temporary tensors are freed. In the common heap the remaining blocks
    would fragment the memory: glibc cannot reuse the gap of an aligned block for a block of the
    same size, and four fifths of the memory were wasted.
    """
    _mallopt(M_MMAP_THRESHOLD, OWN_PAGES)
    try:
        yield
    finally:
        _mallopt(M_MMAP_THRESHOLD, KEEP)


def _mallopt(parameter: int, value: int) -> None:
    if LIBC is not None:
        LIBC.mallopt(parameter, value)
