"""The tasks of a meta-batch: drawn from the distribution, or from a fixed set of training tasks."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from metarl.core.errors import MAX_ADAPTATIONS, ConfigError
from metarl.core.schema import Section
from metarl.envs import TaskFamily


class SamplingConfig(Section):
    """The episodes of a meta-iteration."""

    num_tasks: Annotated[int, Field(ge=1)] = 40
    """Tasks per meta-batch."""
    num_episodes: Annotated[int, Field(ge=1)] = 20
    """Episodes per task, before and after each adaptation."""
    adaptation_steps: Annotated[int, Field(ge=0, le=MAX_ADAPTATIONS)] = 1
    """Adaptations in training; 0 trains one policy for all tasks."""
    train_tasks: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Number of fixed training tasks, the first ones of the family's set `train`, which carry their
    number as an id; 0 draws each meta-batch anew from the task distribution."""


def sample_meta_batch(
    config: SamplingConfig, family: TaskFamily, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw the tasks of one meta-batch.

    Returns:
        Tasks (B, task_dim), and their ids (B,) int64 where they come from a fixed set, without
        repetition unless the set has fewer than B.

    Raises:
        ConfigError: if the family does not have that many training tasks.
    """
    if not config.train_tasks:
        return family.sample_tasks(rng, config.num_tasks), None
    repeat = config.num_tasks > config.train_tasks
    ids = rng.choice(config.train_tasks, config.num_tasks, replace=repeat)
    try:
        return family.tasks("train", config.train_tasks)[ids], ids
    except ValueError as error:
        raise ConfigError(f"sampling.train_tasks: {error}") from error
