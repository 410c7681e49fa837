"""Compare agents with UCB1 (Auer et al. 2002) on the same bandits.

    python -m examples.bandits RUN [RUN ...] --tasks 10000

prints the mean return of each run, that of UCB1 on the same bandits, and the difference with its
95% interval over bandits; in the last line the interval is over runs (seeds) and bandits. With
`--first 30`, it prints the differences of the expected returns in the first 30 pulls and in the
later ones too, of one episode on each bandit: whether an agent searches worse, or ends at a worse
arm.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from examples.command import run_script
from metarl.agents import MetaAgent
from metarl.core.parallel import available_cores, single_threaded_math
from metarl.core.rng import Purpose
from metarl.core.statistics import mean_interval
from metarl.core.timer import Timer
from metarl.envs import Bandit
from metarl.envs.references.bandit_policies import played_on, returns_on, ucb1
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.loaded import load
from metarl.rollout.collect import collect, episode_rngs
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
    parser.add_argument("--first", type=int, help="number of pulls to be looked at apart")
    args = parser.parse_args()
    configs = [Run.open(folder).config for folder in args.runs]
    families: list[Bandit] = []
    for folder, config in zip(args.runs, configs, strict=True):
        found = config.env
        if not isinstance(found, Bandit):
            parser.error(f"{folder}: expected a run of bandit, got one of {found.name}")
        families.append(found)
        if found != families[0]:
            parser.error(f"{folder}: expected the bandits of {args.runs[0]}, got {found}")
    family = families[0]
    if args.first is not None and not 0 < args.first < family.horizon:
        parser.error(f"--first: expected from 1 to {family.horizon - 1}, got {args.first}")
    names, agents = [folder.name for folder in args.runs], []
    returns = []  # of each run, by bandit
    for folder, config in zip(args.runs, configs, strict=True):
        agents.append(load(folder, checkpoint=args.checkpoint))
        result = evaluate(
            agents[-1],
            family,
            split=args.split,
            tasks=args.tasks,
            episodes=args.episodes,
            steps=0,
            threads=available_cores(),
            deterministic=args.deterministic,
            on_failure=config.on_failure,
        )
        returns.append(result.by_task[:, 0])
    reference = ucb1_returns(family, result.tasks, args.episodes)
    print("\n".join(table(names, returns, reference)))
    if args.first:
        tasks = result.tasks
        arms = [arms_of(agent, family, tasks, args.deterministic) for agent in agents]
        print("\n" + "\n".join(parts_table(names, arms, family, tasks, args.first)))


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


def arms_of(agent: MetaAgent, family: Bandit, tasks: np.ndarray, deterministic: bool) -> np.ndarray:
    """Return the arms that an agent pulls in one episode on each of B bandits, (B, horizon)."""
    actor = agent.actor(agent.initial_state(len(tasks)), deterministic=deterministic)
    rngs = episode_rngs(0, Purpose.EVALUATION_EPISODES, len(tasks), 1)
    with single_threaded_math():
        episodes = collect(family.make_batch(len(tasks)), actor, tasks, rngs, Timer())
    return episodes.action[:, 0, :, 0].astype(int)


def parts_table(
    names: Sequence[str],
    arms: Sequence[np.ndarray],
    family: Bandit,
    tasks: np.ndarray,
    first: int,
) -> Iterator[str]:
    """Yield the lines of a Markdown table: the differences from UCB1 of the expected returns in the
    first pulls and in the later ones, and the number of arms that were tried.

    Args:
        names: of the runs.
        arms: those that each run pulled, (B, horizon).
        family: the bandits.
        tasks: (B, K).
        first: number of the first pulls.
    """
    reference, _ = played_on(family, ucb1, tasks, np.random.default_rng(0))
    expected = [np.take_along_axis(tasks, each, axis=1) for each in (*arms, reference)]
    yield f"| run | pulls 1 to {first} | later | arms tried |"
    yield "|---|---|---|---|"
    for name, each, value in zip((*names, "UCB1"), (*arms, reference), expected, strict=True):
        lead = (value - expected[-1]).mean(axis=0)
        tried = np.mean([len(np.unique(row)) for row in each])
        yield f"| {name} | {lead[:first].sum():+.2f} | {lead[first:].sum():+.2f} | {tried:.1f} |"


if __name__ == "__main__":
    run_script(main)
