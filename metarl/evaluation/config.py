"""The settings of an evaluation, the same for every protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarl.core.errors import MOST_ADAPTATIONS, check, check_amount, check_known
from metarl.core.rng import MAX_SEED, Purpose
from metarl.evaluation.evaluate import SCHEDULES, step_scales
from metarl.rollout.collect import episode_streams
from metarl.rollout.failures import Failure, OnFailure


@dataclass(frozen=True)
class EvaluationConfig:
    """The settings of an evaluation.

    Attributes:
        split: the name of the task set.
        tasks: number of its tasks.
        episodes: episodes per task, before and after each adaptation.
        steps: number of adaptations, one after another.
        schedule: schedule of their step sizes: `halving`, `geometric` or `constant`.
        seed: seed of the episodes.
        threads: threads for the physics; they do not influence the results.
        on_failure: whether a failed episode stops the evaluation (`stop`) or is left out.

    Raises:
        ConfigError: if a number is out of range.
        UserError: if the schedule is unknown.
    """

    split: str = "test"
    tasks: int = 40
    episodes: int = 20
    steps: int = 3
    schedule: str = "halving"
    seed: int = 0
    threads: int = 1
    on_failure: OnFailure = "stop"

    def __post_init__(self) -> None:
        check(self.episodes >= 1, "episodes", "at least 1", self.episodes)
        check(self.steps >= 0, "steps", "at least 0", self.steps)
        check(self.steps <= MOST_ADAPTATIONS, "steps", f"at most {MOST_ADAPTATIONS}", self.steps)
        check_amount(self.tasks * self.episodes, 1)
        check(0 <= self.seed <= MAX_SEED, "seed", f"between 0 and {MAX_SEED}", self.seed)
        check_known(self.schedule, SCHEDULES, "unknown schedule")

    @property
    def scales(self) -> list[float]:
        """The factor on the step size of each adaptation, (steps,)."""
        return step_scales(self.schedule, self.steps)

    def failure_sink(self, failures: list[Failure]) -> list[Failure] | None:
        """Return the list that `collect` appends failures to; None if the first one is to stop."""
        return None if self.on_failure == "stop" else failures

    def episode_streams(
        self, num_tasks: int, num_episodes: int, phase: int
    ) -> Sequence[np.random.Generator]:
        """Return the random streams of the episodes of one phase, (num_tasks * num_episodes,)."""
        purpose = Purpose.EVALUATION_EPISODES
        return episode_streams(self.seed, purpose, num_tasks, num_episodes, phase=phase)
