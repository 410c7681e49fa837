"""Many runs to their last iteration on a Ray cluster, each in one slot of it."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.core.errors import ConfigError, warn
from metarl.envs.errors import first_line
from metarl.rollout.cluster.checks import ask_nodes, check_versions, number_of_workers, room
from metarl.rollout.cluster.session import Session
from metarl.rollout.cluster.worker import Surroundings
from metarl.rollout.sampler_config import SamplerConfig
from metarl.runs.atomic_io import make_folder
from metarl.training.many_runs import Job, Outcome, finish, is_locked
from metarl.training.signals import stop_signals

LOCK_TIMEOUT = 120.0  # s, in which a node that is cut off ends its processes
POLL = 1.0  # s, between two looks at the signals and the cluster
STOPPING = "stopping the runs; they go on from their last checkpoints"


def finished_on_cluster(
    jobs: Sequence[Job], config: SamplerConfig, then: Callable[[Job], None]
) -> Generator[Outcome, None, None]:
    """Train each run in a slot of a cluster and call `then` with its job, as `many_runs.finished`.

    A run whose process or node is lost goes on elsewhere from its last checkpoint.

    Args:
        jobs: the runs, whose folders all nodes can reach.
        config: the cluster, and the slots: their number, CPUs and resources.
        then: called in the process of the run. It must be importable.

    Yields:
        The outcomes, in the order in which the jobs end.

    Raises:
        ConfigError: if Ray or the cluster is missing, has no room, other versions of the software,
            or nodes that do not see the folder of the runs.
        ClusterError: if the cluster is lost.
        StorageError: if the folder of the runs cannot be created.
    """
    jobs = [dataclasses.replace(job, folder=job.folder.absolute()) for job in jobs]
    for job in jobs:
        make_folder(job.folder.parent)
    session = Session(config.address)
    try:
        with stop_signals(STOPPING) as signals:
            slots = _check(session, config, jobs)
            yield from _run(session, config, jobs, then, slots, signals)
    finally:
        session.close()


def _check(session: Session, config: SamplerConfig, jobs: Sequence[Job]) -> int:
    """Check the cluster; return the number of slots."""
    import ray

    nodes = ray.nodes()
    slots = number_of_workers(nodes, config, len(jobs), session.name)
    if not session.is_own:
        used = [node for node, count in room(nodes, config).items() if count]
        check_versions(nodes, used)
        for folder in {job.folder.parent for job in jobs}:
            check_shared(nodes, used, folder)
    return slots


def check_shared(nodes: Sequence[Mapping[str, Any]], ids: Sequence[str], folder: Path) -> None:
    """Check that nodes see a folder of this machine.

    Args:
        nodes: the nodes as `ray.nodes` lists them.
        ids: the ids of those that may get runs.
        folder: the folder.

    Raises:
        ConfigError: if one does not, or does not answer in time; names it.
    """
    token = folder / f".metarl-{secrets.token_hex(8)}"
    token.touch()
    try:
        for name, is_there in ask_nodes(nodes, ids, _exists, "looked for --out", str(token)):
            if not is_there:
                raise ConfigError(
                    f"--out: node {name} does not see {folder} of this machine; expected a "
                    "folder on a disk that all nodes share"
                )
    finally:
        token.unlink()


def _exists(path: str) -> bool:
    return Path(path).exists()


def _run(
    session: Session,
    config: SamplerConfig,
    jobs: Sequence[Job],
    then: Callable[[Job], None],
    slots: int,
    signals: Sequence[int],
) -> Iterator[Outcome]:
    """Yield the outcomes of all jobs, or until a signal comes."""
    import ray
    from ray.exceptions import RayError

    # An actor for each run: Ray tells the loss of a node that is cut off of actors only.
    slot = ray.remote(Slot).options(**config.ray_options)
    surroundings, waiting, running = Surroundings.here(), deque(jobs), {}
    actors: dict[Any, Any] = {}
    started: dict[Path, float] = {}
    num_restarts = 0
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                job = waiting.popleft()
                patience = LOCK_TIMEOUT if job.folder in started else 0.0
                started.setdefault(job.folder, time.perf_counter())
                actor = slot.remote(surroundings)
                ref = actor.finish.remote(job, then, patience)
                running[ref], actors[ref] = job, actor
            done, _ = ray.wait(list(running), timeout=POLL)
            if signals:
                yield Outcome(next(iter(running.values())), 0.0, STOPPING, stopped=True)
                return
            if not done:
                session.check()
            for ref in done:
                job = running.pop(ref)
                try:
                    outcome = ray.get(ref)
                    lost = outcome.error if outcome.stopped else None
                except RayError as error:
                    session.check()
                    outcome = Outcome(job, 0.0, first_line(error))
                    lost = outcome.error
                ray.kill(actors.pop(ref))
                if lost and num_restarts < config.max_restarts:
                    num_restarts += 1
                    warn(f"{job.folder}: its process was lost ({lost}); it goes on in another")
                    waiting.appendleft(job)
                    continue
                spent = time.perf_counter() - started[job.folder]
                yield Outcome(job, spent, outcome.error)
    finally:
        if not session.lost:
            for actor in actors.values():
                ray.kill(actor)


class Slot:
    """The actor of Ray that trains a run."""

    def __init__(self, surroundings: Surroundings) -> None:
        surroundings.adopt()

    def finish(self, job: Job, then: Callable[[Job], None], patience: float) -> Outcome:
        """Train a run as `many_runs.finish`.

        Args:
            job: the run.
            then: called with the job.
            patience: seconds to wait for another process that trains it, on a node that is cut off.
        """
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and is_locked(job.folder):
            time.sleep(POLL)
        return finish(job, then)
