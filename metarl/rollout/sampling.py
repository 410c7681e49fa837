"""Sampling of the tasks of a meta-batch, from a distribution or from a set of training tasks."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import numpy as np
from pydantic import Field

from metarl.core.errors import MAX_ADAPTATIONS, ConfigError
from metarl.core.schema import NotNegative, Section
from metarl.envs import Perturbed, TaskFamily
from metarl.rollout.risk import RiskConfig

Steps: TypeAlias = Annotated[int, Field(ge=0, le=1000)]


class NuisanceConfig(Section):
    """Domain randomisation in training: perturbations whose strength each episode draws evenly from
    a range, low and high included. Evaluation is without them, or has its own (`robust`)."""

    observation_noise: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """Range of the standard deviation of normal noise on every number observed, in its own unit."""
    action_delay: tuple[Steps, Steps] = (0, 0)
    """Range of the number of control steps by which actions take effect late."""
    motor_strength: tuple[NotNegative, NotNegative] = (1.0, 1.0)
    """Range of the factor on actions, once they are clipped to the action space. For continuous
    actions only."""

    def applied(self, family: TaskFamily) -> TaskFamily:
        """Return the family with these perturbations; the family itself if there are none.

        Raises:
            ConfigError: if a range is not one, or the family cannot be perturbed so; names the key.
        """
        if self == NuisanceConfig():
            return family
        try:
            return Perturbed(family, **dict(self))
        except ValueError as error:
            raise ConfigError(f"sampling.nuisances.{error}") from error


class SamplingConfig(Section):
    """Numbers of tasks, episodes and adaptations of a meta-iteration."""

    num_tasks: Annotated[int, Field(ge=1)] = 40
    """Tasks per meta-batch."""
    num_episodes: Annotated[int, Field(ge=1)] = 20
    """Episodes per task, before and after each adaptation."""
    adaptation_steps: Annotated[int, Field(ge=0, le=MAX_ADAPTATIONS)] = 1
    """Adaptations in training; 0 trains one policy for all tasks."""
    train_tasks: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Number of fixed training tasks: the first tasks of the family's set `train`, with their index
    in the set as task id. 0 draws the tasks of each meta-batch from the task distribution."""
    risk: RiskConfig = RiskConfig()
    nuisances: NuisanceConfig = NuisanceConfig()

    def max_steps(self, horizon: int) -> int:
        """Return the number of environment steps of a meta-iteration whose episodes all last
        `horizon` steps."""
        return self.num_tasks * self.num_episodes * (self.adaptation_steps + 1) * horizon


def sample_meta_batch(
    config: SamplingConfig, family: TaskFamily, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw the B tasks of one meta-batch.

    Args:
        config: the numbers of tasks; B is `config.num_tasks`.
        family: the task family.
        rng: draws the tasks.

    Returns:
        Tasks, (B, task_dim); and task ids, (B,) int64, or None for tasks drawn from the
        distribution. Tasks of a fixed set are drawn without replacement if the set has at least B.

    Raises:
        ConfigError: if the family has fewer than `config.train_tasks` training tasks.
    """
    if not config.train_tasks:
        return family.sample_tasks(rng, config.num_tasks), None
    repeat = config.num_tasks > config.train_tasks
    ids = rng.choice(config.train_tasks, config.num_tasks, replace=repeat)
    try:
        return family.tasks("train", config.train_tasks)[ids], ids
    except ValueError as error:
        raise ConfigError(f"sampling.train_tasks: {error}") from error
