"""Exact values of `bandit`: a Bayes-optimal agent, and an oracle that knows the best arm.

Values are the expected number of pulls that pay in an episode, over the tasks. `bandit_policies`
simulates Thompson sampling, UCB1 and greedy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from metarl.envs.bandit import Bandit

MAX_STATES = 10_000_000
"""Number of beliefs beyond which `bayes_optimal` gives up: about a minute and 1 GB."""


def oracle(family: Bandit) -> float:
    """Return the value of always pulling the best arm: n times the mean of the largest of K numbers
    that are uniform in [0, 1]."""
    return family.horizon * family.num_arms / (family.num_arms + 1)


def bayes_optimal(family: Bandit, *, max_states: int = MAX_STATES) -> float:
    """Return the value of a Bayes-optimal agent, by dynamic programming over counts.

    The posterior of an arm with s successes and f failures is Beta(1 + s, 1 + f), so a belief is
    these counts of all arms. Arms are exchangeable: only the sorted counts matter, and with n pulls
    no more than n of the arms. Feasible are, for example, any K with 10 pulls, 5 arms with up to
    30 pulls, 3 with 50, and 2 with 100.

    Raises:
        ValueError: if there are more than `max_states` beliefs.
    """
    num_arms, num_pulls = min(family.num_arms, family.horizon), family.horizon
    # Ordered counts with a sum below n, of which at most K! are one belief: refused at once
    fewest = math.comb(num_pulls - 1 + 2 * num_arms, 2 * num_arms) // math.factorial(num_arms)
    num_counts = (num_pulls + 1) * (num_pulls + 2) // 2
    if fewest > max_states or num_counts**num_arms > np.iinfo(np.int64).max:
        raise too_large(family, max_states)
    arms = ArmCounts.up_to(num_pulls)
    codes = [np.zeros(1, np.int64)]  # by number of pulls: the beliefs, as sorted numbers
    for _ in range(num_pulls - 1):
        successors = [
            encode(replaced(beliefs, arm, after[beliefs[:, arm]]), arms)
            for beliefs in [decode(codes[-1], num_arms, arms)]
            for arm in range(num_arms)
            for after in (arms.success, arms.failure)
        ]
        codes.append(np.unique(np.concatenate(successors)))
        if sum(map(len, codes)) > max_states:
            raise too_large(family, max_states)
    # Of a belief before the last pull, the value is the largest mean.
    value = arms.mean[decode(codes[-1], num_arms, arms)].max(axis=1)
    for before, after in zip(codes[-2::-1], codes[:0:-1], strict=True):
        beliefs, best = decode(before, num_arms, arms), np.zeros(len(before))
        for arm in range(num_arms):
            paid, not_paid = (
                value[np.searchsorted(after, encode(replaced(beliefs, arm, new), arms))]
                for new in (arms.success[beliefs[:, arm]], arms.failure[beliefs[:, arm]])
            )
            mean = arms.mean[beliefs[:, arm]]
            best = np.maximum(best, mean * (1 + paid) + (1 - mean) * not_paid)
        value = best
    return float(value[0])


@dataclass(frozen=True)
class ArmCounts:
    """The possible counts of successes s and failures f of an arm, numbered by s + f, then s.

    Attributes:
        pulls: s + f, (c,).
        mean: the posterior mean, (1 + s) / (2 + s + f), (c,).
        success, failure: the number of the counts after one more of them, (c,).
    """

    pulls: np.ndarray
    mean: np.ndarray
    success: np.ndarray
    failure: np.ndarray

    @classmethod
    def up_to(cls, num_pulls: int) -> ArmCounts:
        """Make the counts of up to that many pulls. Successors of the last are not among them."""
        pulls = np.repeat(np.arange(num_pulls + 1), np.arange(1, num_pulls + 2))
        numbers = np.arange(len(pulls))
        successes = numbers - pulls * (pulls + 1) // 2
        failure = numbers + pulls + 1
        return cls(pulls, (1 + successes) / (2 + pulls), failure + 1, failure)


def encode(beliefs: np.ndarray, arms: ArmCounts) -> np.ndarray:
    """Return beliefs, (n, K) numbers of counts in any order, as one number each, (n,)."""
    digits = np.sort(beliefs, axis=1)
    return digits @ (len(arms.pulls) ** np.arange(digits.shape[1], dtype=np.int64))


def decode(codes: np.ndarray, num_arms: int, arms: ArmCounts) -> np.ndarray:
    """Return the sorted beliefs, (n, K), of their codes, (n,)."""
    return codes[:, None] // (len(arms.pulls) ** np.arange(num_arms)) % len(arms.pulls)


def replaced(beliefs: np.ndarray, arm: int, counts: np.ndarray) -> np.ndarray:
    """Return beliefs, (n, K), with the counts of one arm replaced by others, (n,)."""
    changed = beliefs.copy()
    changed[:, arm] = counts
    return changed


def too_large(family: Bandit, max_states: int) -> ValueError:
    """Return the error of a bandit that is too large for an exact value."""
    return ValueError(
        f"bandit with num_arms {family.num_arms} and horizon {family.horizon}: the Bayes-optimal "
        f"value needs more than {max_states:,} beliefs; 5 arms are feasible up to horizon 30"
    )
