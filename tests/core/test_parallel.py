"""metarl.core.parallel: the threads that work on microbatches of tasks."""

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
