"""What plays the episodes of training: a batch environment of this machine, or a sampler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from metarl.config import Config
from metarl.envs import BatchEnv
from metarl.rollout.sampler import Sampler


def make_sampler(config: Config) -> Sampler | None:
    """Make the sampler of a config; None if episodes are played on this machine.

    Raises:
        ConfigError, WorkerError: as `metarl.rollout.cluster.sampler.RaySampler`.
    """
    if config.sampler.kind == "local":
        return None
    from metarl.rollout.cluster.sampler import RaySampler

    sampling = config.sampling
    return RaySampler(
        config.sampler, config.training_env, sampling.num_tasks, sampling.num_episodes
    )


def check_sampler(config: Config) -> None:
    """Check that the sampler of a config can be made.

    Raises:
        ConfigError, WorkerError: as `make_sampler`.
    """
    if sampler := make_sampler(config):
        sampler.close()


@contextmanager
def episode_source(config: Config, sampler: Sampler | None = None) -> Iterator[BatchEnv | Sampler]:
    """Yield what plays the episodes of a meta-batch; close it at the end of the block.

    Args:
        config: the config.
        sampler: its sampler; None makes it, or a batch environment.
    """
    if (sampler := sampler or make_sampler(config)) is not None:
        try:
            yield sampler
        finally:
            sampler.close()
        return
    sampling = config.sampling
    count = sampling.num_tasks * sampling.num_episodes
    env = config.training_env.make_batch(count, config.num_threads)
    try:
        yield env
    finally:
        env.close()
