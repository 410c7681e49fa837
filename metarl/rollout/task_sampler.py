"""The tasks of the meta-batches of a run, and their weights in the objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from metarl.core.errors import ConfigError
from metarl.envs import TaskFamily
from metarl.rollout.risk import TaskProposal, tail_weights
from metarl.rollout.sampling import SamplingConfig, sample_meta_batch, training_tasks


class TaskSampler:
    """Draws the tasks of one meta-batch after another, and weighs them by their returns.

    Attributes:
        proposal: the distribution of hard tasks; None if all tasks are drawn from the task
            distribution.
    """

    def __init__(self, config: SamplingConfig, family: TaskFamily) -> None:
        """Set up for a config, with a proposal that equals the task distribution.

        Raises:
            ConfigError: as `initial_proposal`.
        """
        self._config, self._family = config, family
        self.proposal = initial_proposal(config, family)
        self._coordinates: np.ndarray | None = None  # of the last meta-batch, (B, k)

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """Draw the tasks of a meta-batch; returns and errors are those of `sample_meta_batch`.

        With a proposal, the last tasks are drawn from it, and the others from the distribution.
        """
        if self.proposal is None:
            return sample_meta_batch(self._config, self._family, rng)
        config, family = self._config, self._family
        num_hard = self._num_hard
        shape = (config.num_tasks - num_hard, len(self.proposal.probabilities))
        ordinary = rng.random(shape)
        hard = self.proposal.sample(rng, num_hard)
        self._coordinates = np.concatenate([ordinary, hard])
        if not config.train_tasks and family.all_tasks is None:
            return family.tasks_at(self._coordinates), None
        index = self.proposal.intervals(self._coordinates)[:, 0]
        if not config.train_tasks:
            assert family.all_tasks is not None
            return family.all_tasks[index], None
        return training_tasks(config, family)[index], index

    @property
    def _num_hard(self) -> int:
        return round(self._config.risk.oversampling * self._config.num_tasks)

    def weigh(self, returns: np.ndarray) -> np.ndarray | None:
        """Return the weights of the tasks of the last meta-batch, (B,) float64, and move the
        proposal towards the worst of them; None for equal weights.

        Args:
            returns: mean return of each task after adaptation, (B,); NaN for tasks without one.
        """
        config = self._config.risk
        if config.alpha == 1:
            return None
        if self.proposal is None:
            return tail_weights(returns, np.ones(len(returns)), config.alpha)
        assert self._coordinates is not None
        # The density of the mixture that the tasks were drawn from (Owen and Zhou 2000,
        # deterministic mixture sampling) is nowhere far below that of the distribution.
        share = self._num_hard / len(returns)
        ratio = 1 / (1 - share + share * self.proposal.density(self._coordinates))
        weights = tail_weights(returns, ratio, config.alpha)
        self.proposal = self.proposal.moved(self._coordinates, weights, config.rate)
        return weights

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state; empty without a proposal."""
        if self.proposal is None:
            return {}
        return {"probabilities": torch.tensor(self.proposal.probabilities)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state of another sampler of the same config."""
        if self.proposal is not None:
            self.proposal = TaskProposal(state["probabilities"].numpy().copy())


def initial_proposal(config: SamplingConfig, family: TaskFamily) -> TaskProposal | None:
    """Return a proposal that equals the task distribution; None if no tasks are oversampled.

    Raises:
        ConfigError: if tasks are oversampled though all weigh the same, if they are too few, or if
            the tasks of the family have no coordinates.
    """
    risk = config.risk
    if not risk.oversampling:
        return None
    if risk.alpha == 1:
        raise ConfigError(
            f"sampling.risk.oversampling: {risk.oversampling} needs a sampling.risk.alpha below 1, "
            "such as 0.2: without it no task is hard; expected 0"
        )
    if round(risk.oversampling * config.num_tasks) in (0, config.num_tasks):
        raise ConfigError(
            f"sampling.risk.oversampling: {risk.oversampling} of {config.num_tasks} tasks is "
            "none or all of them; expected such as 0.5, with at least 2 tasks"
        )
    number = config.train_tasks or family.num_all_tasks
    if number:
        return TaskProposal.uniform(1, number)
    if not family.num_coordinates:
        raise ConfigError(
            f"sampling.risk.oversampling: the tasks of {family.name} have no coordinates by which "
            "to draw hard ones (TaskFamily.tasks_at); expected 0, or a sampling.train_tasks of at "
            "least 1, such as 100"
        )
    return TaskProposal.uniform(family.num_coordinates, risk.bins)
