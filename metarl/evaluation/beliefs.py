"""What an agent believes about its tasks: the beliefs in trials of an agent that has them, and how
they are read as beliefs about the task's own numbers.

B is the number of tasks, P the number of episodes of a trial, T the horizon, d the size of the
latent variable, k the number of numbers of a task.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from metarl.agents.base import MetaAgent
from metarl.agents.optional import Beliefs, beliefs
from metarl.agents.rollouts import adaptation_rollouts
from metarl.core.errors import UserError
from metarl.core.parallel import single_threaded_math
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import TaskFamily
from metarl.evaluation.evaluate import possible_adaptations
from metarl.evaluation.tasks import chosen_tasks

READING_TASKS = 100
"""Number of training tasks by which the reading of beliefs is fitted, at most."""
RIDGE = 1e-4
"""Weight of the squared slopes, beside the mean squared error, for latents of unit variance."""


@dataclass(frozen=True)
class TrialBeliefs:
    """The beliefs in one trial on each of B tasks.

    Attributes:
        tasks: (B, k).
        beliefs: the belief at each step of each episode, (B, P, T, d).
        mask: whether the step took place, (B, P, T) bool.
    """

    tasks: np.ndarray
    beliefs: Beliefs
    mask: np.ndarray

    @property
    def last(self) -> Beliefs:
        """The beliefs at the last steps of the trials, (B, d)."""
        length = np.maximum(self.mask[:, -1].sum(-1), 1)
        rows = np.arange(len(length)), -1, length - 1
        return Beliefs(*(value[rows] for value in self.beliefs))


def first_tasks(family: TaskFamily, split: str, most: int) -> np.ndarray:
    """Return the first tasks of a task set, (B, k): `most`, or all of them if they are fewer.

    Raises:
        UserError: if the family has no such set.
    """
    for count in range(most, 1, -1):
        with contextlib.suppress(UserError):
            return chosen_tasks(family, split, count)
    return chosen_tasks(family, split, 1)


def trial_beliefs(
    agent: MetaAgent, family: TaskFamily, tasks: np.ndarray, adaptations: int, seed: int = 0
) -> TrialBeliefs:
    """Play a trial on each task, (B, k), and return the agent's beliefs in it.

    Args:
        agent: an agent that has beliefs.
        family: the family of the tasks.
        tasks: the tasks.
        adaptations: number of adaptations; a trial has one episode more.
        seed: of the episodes.

    Raises:
        EpisodeDiverged: if an episode fails.
    """
    with single_threaded_math():
        rollouts = adaptation_rollouts(
            agent,
            family.make_batch(len(tasks)),
            tasks,
            possible_adaptations(agent, adaptations),
            seed=seed,
            purpose=Purpose.EVALUATION_EPISODES,
            timer=Timer(),
        )
        played = [(beliefs(agent, rollout), rollout.episodes.mask) for rollout in rollouts]
    found = [each for each, _ in played if each is not None]
    mean, std = (np.concatenate(values, axis=1) for values in zip(*found, strict=True))
    return TrialBeliefs(tasks, Beliefs(mean, std), np.concatenate([mask for _, mask in played], 1))


@dataclass(frozen=True)
class Reading:
    """A linear map from the latent variable to the task, by which a belief over the one becomes a
    belief over the other: with a Gaussian error, a Gaussian.

    Attributes:
        slope: (d, k).
        offset: (k,).
        error: covariance of the tasks around the map that the beliefs do not account for, (k, k).
    """

    slope: np.ndarray
    offset: np.ndarray
    error: np.ndarray

    @classmethod
    def fit(cls, found: Beliefs, tasks: np.ndarray) -> Reading:
        """Fit the map by ridge regression.

        The tasks lie around the map of the means, since the latent variable is uncertain and
        since the map has an error. The part of the first, which the standard deviations of the
        beliefs tell, is taken off, as a belief that is read adds its own.

        Args:
            found: the beliefs at the ends of trials, (n, d).
            tasks: the tasks of the trials, (n, k).
        """
        latent = found.mean.astype(np.float64)
        centre, middle = latent.mean(0), tasks.mean(0)
        centred, wanted = latent - centre, tasks - middle
        scale = np.diag(np.maximum(centred.var(0), 1e-12))
        matrix = centred.T @ centred / len(latent) + RIDGE * scale
        slope = np.linalg.solve(matrix, centred.T @ wanted / len(latent))
        residual = wanted - centred @ slope
        uncertain = slope.T @ np.diag(np.mean(np.square(found.std, dtype=np.float64), 0)) @ slope
        error = positive_part(residual.T @ residual / len(latent) - uncertain)
        return cls(slope, middle - centre @ slope, error)

    def only(self, numbers: np.ndarray) -> Reading:
        """Return the map to some of the numbers of a task, given by their indices."""
        error = self.error[np.ix_(numbers, numbers)]
        return Reading(self.slope[:, numbers], self.offset[numbers], error)

    def __call__(self, found: Beliefs) -> tuple[np.ndarray, np.ndarray]:
        """Return means, (..., k), and covariances, (..., k, k), of beliefs (..., d) over tasks."""
        mean = found.mean @ self.slope + self.offset
        spread = found.std[..., None] * self.slope  # (..., d, k)
        return mean, np.swapaxes(spread, -1, -2) @ spread + self.error


def positive_part(matrix: np.ndarray) -> np.ndarray:
    """Return the nearest positive semidefinite matrix, (k, k), to a symmetric one."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def fit_reading(agent: MetaAgent, family: TaskFamily, adaptations: int) -> Reading:
    """Fit how an agent's beliefs are read as beliefs about the task, on trials on training tasks.

    Raises:
        EpisodeDiverged: if an episode fails.
    """
    tasks = first_tasks(family, "train", READING_TASKS)
    found = trial_beliefs(agent, family, tasks, adaptations)
    return Reading.fit(found.last, tasks)
