"""Time the training of configs until the agent reaches a return on tasks that were not in training.

    python -m examples.time_to_return                                  # the MAML paper's returns
    python -m examples.time_to_return point_nav/maml_trpo_tuned -11.7  # another config and return

Nothing else should run meanwhile. A stopped command continues its runs when it is repeated, and
their time is that of their iterations, without evaluations.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from examples.command import run_script
from examples.reproduce.published import BUDGETS, PUBLISHED
from metarl.config import Config
from metarl.config_files import load_config
from metarl.core.errors import check
from metarl.core.parallel import available_cores
from metarl.evaluation.evaluate import evaluate
from metarl.runs.provenance import provenance
from metarl.training.loop import start_or_resume

PAPER = (
    "point_nav/maml_trpo_tuned",
    "half_cheetah_dir/maml_trpo_tuned",
    "half_cheetah_vel/maml_trpo_tuned",
)
"""Configs whose seeds all pass the MAML paper's return after one adaptation step."""


@dataclass(frozen=True)
class Reached:
    """What an agent has reached after some iterations of its training.

    Attributes:
        iteration: number of iterations.
        env_steps: number of env steps in training.
        seconds: duration of these iterations.
        mean: mean return after adaptation on validation tasks.
        interval: its 95% interval over tasks, (low, high); NaN if there is none.
    """

    iteration: int
    env_steps: int
    seconds: float
    mean: float
    interval: tuple[float, float]

    def row(self, name: str, seed: int, target: float) -> str:
        """Return a row of the table; `not reached` where it is not."""
        reached = f"{self.mean:.1f} ({self.interval[0]:.1f} to {self.interval[1]:.1f})"
        missing = "" if self.mean >= target else ", not reached"
        family = name.partition("/")[0]
        published = f"{BUDGETS[family] / 1e6:.0f}M" if family in BUDGETS else ""
        return (
            f"| {name} | {seed} | {target:g}{missing} | {reached} | {self.iteration} | "
            f"{self.env_steps / 1e6:.1f}M | {published} | {self.seconds / 60:.1f} |"
        )


def main() -> None:
    """Print a row of the table for each config and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", nargs="?", help="default: those of the MAML paper's figure")
    parser.add_argument("target", nargs="?", type=float, help="the return to reach")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each config")
    parser.add_argument("--every", type=int, default=10, help="iterations between evaluations")
    parser.add_argument("--threads", type=int, default=available_cores(), help="of each run")
    parser.add_argument("--runs", type=Path, default=Path("runs/time_to_return"))
    args = parser.parse_args()
    if args.config is not None and args.target is None:
        parser.error(f"{args.config}: expected the return to reach after it")
    wanted = {args.config: args.target} if args.config else paper_returns()
    print(f"{provenance()['processor']}, {args.threads} threads\n")
    print("| Config | seed | return | reached | iterations | env steps | paper | minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for name, target in wanted.items():
        for seed in range(args.seeds):
            settings = {"seed": seed, "threads": args.threads, "tracking.mode": "disabled"}
            config = load_config(name, **settings)
            folder = args.runs / f"{name.replace('/', '-')}-every{args.every}-seed{seed}"
            *_, last = train_to_return(config, target, args.every, folder)
            print(last.row(name, seed, target), flush=True)


def paper_returns() -> dict[str, float]:
    """Return the MAML paper's return after one step, by config."""
    return {name: PUBLISHED[name.partition("/")[0]].maml[1] for name in PAPER}


def train_to_return(config: Config, target: float, every: int, folder: Path) -> Iterator[Reached]:
    """Train a run until its mean return on validation tasks is at least `target`.

    The returns are those after as many adaptations as in training. The test set is not used.

    Args:
        config: the config of the run; its number of iterations is the largest one.
        target: the return to reach.
        every: number of iterations between evaluations.
        folder: the run's folder; a run of this config that was evaluated as often is continued.

    Yields:
        What each evaluation shows. The last one has reached the target, or has all iterations.

    Raises:
        ConfigError: if `every` is below 1.
        UserError: as `start_or_resume`, and if the family has no validation tasks.
        Interrupted, EpisodeDiverged, NotFinite, WorkerError, StorageError: as `start_or_resume`.
    """
    check(every >= 1, "every", "at least 1", every)
    for iteration in (*range(every, config.iterations, every), config.iterations):
        run = start_or_resume(config.replace(iterations=iteration), folder)
        result = evaluate(
            run.make_agent(run.load(iteration)),
            config.env,
            split="validation",
            steps=config.sampling.adaptation_steps,
            threads=config.num_threads,
            on_failure=config.on_failure,
        )
        low, high = result.interval[-1].tolist()
        reached = Reached(
            iteration=iteration,
            env_steps=run.metrics()[iteration - 1]["env_steps"],
            seconds=sum(line["seconds"] for line in run.timings()[:iteration]),
            mean=float(result.mean[-1]),
            interval=(low, high),
        )
        yield reached
        if reached.mean >= target:
            return


if __name__ == "__main__":
    run_script(main)
