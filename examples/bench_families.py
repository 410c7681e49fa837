"""Measure every task family: its speed, beside that of its physics alone, and its memory.

    python -m examples.bench_families
    python -m examples.bench_families point_nav half_cheetah_vel --threads 2

prints a Markdown table. Each number is measured in a process of its own, one after another: run the
program on a machine with nothing else running. Speeds are the best of a few rounds under random
actions, in which `step` (closed loop: with observations and rewards) and `advance` (the physics
limit) alternate on the same episodes. Memory is the memory of a process and its workers for each
further simulation.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from examples.command import run_script
from metarl.core.errors import check_whole
from metarl.core.parallel import available_cores
from metarl.envs import FAMILIES, make_family
from metarl.envs.contract import UNAVAILABLE
from metarl.envs.contract.recording import make_rngs, random_actions, random_tasks, step_through
from metarl.envs.contract.rendering import Speed, measure_speed

MEMORY_STEPS = 3  # control steps until the memory that stepping needs is in use


def main() -> None:
    """Measure and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="default: all of them")
    parser.add_argument("--episodes", type=int, default=400, help="that are timed together")
    parser.add_argument("--steps", type=int, default=20, help="control steps per round")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--threads", type=int, default=available_cores(), help="of the physics")
    parser.add_argument("--more", type=int, default=2000, help="simulations whose memory is told")
    args = parser.parse_args()
    for name in args.families:
        make_family(name)
    for name in ("episodes", "steps", "repeats", "threads", "more"):
        check_whole(f"--{name}", getattr(args, name), 1)

    print(f"{args.episodes} episodes at a time on {args.threads} threads:\n")
    print("| Family | env steps/s | physics limit | share | kB per simulation |")
    print("|---|---|---|---|---|")
    for name in args.families or FAMILIES:
        print(f"| `{name}` |", " | ".join(figures(name, args)), "|", flush=True)
        print("measured:", name, file=sys.stderr, flush=True)


def figures(name: str, args: argparse.Namespace) -> list[str]:
    """Return a family's cells of the table."""
    try:
        speed = alone(speed_of, name, args.episodes, args.steps, args.threads, args.repeats)
        one, many = (
            alone(memory_with, name, number, args.threads) for number in (1, 1 + args.more)
        )
    except UNAVAILABLE as error:
        reason = str(error).partition("\n")[0].replace("|", r"\|")
        return [f"not measured: {reason}", "", "", ""]
    return [
        f"{speed.closed_loop:,.0f}",
        f"{speed.limit:,.0f}",
        f"{speed.share:.2f}",
        f"{(many - one) / args.more / 1e3:,.1f}",
    ]


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a new process, which nothing before has warmed or filled."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def speed_of(name: str, num_episodes: int, num_steps: int, threads: int, repeats: int) -> Speed:
    """Time a family."""
    return measure_speed(make_family(name), num_episodes, num_steps, threads, repeats)


def memory_with(name: str, num_episodes: int, threads: int) -> int:
    """Return the bytes in use with a batch environment of this size in the middle of episodes."""
    family = make_family(name)
    env, actions = family.make_batch(num_episodes, threads), random_actions(family, num_episodes)
    # One generator for all: nothing but the environment shall grow with the number of episodes.
    env.reset(random_tasks(family, num_episodes), make_rngs([0]) * num_episodes)
    for _ in step_through(env, actions[:MEMORY_STEPS]):
        pass
    return resident_bytes()


def resident_bytes() -> int:
    """Return the memory of this process and all that descend from it; what they share counts once.

    Where there is no /proc, it is the peak of this process alone.
    """
    processes = Path("/proc")
    if not (processes / "self/smaps_rollup").exists():
        import resource  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    parents = {}
    for stat in processes.glob("[0-9]*/stat"):
        try:
            # "pid (name) state parent ...", where a name may hold anything.
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    family = [os.getpid()]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return sum(proportional_bytes(processes / str(pid) / "smaps_rollup") for pid in family)


def proportional_bytes(rollup: Path) -> int:
    """Return a process's proportional set size: a page shared by n processes counts 1/n."""
    for line in rollup.read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    return 0


if __name__ == "__main__":
    run_script(main)
