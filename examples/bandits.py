"""Compare agents with UCB1 (Auer et al. 2002) on the same bandits.

    python -m examples.bandits RUN [RUN ...] --tasks 10000

prints the mean return of each run, that of UCB1 on the same bandits, and the difference with its
95% interval over bandits; in the last line the interval is over runs (seeds) and bandits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from metarl.core.parallel import available_cores
from metarl.core.statistics import mean_interval
from metarl.envs import Bandit
from metarl.envs.references.bandit_policies import returns_on, ucb1
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.loaded import load
from metarl.runs.run import Run


def main() -> None:
    """Evaluate, compare, print."""
    parser = argparse.ArgumentParser(description="Compare agents with UCB1 on the same bandits.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs of one config")
    parser.add_argument("--split", default="test")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--checkpoint", default="latest", help="latest, average or a number")
    parser.add_argument("--deterministic", action="store_true", help="take the likeliest arms")
    args = parser.parse_args()
    first = Run.open(args.runs[0]).config.env
    for folder in args.runs:
        family = Run.open(folder).config.env
        if not isinstance(family, Bandit):
            parser.error(f"{folder}: expected a run of bandit, got one of {family.name}")
        if family != first:
            parser.error(f"{folder}: expected the bandits of {args.runs[0]}, got {family}")
    returns = []  # of each run, by bandit
    for folder in args.runs:
        result = evaluate(
            load(folder, checkpoint=args.checkpoint),
            family,
            split=args.split,
            tasks=args.tasks,
            episodes=args.episodes,
            steps=0,
            threads=available_cores(),
            deterministic=args.deterministic,
        )
        returns.append(result.by_task[:, 0])
    reference = ucb1_returns(family, result.tasks, args.episodes)
    print("\n".join(table([folder.name for folder in args.runs], returns, reference)))


def ucb1_returns(family: Bandit, tasks: np.ndarray, num_episodes: int) -> np.ndarray:
    """Return the mean returns of UCB1 on bandits, (B,), over some episodes of each."""
    rng = np.random.default_rng(0)
    played = [returns_on(family, ucb1, tasks, rng) for _ in range(num_episodes)]
    return np.mean(played, axis=0)


def table(
    names: Sequence[str], returns: Sequence[np.ndarray], reference: np.ndarray
) -> Iterator[str]:
    """Yield the lines of a Markdown table.

    Args:
        names: of the runs.
        returns: of each run, its mean return on each bandit, (B,).
        reference: those of UCB1, (B,).
    """
    yield "| run | return | UCB1 | difference |"
    yield "|---|---|---|---|"
    everything = np.array(returns)  # (S, B)
    rows = [(name, each[None]) for name, each in zip(names, everything, strict=True)]
    if len(names) > 1:
        rows.append(("all", everything))
    for name, each in rows:
        low, high = mean_interval(each - reference)
        yield (
            f"| {name} | {each.mean():.2f} | {reference.mean():.2f} | "
            f"{(each - reference).mean():+.2f} ({low:+.2f} to {high:+.2f}) |"
        )


if __name__ == "__main__":
    main()
