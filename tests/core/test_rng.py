"""metarl.core.rng: random numbers by address."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.core.rng import MAX_SEED, Purpose, make_rng

ADDRESSES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, MAX_SEED),
        "purpose": st.sampled_from(Purpose),
        "iteration": st.integers(0, 2**40),
        "adaptation_step": st.integers(0, 2**20 - 1),
        "task": st.integers(0, 2**32 - 1),
        "episode": st.integers(0, 2**32 - 1),
    }
)


def words(num_words: int, **address: int) -> np.ndarray:
    """The first raw words of a stream."""
    return make_rng(**address).bit_generator.random_raw(num_words)


@given(ADDRESSES)
@settings(max_examples=50, deadline=None, database=None, derandomize=True)
def test_the_same_address_gives_the_same_numbers(address):
    assert np.array_equal(words(8, **address), words(8, **address))


@given(ADDRESSES, ADDRESSES)
@settings(max_examples=200, deadline=None, database=None, derandomize=True)
def test_different_addresses_give_different_numbers(one, other):
    if one != other:
        assert not np.array_equal(words(8, **one), words(8, **other))


@given(ADDRESSES, st.sampled_from(["seed", "iteration", "adaptation_step", "task", "episode"]))
@settings(max_examples=100, deadline=None, database=None, derandomize=True)
def test_each_part_of_an_address_matters(address, part):
    """Also at the largest values, where a part could run over into the next one's bits."""
    neighbour = {**address, part: address[part] ^ 1}
    assert not np.array_equal(words(8, **address), words(8, **neighbour))


def test_hundreds_of_neighbouring_streams_do_not_overlap():
    """No 64-bit word occurs twice in them, so none is a shifted copy of another."""
    names = ("seed", "purpose", "iteration", "adaptation_step", "task", "episode")
    parts = itertools.product(range(2), Purpose, range(2), range(6), range(2), range(3))
    drawn = [words(100, **dict(zip(names, address, strict=True))) for address in parts]
    assert len(drawn) == 2 * len(Purpose) * 2 * 6 * 2 * 3
    assert len(np.unique(drawn)) == 100 * len(drawn)


def test_a_stream_does_not_depend_on_what_was_drawn_before():
    np.random.default_rng().random(10)
    first = make_rng(3, Purpose.TASKS, iteration=5).random(4)
    make_rng(3, Purpose.TASKS, iteration=4).random(1000)
    assert np.array_equal(first, make_rng(3, Purpose.TASKS, iteration=5).random(4))


def test_streams_stay_what_they_are():
    """Golden words: another mapping from addresses to numbers would change every result."""
    drawn = words(
        3, seed=1, purpose=Purpose.TRAIN_EPISODES, iteration=2, adaptation_step=3, task=4, episode=5
    )
    assert drawn.tolist() == [10834019003026853310, 11419282162626252765, 926428715383676265]
