"""How far training scales on a cluster: a simulation from measured times.

    python -m examples.cluster_scaling half_cheetah_vel/maml_trpo

Measured on this machine, on one thread, in seconds of processor time, so that other programs do not
matter: the episodes of a meta-batch (physics and everything else of the environment), the actions
of the policy, an update with its adaptations, and the merging of the episodes on the learner's
machine. The simulation divides the episodes among W workers of such threads, as
`metarl.rollout.shards` does. Assumed: the network's bandwidth, and the time of a call
(0.6 ms, measured for an empty call between processes of one machine). It says nothing of slower
nodes, of a shared network, or of losses.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import metarl
from examples.command import run_script
from metarl.agents.optional import record
from metarl.agents.rollouts import adaptation_rollouts
from metarl.config import Config
from metarl.core.parallel import single_threaded_math
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.rollout.sampler import EpisodeRngs
from metarl.rollout.shards import Shard, bounds, merge, part_of, play_shard, plays_rows
from metarl.rollout.task_sampler import TaskSampler

CALL = 6e-4  # s
WORKERS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Measured:
    """Seconds of one thread, of one meta-iteration.

    Attributes:
        episodes: of all phases without the policy.
        policy: of the actions of all tasks.
        learner: of adaptations and update.
        merging: of putting the shards together.
        num_bytes: bytes of the episodes of all phases.
        num_phases: number of phases.
        separate: whether a worker computes the actions of its own tasks only.
    """

    episodes: float
    policy: float
    learner: float
    merging: float
    num_bytes: int
    num_phases: int
    separate: bool

    def seconds(self, num_workers: int, num_tasks: int, bandwidth: float) -> dict[str, float]:
        """Return the simulated seconds of an iteration, by part.

        Args:
            num_workers: W.
            num_tasks: number of tasks; the slowest worker has the most of them.
            bandwidth: bytes per second into the learner's machine.
        """
        most = max(stop - start for start, stop in bounds(num_tasks, num_workers))
        share = most / num_tasks
        return {
            "episodes": self.episodes * share,
            "policy": self.policy * (share if self.separate else 1),
            "network": self.num_bytes / bandwidth,
            "calls": CALL * self.num_phases * num_workers,
            "merging": self.merging,
            "learner": self.learner,
        }


def measure(config: Config) -> Measured:
    """Play and learn from one meta-batch."""
    sampling, agent = config.sampling, config.make_agent()
    sampler = TaskSampler(sampling, config.env)
    tasks, task_ids = sampler.sample(make_rng(0, Purpose.TASKS))
    count = sampling.num_tasks * sampling.num_episodes
    env, timer = config.training_env.make_batch(count, 1), Timer()
    start = time.process_time()
    rollouts = list(
        adaptation_rollouts(
            agent,
            env,
            tasks,
            sampling.adaptation_steps,
            phases=sampling.phases,
            seed=0,
            purpose=Purpose.BENCHMARK,
            training=True,
            task_ids=task_ids,
            timer=timer,
        )
    )
    rolled = time.process_time() - start
    # Shares by the wall clock, of the processor's time
    share = {name: spent / sum(timer.seconds.values()) for name, spent in timer.seconds.items()}
    record(agent, 1, [episodes for _, episodes in rollouts])
    start = time.process_time()
    agent.update(rollouts, make_rng(0, Purpose.UPDATE), Timer())
    learner = time.process_time() - start + rolled * share["adaptation"]
    actor = agent.actor(rollouts[0].state)
    results = []
    rngs = EpisodeRngs(0, Purpose.BENCHMARK, sampling.num_episodes)
    played = rollouts[0].episodes
    mask = played.task_mask | True
    for first, stop in bounds(sampling.num_tasks, 2):
        part = part_of(actor, first, stop)
        shard = Shard(first, stop, played.tasks, mask, rngs, True)
        shard_env = config.training_env.make_batch(shard.num_episodes, 1)
        results.append(play_shard(shard_env, part, shard))
    start = time.process_time()
    merge(results, played.tasks, played.task_ids, [])
    merging = time.process_time() - start
    arrays = [array for _, episodes in rollouts for array in episodes.arrays.values()]
    return Measured(
        rolled * (share["environment"] + share["reset"]),
        rolled * share["policy"],
        learner,
        merging * len(rollouts),
        sum(array.nbytes for array in arrays),
        len(rollouts),
        plays_rows(actor),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", nargs="*", default=["half_cheetah_vel/maml_trpo"])
    parser.add_argument("--gigabits", type=float, default=10.0, help="network, Gb/s (default 10)")
    parser.add_argument("--num-tasks", type=int, help="tasks of a meta-batch")
    args = parser.parse_args()
    sizes = {"sampling.num_tasks": args.num_tasks} if args.num_tasks else {}
    for name in args.config:
        config = metarl.load_config(name, threads=1, **sizes)
        with single_threaded_math():
            found = measure(config)
        num_tasks = config.sampling.num_tasks
        print(f"{name}: {num_tasks} tasks, {found.num_bytes / 1e6:.1f} MB an iteration")
        print("workers  seconds  speed-up  largest part")
        alone = sum(found.seconds(1, num_tasks, float("inf")).values())
        for workers in WORKERS:
            if workers > num_tasks:
                break
            parts = found.seconds(workers, num_tasks, args.gigabits * 1e9 / 8)
            total, largest = sum(parts.values()), max(parts, key=parts.__getitem__)
            print(
                f"{workers:7}  {total:7.2f}  {alone / total:8.1f}  {largest} "
                f"({parts[largest] / total:.0%})"
            )


if __name__ == "__main__":
    run_script(main)
