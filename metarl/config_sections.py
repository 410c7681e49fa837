"""Sections of the config that are of training as a whole: its evaluations and its tracking."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metarl.core.errors import MAX_ADAPTATIONS, ConfigError, check_amount
from metarl.core.schema import Count, Section
from metarl.envs import TaskFamily
from metarl.rollout.sampling import SamplingConfig


class ValidationConfig(Section):
    """Evaluation while training, on the tasks of the family's set `validation`: the return before
    and after adaptation, as `metarl evaluate --split validation` measures it."""

    every: Annotated[int, Field(ge=0)] = 0
    """Number of iterations between evaluations, of which the last iteration has one too; 0 for
    none. With evaluations, the checkpoint `best` is that with the highest return after adaptation
    on validation tasks. They do not change what is learned."""
    tasks: Count = 20
    """Number of validation tasks."""
    episodes: Count | None = None
    """Episodes per task, before and after each adaptation; null for as many as in training."""
    steps: Annotated[int, Field(ge=0, le=MAX_ADAPTATIONS)] | None = None
    """Adaptations; null for as many as in training."""

    def amounts(self, sampling: SamplingConfig) -> dict[str, int]:
        """Return the numbers of `tasks`, `episodes` and `steps` by name."""
        episodes, steps = self.episodes, self.steps
        return {
            "tasks": self.tasks,
            "episodes": sampling.num_episodes if episodes is None else episodes,
            "steps": sampling.adaptation_steps if steps is None else steps,
        }

    def check(self, family: TaskFamily, sampling: SamplingConfig) -> None:
        """Check that the evaluations are possible on a family.

        Raises:
            ConfigError: if they are not; names the key.
        """
        if not self.every:
            return
        amounts = self.amounts(sampling)
        try:
            check_amount(amounts["tasks"] * amounts["episodes"], family.horizon)
            family.tasks("validation", 1)
        except ValueError as error:
            reason = str(error).removeprefix("num_tasks: ")
            raise ConfigError(f"evaluation.tasks: {reason}") from None


class TrackingConfig(Section):
    """Tracking by Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Tracking mode; `auto` is online if you are logged in and offline otherwise. `metrics.jsonl`
    is written in every mode."""
    project: str = "metarl"
    """Name of the project."""
    entity: str | None = None
    """User or team of the project; null for your default entity."""
    artifacts: Literal["all", "last", "none"] = "last"
    """What W&B stores as artifacts: `all` checkpoints, one every `checkpoint_every` iterations; the
    `last` one, when training ends or is stopped; or `none`. The run's folder has all of them."""
