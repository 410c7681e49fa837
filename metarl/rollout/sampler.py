"""Where the episodes of a meta-batch are played: on this machine, or on others.

B is the number of tasks, E the number of episodes of each task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import BatchEnv
from metarl.rollout.collect import Actor, collect, episode_rngs
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import Failure


@dataclass(frozen=True)
class EpisodeRngs:
    """The random number generators of a batch of episodes, by address.

    Attributes:
        seed, purpose, iteration: as in `metarl.core.rng.make_rng`.
        num_episodes: E.
        phase: number of the phase of a meta-batch, from 0.
        num_adaptations: number of adaptations before the episodes, which failures record.
    """

    seed: int
    purpose: Purpose
    num_episodes: int
    iteration: int = 0
    phase: int = 0
    num_adaptations: int = 0

    def of_tasks(self, start: int, stop: int) -> list[np.random.Generator]:
        """Return the generators of the episodes of the tasks `start`, ..., `stop` - 1."""
        return episode_rngs(
            self.seed,
            self.purpose,
            stop - start,
            self.num_episodes,
            self.iteration,
            self.phase,
            first_task=start,
        )


class Sampler(ABC):
    """Plays batches of episodes elsewhere, with the results of `collect` to the bit.

    Attributes:
        num_episodes: number of episodes of a batch, B * E.
    """

    num_episodes: int

    @abstractmethod
    def collect(
        self,
        actor: Actor,
        tasks: np.ndarray,
        rngs: EpisodeRngs,
        timer: Timer,
        *,
        failures: list[Failure] | None,
        task_mask: np.ndarray,
        task_ids: np.ndarray | None,
    ) -> Episodes:
        """Play E episodes of each of B tasks; see `metarl.rollout.collect.collect`.

        The section `sampling` of the timer takes all of it.
        """

    @abstractmethod
    def close(self) -> None:
        """End all that the sampler has started. It cannot be used afterwards."""


def sample(
    source: BatchEnv | Sampler,
    actor: Actor,
    tasks: np.ndarray,
    rngs: EpisodeRngs,
    timer: Timer,
    on_step: Callable[[BatchEnv], None] | None,
    *,
    failures: list[Failure] | None,
    task_mask: np.ndarray,
    task_ids: np.ndarray | None,
) -> Episodes:
    """Play E episodes of each of B tasks on a batch environment, or by a sampler.

    Args:
        source: where they are played.
        rngs: the random number generators of the episodes.
        on_step: as in `collect`; None for a sampler.
        actor, tasks, timer, failures, task_mask, task_ids: as in `collect`.
    """
    if isinstance(source, Sampler):
        assert on_step is None
        return source.collect(
            actor,
            tasks,
            rngs,
            timer,
            failures=failures,
            task_mask=task_mask,
            task_ids=task_ids,
        )
    with timer("reset"):
        generators = rngs.of_tasks(0, len(tasks))
    return collect(
        source,
        actor,
        tasks,
        generators,
        timer,
        on_step,
        failures=failures,
        adaptation_step=rngs.num_adaptations,
        task_mask=task_mask,
        task_ids=task_ids,
    )
