"""Random numbers by address: every stream is keyed by what it is for.

A stream is a Philox counter generator whose key and counter *are* its address (seed, purpose,
iteration, task, episode). So no draw depends on the number of threads or workers, on what was drawn
before, or on where a run was resumed.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

MAX_SEED = 2**63 - 1


class Purpose(IntEnum):
    """What a stream is for."""

    INITIALISE = 0
    TASKS = 1
    TRAIN_EPISODES = 2
    EVALUATION_EPISODES = 3
    BOOTSTRAP = 4
    BENCHMARK = 5
    UPDATE = 6


def make_rng(
    seed: int,
    purpose: Purpose,
    *,
    iteration: int = 0,
    adaptation_step: int = 0,
    task: int = 0,
    episode: int = 0,
) -> np.random.Generator:
    """Return the random stream of an address: up to 2^20 adaptations, 2^32 tasks and episodes.

    Args:
        seed: the seed of the run.
        purpose: what the numbers are for.
        iteration: the training iteration.
        adaptation_step: the number of adaptations before the episode.
        task: the task's number within the meta-batch.
        episode: the episode's number within its task.
    """
    # Philox advances the first word of its counter, so 2^64 blocks belong to each address.
    counter = [0, iteration, (task << 32) | episode, 0]
    key = [seed, (int(purpose) << 20) | adaptation_step]
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
