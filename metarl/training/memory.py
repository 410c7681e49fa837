"""Whether a meta-iteration fits into this machine's memory, and a replay log on its disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from metarl.config import Config
from metarl.core.errors import ConfigError

CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
"""The files with the memory limit of a container, in versions 2 and 1 of Linux's control groups."""


def check_memory(config: Config) -> None:
    """Check that a meta-iteration fits into memory, before anything is allocated.

    Raises:
        ConfigError: if it cannot; names what it needs, the memory, and the keys to change.
    """
    needed, limit = needed_memory(config), memory_limit()
    if limit is None or needed <= limit:
        return
    sampling, family, agent = config.sampling, config.env, config.agent
    episodes = sampling.num_tasks * sampling.num_episodes
    choices = ["fewer --num-tasks or --num-episodes", "a shorter --env.horizon"]
    if sampling.sequence > 1:
        choices.append("a shorter --sampling.sequence")
    if sampling.adaptation_steps > 1:
        choices.append("fewer --inner-steps")
    choices += agent.memory_advice(family, sampling)
    if 5 * observation_memory(config) > needed:
        choices.append("smaller observations (such as by Gymnasium's ResizeObservation)")
    raise ConfigError(
        f"env: {len(sampling.phases)} x {episodes:,} episodes of {family.horizon:,} "
        f"steps, with observations of {family.observation_space.shape[0]:,} numbers, need at least "
        f"{gigabytes(needed)} of memory, and {gigabytes(limit)} are here; choose "
        f"{', '.join(choices[:-1])} or {choices[-1]}"
    )


def check_disk(config: Config, directory: Path) -> None:
    """Check that the episodes that the agent keeps of earlier iterations fit on the disk.

    Args:
        config: the config of a new run.
        directory: the run's folder, which may not exist yet.

    Raises:
        ConfigError: if they do not; names what they need, what is free, and the keys to change.
    """
    needed = config.agent.replay_memory(config.env, config.sampling)
    if not needed:
        return
    place = next(each for each in (directory, *directory.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        choices = config.agent.memory_advice(config.env, config.sampling)
        raise ConfigError(
            f"agent: the episodes that it keeps of earlier iterations need up to "
            f"{gigabytes(needed)} in {directory}, and {gigabytes(free)} are free; choose "
            f"{', '.join(choices)} or another folder by --out"
        )


def gigabytes(number: int) -> str:
    """Return a number of bytes as text."""
    return f"{number / 1e9:,.0f} GB" if number >= 1e12 else f"{number / 1e9:.3g} GB"


def needed_memory(config: Config) -> int:
    """Return the bytes that a meta-iteration needs at least in main memory, if no episode ends
    before the horizon."""
    needed = observation_memory(config)
    needed += config.agent.replay_memory(config.env, config.sampling)
    if config.device == "cpu":
        needed += config.agent.update_memory(config.env, config.sampling)
    return needed


def observation_memory(config: Config) -> int:
    """Return the bytes of the observations of a meta-iteration in main memory."""
    sampling, family = config.sampling, config.env
    steps = sampling.num_tasks * sampling.num_episodes * family.horizon
    rollout = steps * family.observation_space.shape[0] * 4  # float32
    # The episodes of all rollouts, and those of one in the order of steps (`collect`)
    copies = len(sampling.phases) + 1
    if config.agent.normalize_observations:
        copies += len(sampling.phases)  # for the update
    return copies * rollout


def memory_limit() -> int | None:
    """Return the bytes of memory that this process can have; None if they are not known.

    This is the least of the machine's memory, the limit of its container, and the limit of the
    process (`ulimit -v`).
    """
    limits = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(ImportError):
        import resource  # not on Windows

        limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])
    for path in map(Path, CGROUP_LIMITS):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(path.read_text()))  # "max" without a limit
    return min((limit for limit in limits if limit > 0), default=None)  # -1 is no limit
