"""The settings of an evaluation, the same for every protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarl.core.errors import MAX_ADAPTATIONS, check, check_amount
from metarl.core.rng import MAX_SEED, Purpose
from metarl.rollout.collect import episode_rngs
from metarl.rollout.failures import Failure, OnFailure


@dataclass(frozen=True)
class EvaluationConfig:
    """The settings of an evaluation.

    Attributes:
        split: name of the task set.
        tasks: number of tasks of the task set.
        episodes: episodes per task, before and after each adaptation.
        steps: number of successive adaptations.
        seed: seed of the episodes.
        threads: number of threads of the physics; no influence on results.
        on_failure: whether a failed episode stops the evaluation (`stop`) or is left out.

    Raises:
        ConfigError: if a number is out of range.
    """

    split: str = "test"
    tasks: int = 40
    episodes: int = 20
    steps: int = 3
    seed: int = 0
    threads: int = 1
    on_failure: OnFailure = "stop"

    def __post_init__(self) -> None:
        check(self.episodes >= 1, "episodes", "at least 1", self.episodes)
        check(self.steps >= 0, "steps", "at least 0", self.steps)
        check(self.steps <= MAX_ADAPTATIONS, "steps", f"at most {MAX_ADAPTATIONS}", self.steps)
        check_amount(self.tasks * self.episodes, 1)
        check(0 <= self.seed <= MAX_SEED, "seed", f"between 0 and {MAX_SEED}", self.seed)

    def failure_sink(self, failures: list[Failure]) -> list[Failure] | None:
        """Return `failures` for `collect`; None if `on_failure` is `stop`, so `collect` raises."""
        return None if self.on_failure == "stop" else failures

    def episode_rngs(
        self, num_tasks: int, num_episodes: int, adaptation_step: int
    ) -> Sequence[np.random.Generator]:
        """Return the random number generators of episodes, task by task, (num_tasks *
        num_episodes,)."""
        purpose = Purpose.EVALUATION_EPISODES
        return episode_rngs(
            self.seed, purpose, num_tasks, num_episodes, adaptation_step=adaptation_step
        )
