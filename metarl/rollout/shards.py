"""A batch of episodes in shards, each with some of the tasks, with the results of the whole batch
to the bit.

B is the number of tasks, E the number of episodes of each task. The episodes of a batch environment
do not depend on each other, nor do their random numbers. Actions may: the rounding of a matrix
product depends on the number of its rows. So a shard either has an actor that computes the actions
of each task on its own, or computes those of all tasks and uses its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from metarl.core.timer import Timer
from metarl.envs import BatchEnv
from metarl.rollout.collect import Actor, collect, order_in_step
from metarl.rollout.episodes import PER_TASK, Episodes
from metarl.rollout.failures import EpisodeDiverged, Failure
from metarl.rollout.sampler import EpisodeRngs


def bounds(num_tasks: int, num_shards: int) -> list[tuple[int, int]]:
    """Return first task, and last task plus one, of each shard; the shards differ by one task."""
    ends = [num_tasks * shard // num_shards for shard in range(num_shards + 1)]
    return list(pairwise(ends))


def plays_rows(actor: Actor) -> bool:
    """Return whether an actor has a method `rows`; see `metarl.rollout.collect.Actor`."""
    return getattr(actor, "rows", None) is not None


def part_of(actor: Actor, start: int, stop: int) -> Actor:
    """Return what a shard's machine needs: the actor of the tasks `start`, ..., `stop` - 1, if the
    actor has a method `rows`; otherwise the actor of all tasks."""
    if not plays_rows(actor):
        return actor
    return actor.rows(start, stop)  # pyright: ignore[reportAttributeAccessIssue]


class RowsOfActor:
    """Plays some tasks by an actor of B tasks, which sees the others as ended episodes."""

    def __init__(self, actor: Actor, start: int, stop: int, num_tasks: int) -> None:
        self._actor, self._rows, self._num_tasks = actor, slice(start, stop), num_tasks

    @property
    def memory(self) -> np.ndarray | None:
        memory = getattr(self._actor, "memory", None)
        return None if memory is None else memory[self._rows]

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return self._actor.noise(rng, horizon)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        own = (obs, noise, last_reward, active)
        return self._actor.act(*map(self._among_all, own))[self._rows]

    def _among_all(self, own: np.ndarray) -> np.ndarray:
        """Return an array of these tasks, (b, ...), as an array of all tasks, (B, ...)."""
        whole = np.zeros((self._num_tasks, *own.shape[1:]), own.dtype)
        whole[self._rows] = own
        return whole


@dataclass(frozen=True)
class Shard:
    """The tasks `start`, ..., `stop` - 1 of a batch, and all that their episodes depend on.

    Attributes:
        start, stop: the tasks.
        tasks: all tasks of the batch, (B, task_dim).
        task_mask: mask of the tasks to play, (B,) bool.
        rngs: the random number generators of the batch.
        collect_failures: whether failed episodes are left out; otherwise the first one is an error.
    """

    start: int
    stop: int
    tasks: np.ndarray
    task_mask: np.ndarray
    rngs: EpisodeRngs
    collect_failures: bool

    @property
    def num_episodes(self) -> int:
        return (self.stop - self.start) * self.rngs.num_episodes


@dataclass(frozen=True)
class ShardResult:
    """The result of a shard.

    Attributes:
        episodes: the episodes; None if the shard stopped at an error.
        failures: the failures of episodes that were left out.
        stopped_by: the failures at which the shard stopped.
        remark: the end of the message of that error.
        seconds: seconds by section.
    """

    episodes: Episodes | None
    failures: list[Failure]
    stopped_by: list[Failure]
    remark: str
    seconds: dict[str, float]


def play_shard(env: BatchEnv, actor: Actor, shard: Shard) -> ShardResult:
    """Play the episodes of a shard.

    Args:
        env: a batch environment of as many episodes.
        actor: the actor of these tasks, if it has the method `rows`; otherwise that of all tasks.
        shard: the shard.

    Raises:
        UserError: as `collect`.
    """
    rows, timer = slice(shard.start, shard.stop), Timer()
    if not plays_rows(actor):
        actor = RowsOfActor(actor, shard.start, shard.stop, len(shard.tasks))
    failures: list[Failure] = []
    episodes, stopped_by, remark = None, [], ""
    try:
        episodes = collect(
            env,
            actor,
            shard.tasks[rows],
            shard.rngs.of_tasks(shard.start, shard.stop),
            timer,
            failures=failures if shard.collect_failures else None,
            adaptation_step=shard.rngs.num_adaptations,
            task_mask=shard.task_mask[rows],
        )
    except EpisodeDiverged as error:
        stopped_by, remark = error.failures, error.remark
    failures, stopped_by = (
        [replace(each, task_index=(each.task_index or 0) + shard.start) for each in found]
        for found in (failures, stopped_by)
    )
    return ShardResult(episodes, failures, stopped_by, remark, dict(timer.seconds))


def merge(
    results: Sequence[ShardResult],
    tasks: np.ndarray,
    task_ids: np.ndarray | None,
    failures: list[Failure] | None,
) -> Episodes:
    """Return the episodes of all shards, in the order of the tasks, as fresh arrays.

    Args:
        results: the results of all shards, in the order of the tasks.
        tasks: (B, task_dim).
        task_ids, failures: as in `collect`.

    Raises:
        EpisodeDiverged: as `collect`.
    """
    found = sorted((each for result in results for each in result.failures), key=order)
    stopped = sorted((each for result in results for each in result.stopped_by), key=order)
    if stopped:
        first = order(stopped[0])[:2]
        remark = next(result.remark for result in results if stopped[0] in result.stopped_by)
        if failures is not None:
            failures.extend(each for each in found if order(each)[:2] < first)
        raise EpisodeDiverged([each for each in stopped if order(each)[:2] == first], remark)
    if failures is not None:
        failures.extend(found)
    shards = [result.episodes for result in results if result.episodes is not None]
    names = {name for shard in shards for name in shard.arrays} - set(PER_TASK)
    return Episodes(
        **{name: np.concatenate([_array(shard, name) for shard in shards]) for name in names},
        tasks=np.asarray(tasks, np.float64),
        task_ids=task_ids,
    )


def _array(shard: Episodes, name: str) -> np.ndarray:
    """Return an array of a shard; `success` may be known in other shards only."""
    found = getattr(shard, name)
    return np.zeros_like(shard.terminated) if found is None else found


def order(failure: Failure) -> tuple[int, int, int, int]:
    """Return a key that sorts the failures of a batch as `collect` finds them."""
    step = failure.step or 0
    return step, order_in_step(failure), failure.task_index or 0, failure.episode or 0
