"""Risk over tasks: the mean return of the worst tasks as the objective, and a sampler that draws
hard tasks more often.

B is the number of tasks of a meta-batch, k the number of coordinates of a task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from metarl.core.schema import Section


class RiskConfig(Section):
    """Risk over tasks."""

    alpha: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the tasks whose mean is the objective, those with the lowest returns after
    adaptation: the conditional value at risk (CVaR). 1 is the mean over all tasks. With few
    episodes of each task, unlucky ones are among the worst too."""
    oversampling: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each meta-batch that is drawn by a sampler of hard tasks, which learns from the
    tasks played so far (cross-entropy method; Greenberg et al. 2023, RoML). Importance weights keep
    the objective that of the task distribution. 0 draws all tasks from the distribution."""
    rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the sampler's distribution that each meta-batch replaces."""
    bins: Annotated[int, Field(ge=2, le=1000)] = 10
    """Number of equally probable intervals of each coordinate of a task, whose probabilities the
    sampler learns. The tasks of a finite set have a probability each."""


def tail_weights(returns: np.ndarray, ratio: np.ndarray, alpha: float) -> np.ndarray:
    """Return the weights of tasks in the mean over the worst share `alpha` of a distribution.

    The mean over the n tasks that were played, of weight times return, is the conditional value at
    risk (Rockafellar and Uryasev 2000); the task at the boundary counts in part. The distribution
    of returns is estimated from its lower end (Glynn 1996): the probability of returns below that
    of a task is the sum of `ratio` of the tasks below, divided by n.

    Args:
        returns: mean return of each task, (B,); NaN for tasks that were not played.
        ratio: probability of each task in the distribution, divided by that with which it was
            drawn, (B,).
        alpha: the share, in (0, 1].

    Returns:
        (B,) float64; 0 for tasks that were not played.
    """
    order = np.argsort(returns, kind="stable")[: np.isfinite(returns).sum()]  # NaN comes last
    mass = ratio[order]
    below = np.cumsum(mass) - mass
    weights = np.zeros(len(returns))
    weights[order] = np.clip(alpha * len(order) - below, 0, mass) / alpha
    return weights


@dataclass(frozen=True)
class TaskProposal:
    """A distribution of tasks by their coordinates, which are independent, in intervals.

    Attributes:
        probabilities: probability of each interval of each coordinate, (k, bins) float64.
    """

    probabilities: np.ndarray

    @staticmethod
    def uniform(num_coordinates: int, bins: int) -> TaskProposal:
        """Return the distribution of the task family: all intervals are equally probable."""
        return TaskProposal(np.full((num_coordinates, bins), 1 / bins))

    def intervals(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the index of the interval of each coordinate, (n, k) integers."""
        bins = self.probabilities.shape[1]
        return np.minimum((coordinates * bins).astype(np.int64), bins - 1)

    def sample(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """Draw the coordinates of tasks, (number, k)."""
        num_coordinates, bins = self.probabilities.shape
        uniform = rng.random((2, number, num_coordinates))
        cumulative = self.probabilities.cumsum(axis=1)
        threshold = uniform[0] * cumulative[:, -1]
        interval = (threshold[..., None] >= cumulative[:, :-1]).sum(axis=2)
        return (interval + uniform[1]) / bins

    def density(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the density at coordinates, (n,), relative to that of the task family."""
        num_coordinates, bins = self.probabilities.shape
        found = self.probabilities[np.arange(num_coordinates), self.intervals(coordinates)]
        return (bins * found).prod(axis=1)

    def moved(self, coordinates: np.ndarray, weights: np.ndarray, rate: float) -> TaskProposal:
        """Return the distribution moved towards weighted tasks.

        The distribution of independent intervals with the largest weighted likelihood has their
        weighted frequencies: the step of the cross-entropy method (Rubinstein 1999), smoothed.

        Args:
            coordinates: of the tasks, (n, k).
            weights: of the tasks, (n,), not negative.
            rate: share of the distribution that the frequencies replace.
        """
        if not weights.sum() > 0:
            return self
        frequencies = np.zeros_like(self.probabilities)
        rows = np.arange(len(frequencies))
        for interval, weight in zip(self.intervals(coordinates), weights, strict=True):
            frequencies[rows, interval] += weight
        frequencies /= weights.sum()
        return TaskProposal((1 - rate) * self.probabilities + rate * frequencies)
