"""Tabulate what known agents reach on the small, finite families (docs/optima.md).

    python examples/references.py

takes half a minute. Values without an interval are exact; the others are simulated, with 95 %
intervals over tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from metarl.core.statistics import mean_interval
from metarl.envs import Bandit, GridWorld, TabularMDP
from metarl.envs.references import bandit, gridworld, tabular
from metarl.envs.references.bandit_policies import greedy, simulate, thompson_sampling, ucb1

NUM_BANDITS, NUM_MDPS = 10_000, 2_000
SIZES = ((5, 10), (5, 20), (5, 100), (5, 500), (2, 100), (10, 10))  # arms and pulls
EPISODES = (10, 25)  # of a tabular MDP


def main() -> None:
    """Print the tables."""
    for table in TABLES:
        print(*table(), "", sep="\n")


def gridworld_table(num_episodes: int = 4) -> Iterator[str]:
    """Yield the lines of the table of VariBAD's gridworld."""
    episodes = " | ".join(f"episode {1 + episode}" for episode in range(num_episodes))
    yield f"| Agent | {episodes} | sum |"
    yield "|---|" + (num_episodes + 1) * "---|"
    references: dict[str, Callable[[GridWorld, int], np.ndarray]] = {
        "oracle": gridworld.oracle,
        "Bayes-optimal": gridworld.bayes_optimal,
        "posterior sampling": gridworld.posterior_sampling,
    }
    for name, reference in references.items():
        returns = reference(GridWorld(), num_episodes)
        cells = " | ".join(f"{each:.3f}" for each in (*returns, returns.sum()))
        yield f"| {name} | {cells} |"


def bandit_table() -> Iterator[str]:
    """Yield the lines of the table of bandits."""
    yield "| Arms, pulls | oracle | Bayes-optimal | UCB1 (c = 0.2) | greedy | Thompson sampling |"
    yield "|---|---|---|---|---|---|"
    for num_arms, num_pulls in SIZES:
        family = Bandit(num_arms=num_arms, horizon=num_pulls)
        try:
            optimum = f"{bandit.bayes_optimal(family):.3f}"
        except ValueError:
            optimum = "not feasible"
        rules = (
            with_interval(simulate(family, rule, NUM_BANDITS))
            for rule in (ucb1, greedy, thompson_sampling)
        )
        cells = " | ".join((f"{bandit.oracle(family):.3f}", optimum, *rules))
        yield f"| {num_arms}, {num_pulls} | {cells} |"


def tabular_table() -> Iterator[str]:
    """Yield the lines of the table of tabular MDPs; returns are sums over episodes."""
    yield "| Episodes | oracle | PSRL | PSRL, prior around 0 |"
    yield "|---|---|---|---|"
    family = TabularMDP()
    tasks = family.sample_tasks(np.random.default_rng(0), NUM_MDPS)
    best = tabular.oracle(family, tasks)
    for episodes in EPISODES:
        known, zero = (
            tabular.posterior_sampling(family, episodes, NUM_MDPS, prior_mean=mean).sum(axis=1)
            for mean in (1.0, 0.0)
        )
        cells = " | ".join(with_interval(each) for each in (episodes * best, known, zero))
        yield f"| {episodes} | {cells} |"


def with_interval(returns: np.ndarray) -> str:
    """Return the mean of returns, (n,), and its interval as text."""
    low, high = mean_interval(returns[None])
    return f"{returns.mean():.2f} ({low:.2f} to {high:.2f})"


TABLES = (gridworld_table, bandit_table, tabular_table)


if __name__ == "__main__":
    main()
