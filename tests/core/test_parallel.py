"""metarl.core.parallel: the threads that work on microbatches of tasks."""

import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from metarl.core.parallel import MicrobatchPool, single_threaded_math


def test_a_new_threads_first_matrix_product_is_that_of_the_main_thread():
    """To the bit. It took a thread some other work to learn that torch is single-threaded."""
    generator = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randn(1, 9, 100, generator=generator), torch.randn(1, 100, 100, generator=generator))
        for _ in range(2)
    ]

    def product(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.bmm(*pair)

    for _ in range(5):
        pooled = MicrobatchPool(2).map(product, pairs)
        assert all(torch.equal(product(p), found) for p, found in zip(pairs, pooled, strict=True))


def test_results_come_in_the_order_of_the_microbatches():
    assert MicrobatchPool(3).map(lambda x: x * x, list(range(20))) == [x * x for x in range(20)]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_copy_has_threads_of_its_own(threads):
    pool = MicrobatchPool(threads)
    for other in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):  # noqa: S301
        assert (other._executor is None) == (threads == 1)
        assert other.map(abs, [-1, 2]) == pool.map(abs, [-1, 2]) == [1, 2]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_call_that_was_started_ends_with_its_result_or_its_error(threads):
    pool = MicrobatchPool(threads)
    assert pool.start(lambda: 7).result() == 7
    failing = pool.start(lambda: 1 // 0)
    assert pool.map(abs, [-1, 2]) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        failing.result()


def test_the_caller_works_where_the_other_thread_is_busy():
    pool, waiting = MicrobatchPool(2), threading.Event()
    busy = pool.start(lambda: waiting.wait(60))
    assert pool.map(lambda x: threading.get_ident(), [1, 2, 3]) == [threading.get_ident()] * 3
    waiting.set()
    assert busy.result()


@pytest.mark.parametrize("failing", [0, 1])
def test_no_microbatch_begins_after_an_error(failing):
    """Of the caller, or of another thread, whose error the caller gets when it has ended."""
    together, waiting, begun = threading.Barrier(2), threading.Event(), []

    def work(number: int) -> None:
        begun.append(number)
        if number < 2:
            together.wait(60)  # one on each thread
        is_caller = threading.current_thread() is threading.main_thread()
        if is_caller == (failing == 0):
            raise ArithmeticError
        waiting.wait(0.5)

    with pytest.raises(ArithmeticError):
        MicrobatchPool(2).map(work, list(range(50)))
    assert len(begun) <= 3


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("number", [1, 3])
def test_torch_takes_one_thread_on_every_thread(threads, number):
    """Whoever calls, since the rounding of a product depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        pool = MicrobatchPool(threads)
        assert pool.map(lambda _: torch.get_num_threads(), range(number)) == [1] * number
        assert pool.start(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_pool_that_is_busy_keeps_no_results():
    class Result:
        pass

    pool, waiting, results = MicrobatchPool(2), threading.Event(), weakref.WeakSet()

    def work(_: int) -> Result:
        result = Result()
        results.add(result)
        return result

    busy = pool.start(lambda: waiting.wait(60))
    assert len(pool.map(work, range(5))) == 5
    del work
    gc.collect()
    assert not results
    waiting.set()
    assert busy.result()


def test_a_call_goes_on_beside_the_caller():
    waiting = threading.Event()
    started = MicrobatchPool(2).start(lambda: waiting.wait(60))
    waiting.set()
    assert started.result()


def test_matrix_products_of_numpy_and_torch_take_one_thread():
    """Whatever number of cores there is; afterwards as many as before."""

    def threads() -> list[int]:
        libraries = [
            each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"
        ]
        return [*libraries, torch.get_num_threads()]

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        assert max(before) == 2
        with single_threaded_math():
            assert set(threads()) == {1}
        assert threads() == before
