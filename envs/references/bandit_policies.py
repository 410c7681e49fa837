"""Rules for `bandit` that do not learn, and their returns by simulation.

All rules begin with one success and one failure of each arm, as in RL2's paper: a prior of
Beta(1, 1). Where arms are equally good, they pull the one with the lowest index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from metarl.envs.bandit import Bandit

Rule: TypeAlias = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""A function of the successes and the failures of each arm, (N, K), and a generator. It returns the
arms to pull, (N,)."""

UCB1_CONSTANT = 0.2
"""c of `ucb1`: of 0, 0.1, ..., 1 the best for 5 arms and 100 or 500 pulls; with 10 pulls 0.1 is as
good."""


def thompson_sampling(
    successes: np.ndarray, failures: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the best arms under a sample from the posterior, (N,) (Thompson 1933)."""
    return rng.beta(1 + successes, 1 + failures).argmax(axis=1)


def greedy(successes: np.ndarray, failures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the arms with the largest posterior mean, (N,)."""
    return ((1 + successes) / (2 + successes + failures)).argmax(axis=1)


def ucb1(
    successes: np.ndarray,
    failures: np.ndarray,
    rng: np.random.Generator,
    *,
    constant: float = UCB1_CONSTANT,
) -> np.ndarray:
    """Return the arms with the largest upper confidence bound, (N,) (Auer et al. 2002).

    The bound of an arm is its posterior mean + c sqrt(2 ln t / m), with t the number of pulls so
    far and m = 2 + successes + failures. In UCB1, c is 1; RL2's authors chose the best of 0, 0.1,
    ..., 1 for each number of arms and of pulls.
    """
    counts = 2 + successes + failures
    so_far = (successes + failures).sum(axis=1, keepdims=True)
    width = np.sqrt(2 * np.log(np.maximum(so_far, 1)) / counts)
    return ((1 + successes) / counts + constant * width).argmax(axis=1)


def simulate(family: Bandit, rule: Rule, num_tasks: int, seed: int = 0) -> np.ndarray:
    """Play one episode on each of `num_tasks` random tasks.

    Returns:
        The undiscounted returns, (num_tasks,). Tasks and the noise of rewards depend on the seed
        only, so that rules are compared on the same ones; `metarl.core.statistics.mean_interval`
        of the returns as one row, (1, num_tasks), is the interval of their mean.
    """
    rng = np.random.default_rng(seed)
    return returns_on(family, rule, family.sample_tasks(rng, num_tasks), rng)


def returns_on(
    family: Bandit, rule: Rule, tasks: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the undiscounted returns, (n,), of one episode on each task, (n, K)."""
    return played_on(family, rule, tasks, rng)[1].sum(axis=1)


def played_on(
    family: Bandit, rule: Rule, tasks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the arms, integers, and the rewards of all pulls of one episode on each task, (n, K):
    (n, horizon) each."""
    num_tasks, env = len(tasks), family.make_batch(len(tasks))
    env.reset(tasks, rng.spawn(num_tasks))
    successes, failures = np.zeros((2, num_tasks, family.num_arms))
    everyone = np.arange(num_tasks)
    pulled, rewards = [], []
    for _ in range(family.horizon):
        arms = rule(successes, failures, rng)
        _, reward, _ = env.step(arms[:, None])
        successes[everyone, arms] += reward
        failures[everyone, arms] += 1 - reward
        pulled.append(arms)
        rewards.append(reward)
    return np.stack(pulled, axis=1), np.stack(rewards, axis=1)
