"""A sampler on the workers of a Ray cluster."""

from __future__ import annotations

import numpy as np

from metarl.core.errors import UserError
from metarl.core.timer import Timer
from metarl.envs import TaskFamily
from metarl.envs.errors import first_line
from metarl.rollout.cluster.checks import (
    bytes_of_episodes,
    check_object_store,
    check_versions,
    number_of_workers,
    room,
)
from metarl.rollout.cluster.group import WorkerGroup
from metarl.rollout.cluster.session import Session
from metarl.rollout.cluster.worker import RolloutWorker, Surroundings
from metarl.rollout.collect import Actor
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import Failure
from metarl.rollout.sampler import EpisodeRngs, Sampler
from metarl.rollout.sampler_config import SamplerConfig
from metarl.rollout.shards import Shard, bounds, merge, part_of, plays_rows


class RaySampler(Sampler):
    """Plays each batch of episodes in shards of whole tasks, one shard per worker.

    Attributes:
        num_episodes: number of episodes of a batch, B * E.
        num_workers: number of workers.
        group: the workers.
    """

    def __init__(
        self, config: SamplerConfig, family: TaskFamily, num_tasks: int, num_episodes: int
    ) -> None:
        """Connect to the cluster, check it, and start the workers.

        Args:
            config: the config.
            family: the task family.
            num_tasks: B.
            num_episodes: E.

        Raises:
            ConfigError: if Ray or the cluster is missing, has no room for the workers, too little
                memory, or other versions of the software.
            WorkerError: if a worker cannot start.
        """
        config.check(num_tasks)
        self.num_episodes, self._config, self._family = num_tasks * num_episodes, config, family
        self._surroundings = Surroundings.here()
        self._session = Session(config.address)
        try:
            self.num_workers = self._check(num_tasks, num_episodes)
            self.group = WorkerGroup(
                self._session,
                self._make_worker,
                self.num_workers,
                config.timeout,
                config.max_restarts,
            )
        except BaseException:
            self._session.close()
            raise

    def _check(self, num_tasks: int, num_episodes: int) -> int:
        """Check the cluster; return the number of workers."""
        import ray

        nodes = ray.nodes()
        count = number_of_workers(nodes, self._config, num_tasks, self._session.name)
        most = max(stop - start for start, stop in bounds(num_tasks, count))
        sizes = (bytes_of_episodes(self._family, n * num_episodes) for n in (num_tasks, most))
        check_object_store(nodes, self._session.node_id, *sizes)
        if not self._session.is_own:
            check_versions(nodes, [id for id, n in room(nodes, self._config).items() if n])
        return count

    def _make_worker(self):
        import ray

        config = self._config
        worker = ray.remote(RolloutWorker).options(**config.ray_options)
        return worker.remote(self._family, config.threads, self._surroundings)

    def collect(
        self,
        actor: Actor,
        tasks: np.ndarray,
        rngs: EpisodeRngs,
        timer: Timer,
        *,
        failures: list[Failure] | None,
        task_mask: np.ndarray,
        task_ids: np.ndarray | None,
    ) -> Episodes:
        with timer("sampling"):
            shards = [
                Shard(start, stop, tasks, task_mask, rngs, failures is not None)
                for start, stop in bounds(len(tasks), self.num_workers)
            ]
            self._session.check()
            actors = self._put(actor, shards)
            results = self.group.call("play", list(zip(actors, shards, strict=True)))
            return merge(results, tasks, task_ids, failures)

    def _put(self, actor: Actor, shards: list[Shard]) -> list:
        """Put the actor, or the parts of it that play the shards, into the object store, once.

        Raises:
            UserError: if the actor cannot travel.
        """
        import ray

        try:
            if plays_rows(actor):
                return [ray.put(part_of(actor, shard.start, shard.stop)) for shard in shards]
            return [ray.put(actor)] * len(shards)
        except TypeError as error:
            raise UserError(
                f"sampler.kind: {type(actor).__name__} cannot travel to other machines "
                f"({first_line(error.__cause__ or error)}); expected an actor that can be pickled"
            ) from error

    def close(self) -> None:
        """End the workers, and the connection to the cluster."""
        if not self._session.lost:
            self.group.close()
        self._session.close()
