"""The time of a meta-iteration by section, compared with the speed of the physics alone."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from metarl.agents.optional import record
from metarl.config import Config
from metarl.core.errors import UserError, check_whole
from metarl.core.parallel import keep_freed_memory, single_threaded_math
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import BatchEnv
from metarl.rollout.episodes import Episodes
from metarl.rollout.sampler import EpisodeRngs
from metarl.runs.atomic_io import write_atomically
from metarl.runs.provenance import matrix_products
from metarl.runs.run import encode
from metarl.training.meta_iteration import meta_iteration

LEAST_PHYSICS = 0.01
"""Seconds of physics below which ratios to them tell nothing."""
SAMPLING_SECTIONS = ("reset", "policy", "environment")
"""Sections of the timer that belong to sampling; all others belong to the learner."""


@dataclass(frozen=True)
class Bench:
    """Times and memory of one meta-iteration: medians over several.

    Attributes:
        physics_limit_steps_per_second: open-loop steps, of the same episodes on the same
            simulations and threads.
        sampling_steps_per_second: closed-loop steps: physics, policy and the rest of sampling.
        iteration_seconds: duration of the meta-iteration.
        physics_seconds: duration of its environment steps at the physics limit.
        sections: seconds by section.
        peak_memory_bytes: largest resident memory of the process.
        env_steps: number of environment steps in one meta-iteration.
        device: the learner's device.
        matrix_products: the processors for which NumPy's matrix products are made.
    """

    physics_limit_steps_per_second: float
    sampling_steps_per_second: float
    iteration_seconds: float
    physics_seconds: float
    sections: dict[str, float]
    peak_memory_bytes: int
    env_steps: int
    device: str
    matrix_products: str


def bench(
    config: Config, repeats: int = 3, on_progress: Callable[[str], None] | None = None
) -> Bench:
    """Run meta-iterations, and the physics of the episodes of each on their own.

    The first iteration warms up and does not count.

    Args:
        config: the config of the agent and the environment.
        repeats: number of iterations that count.
        on_progress: called with a line of text after each iteration.

    Raises:
        ConfigError: if `repeats` is below 1.
    """
    check_whole("repeats", repeats, 1)
    agent = config.make_agent()
    num_episodes = config.sampling.num_tasks * config.sampling.num_episodes
    env = config.training_env.make_batch(num_episodes, config.num_threads)
    keep_freed_memory()
    timer = Timer(agent.device)
    rates, seconds, sections = [], [], []
    played: list[Sequence[Episodes]] = []  # phase by phase, of each iteration
    env_steps = 0

    def recorder(iteration: int, phases: Sequence[Episodes]) -> None:
        record(agent, iteration, phases)
        played.append(phases)

    with single_threaded_math():
        for iteration in range(repeats + 1):
            timer.restart()
            env.physics_seconds = 0.0
            start = time.perf_counter()
            found = meta_iteration(config, agent, env, iteration, timer, [], recorder)
            seconds.append(time.perf_counter() - start)
            env_steps = found["steps"]
            sections.append(split_sections(timer.restart(), env.physics_seconds))
            rates.append(env_steps / replay_seconds(env, config.seed, iteration, played.pop()))
            if on_progress is not None:
                part = f"iteration {iteration} of {repeats}" if iteration else "warm-up"
                on_progress(f"{part}: {seconds[-1]:.2f} s")
    median = {
        name: statistics.median(each.get(name, 0.0) for each in sections[1:])
        for name in sections[-1]
    }
    limit = statistics.median(rates[1:])
    sampling = sum(median[name] for name in ("physics", "policy inference", "other sampling"))
    return Bench(
        physics_limit_steps_per_second=limit,
        sampling_steps_per_second=env_steps / sampling,
        iteration_seconds=statistics.median(seconds[1:]),
        physics_seconds=env_steps / limit,
        sections=median,
        peak_memory_bytes=peak_memory(),
        env_steps=env_steps,
        device=config.device,
        matrix_products=matrix_products(),
    )


def split_sections(seconds: dict[str, float], physics: float) -> dict[str, float]:
    """Split the seconds of sampling into physics, inference and the rest.

    Args:
        seconds: by section of the timer.
        physics: seconds of physics within the sections `reset` and `environment`.
    """
    learner = {name: spent for name, spent in seconds.items() if name not in SAMPLING_SECTIONS}
    other = seconds["reset"] + seconds["environment"] - physics
    return {
        "physics": physics,
        "policy inference": seconds["policy"],
        "other sampling": other,
        **learner,
    }


def replay_seconds(env: BatchEnv, seed: int, iteration: int, phases: Sequence[Episodes]) -> float:
    """Return the seconds that the steps of an iteration's episodes take on their own, in open loop:
    without observations, rewards and resets.

    The steps are the same, since the time of a step depends on the state, for example on the
    contacts of a robot with the ground, and thereby on the policy.

    Args:
        env: the environment that played them; its episodes are those of the last phase afterwards.
        seed: the seed of the config.
        iteration: number of the iteration, from 0.
        phases: the episodes, phase by phase.
    """
    seconds = 0.0
    for number, episodes in enumerate(phases):
        num_tasks, num_episodes, horizon = episodes.mask.shape
        rngs = EpisodeRngs(seed, Purpose.TRAIN_EPISODES, num_episodes, iteration, number)
        env.reset(np.repeat(episodes.tasks, num_episodes, axis=0), rngs.of_tasks(0, num_tasks))
        # (T, B * E, ...)
        actions = np.ascontiguousarray(
            episodes.action.reshape(-1, horizon, episodes.action.shape[-1]).swapaxes(0, 1)
        )
        masks = episodes.mask.reshape(-1, horizon).T
        stepped = [None if mask.all() else np.flatnonzero(mask) for mask in masks if mask.any()]
        start = time.perf_counter()
        for action, ids in zip(actions, stepped, strict=False):
            env.advance(action, ids)
        seconds += time.perf_counter() - start
    return seconds


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def bench_table(result: Bench) -> Table:
    """Return the measurements as a table for the terminal."""
    caption = f"NumPy's matrix products: {result.matrix_products}"
    told = result.physics_seconds >= LEAST_PHYSICS
    if not told:
        caption += f". No ratios: the physics took less than {LEAST_PHYSICS} s"

    def ratio(value: float, limit: float) -> str:
        return f"{value / limit:.2f}" if told else ""

    table = Table(
        title=f"one meta-iteration, {result.env_steps:,} env steps, {result.device}",
        caption=caption,
    )
    table.add_column("part")
    table.add_column("seconds", justify="right")
    table.add_column("of the physics limit", justify="right")
    for name, seconds in result.sections.items():
        table.add_row(name, f"{seconds:.2f}", ratio(seconds, result.physics_seconds))
    table.add_section()
    total = result.iteration_seconds
    table.add_row("meta-iteration", f"{total:.2f}", ratio(total, result.physics_seconds))
    table.add_row("physics limit", f"{result.physics_seconds:.2f}", ratio(1, 1))
    table.add_section()
    limit = result.physics_limit_steps_per_second
    for name, rate in (
        ("env steps/s at the physics limit", limit),
        ("env steps/s while sampling", result.sampling_steps_per_second),
        ("env steps/s of the whole", result.env_steps / total),
    ):
        table.add_row(name, f"{rate:,.0f}", ratio(rate, limit))
    table.add_row("peak memory, GiB", f"{result.peak_memory_bytes / 2**30:.2f}", "")
    return table


def write_json(result: Bench, path: Path) -> None:
    """Write the measurements as JSON.

    Raises:
        UserError: if the file cannot be written.
    """
    try:
        write_atomically(path, encode(asdict(result)))
    except OSError as error:
        raise UserError(str(error)) from error
