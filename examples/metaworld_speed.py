"""Env steps per second on Meta-World: metarl's workers and Meta-World's vector environments.

python -m examples.metaworld_speed [--episodes 20] [--workers 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time

import numpy as np

from examples.command import run_script
from metarl.envs import MetaWorld
from metarl.envs.external.process import worker_environ

STEPS = 150
THEIRS = """
import sys, time
import gymnasium, metaworld
if __name__ == "__main__":
    strategy, episodes, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    envs = metaworld.make_ml_envs_train(
        "reach-v3", seed=42, meta_batch_size=episodes, vector_strategy=strategy,
        total_tasks_per_cls=50 // episodes * episodes,
    )
    envs.call("sample_tasks")
    envs.reset()
    actions = [envs.action_space.sample() for _ in range(steps)]
    start = time.perf_counter()
    for action in actions:
        envs.step(action)
    print(steps * episodes / (time.perf_counter() - start))
    envs.close()
"""


def theirs(python: str, strategy: str, episodes: int) -> float:
    """Measure Meta-World's own vector environment: `sync` in one process, `async` in many."""
    command = [python, "-c", THEIRS, strategy, str(episodes), str(STEPS)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=worker_environ(python)
    )
    return float(done.stdout)


def ours(family: MetaWorld, episodes: int, workers: int) -> float:
    """Measure a batch of episodes in our worker processes."""
    env = family.make_batch(episodes, workers)
    rngs = [np.random.default_rng(i) for i in range(episodes)]
    env.reset(family.tasks("train", episodes), rngs)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, episodes, 4))
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return STEPS * episodes / (time.perf_counter() - start)


def main() -> None:
    """Measure all of them in turn, several times over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    family = MetaWorld()
    rates: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for name, measure in (
            (f"ours, {args.workers} workers", lambda: ours(family, args.episodes, args.workers)),
            ("Meta-World, sync", lambda: theirs(family.interpreter, "sync", args.episodes)),
            ("Meta-World, async", lambda: theirs(family.interpreter, "async", args.episodes)),
            ("ours, 1 worker", lambda: ours(family, args.episodes, 1)),
        ):
            rates.setdefault(name, []).append(measure())
            print(f"{name}: {rates[name][-1]:.0f} env steps/s", flush=True)
    print(f"\nmedians of {args.rounds}, {args.episodes} episodes of reach-v3:")
    for name, found in rates.items():
        print(f"| {name} | {statistics.median(found):,.0f} |")


if __name__ == "__main__":
    run_script(main)
