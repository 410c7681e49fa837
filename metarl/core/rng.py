"""Random number generators that are keyed by their use.

Each generator is a Philox counter generator whose key and counter *are* its address (seed, purpose,
iteration, phase, task, episode). So no draw depends on the number of threads or workers, on earlier
draws, or on the iteration at which a run was resumed.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

MAX_SEED = 2**63 - 1


class Purpose(IntEnum):
    """The use of a generator."""

    INITIALISE = 0
    TASKS = 1
    TRAIN_EPISODES = 2
    EVALUATION_EPISODES = 3
    BOOTSTRAP = 4
    BENCHMARK = 5


def make_rng(
    seed: int,
    purpose: Purpose,
    *,
    iteration: int = 0,
    phase: int = 0,
    task: int = 0,
    episode: int = 0,
) -> np.random.Generator:
    """Return a new generator at the beginning of the random stream of an address.

    Args:
        seed: the seed of the run, 0 to `MAX_SEED`.
        purpose: the use of the numbers.
        iteration: the training iteration, below 2^64.
        phase: the number of adaptation steps before the episode, below 2^20.
        task: the index of the task in the meta-batch, below 2^32.
        episode: the index of the episode of the task, below 2^32.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox).
    """
    # Philox advances the first word of its counter, so 2^64 blocks belong to each address.
    counter = [0, iteration, (task << 32) | episode, 0]
    key = [seed, (int(purpose) << 20) | phase]
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
