"""Counter-based random number generators (Philox, Salmon et al. 2011).

The key and the counter of a generator are made of seed, purpose, iteration, adaptation step, task
and episode. Its numbers therefore depend neither on the number of threads or workers, nor on
earlier draws, nor on the iteration at which a run was resumed.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

MAX_SEED = 2**63 - 1


class Purpose(IntEnum):
    """The purpose of a generator's random numbers. The values are part of the key."""

    INITIALISE = 0
    TASKS = 1
    TRAIN_EPISODES = 2
    EVALUATION_EPISODES = 3
    # 4 is of earlier versions.
    BENCHMARK = 5
    UPDATE = 6
    OBSERVATIONS = 7
    BOOTSTRAP = 8
    DRIFT = 9


def make_rng(
    seed: int,
    purpose: Purpose,
    *,
    iteration: int = 0,
    adaptation_step: int = 0,
    task: int = 0,
    episode: int = 0,
) -> np.random.Generator:
    """Return the random number generator of these coordinates.

    Args:
        seed: the seed of the run.
        purpose: the use of the random numbers.
        iteration: the training iteration.
        adaptation_step: number of adaptations before the episode, below 2^20; in training on
            sequences of tasks, number of the phase.
        task: index of the task in the meta-batch, below 2^32.
        episode: index of the episode in its task, below 2^32.
    """
    # Philox advances the first word of its counter, which leaves 2^64 blocks to each generator.
    counter = [0, iteration, (task << 32) | episode, 0]
    key = [seed, (int(purpose) << 20) | adaptation_step]
    # As arrays: earlier versions of NumPy round lists of integers above 2^63 to floating point.
    words = {"key": np.array(key, np.uint64), "counter": np.array(counter, np.uint64)}
    return np.random.Generator(np.random.Philox(**words))
