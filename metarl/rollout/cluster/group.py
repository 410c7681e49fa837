"""A group of workers on a Ray cluster, in which lost and hanging workers are replaced."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from metarl.core.errors import UserError, warn
from metarl.envs import WorkerError
from metarl.envs.errors import first_line
from metarl.rollout.cluster.session import ClusterError, Session

POLL = 1.0  # s, between two looks at the cluster while workers play
START_TIMEOUT = 120.0  # s, for a new actor to find room and to start


class WorkerGroup:
    """Calls one method of several actors of Ray at once, and waits for all results.

    A call whose actor dies, or does not answer in time, is repeated on the first actor that is
    free: a new one in its place, or one of the others. Calls must not depend on earlier ones.

    Attributes:
        actors: the handles of the actors.
        num_restarts: number of actors that were replaced so far.
    """

    def __init__(
        self,
        session: Session,
        make: Callable[[], Any],
        num_workers: int,
        timeout: float,
        max_restarts: int,
    ) -> None:
        """Start the actors.

        Args:
            session: the connection to the cluster.
            make: returns the handle of a new actor, with a method `place` that tells where it runs.
            num_workers: number of actors.
            timeout: seconds for a call.
            max_restarts: number of actors that may be replaced.

        Raises:
            WorkerError: if an actor fails at its start.
            ClusterError: if the actors do not start in time, or are lost too often.
        """
        self._session, self._make, self._timeout = session, make, timeout
        self._max_restarts, self.num_restarts = max_restarts, 0
        self.actors: list[Any] = [None] * num_workers
        self._starting: dict[Any, int] = {}  # the actors' first answers, that are to come
        self._places: dict[int, str] = {}  # of the actors that have started
        for index in range(num_workers):
            self._start(index)
        self._wait_for_all()

    def _start(self, index: int) -> None:
        self.actors[index] = self._make()
        self._starting[self.actors[index].place.remote()] = index

    def _wait_for_all(self) -> None:
        """Wait until all actors have started.

        Raises:
            WorkerError, ClusterError: as `__init__`.
        """
        import ray

        deadline = time.monotonic() + START_TIMEOUT
        while self._starting:
            done, _ = ray.wait(list(self._starting), timeout=POLL)
            if not done:
                self._session.check()
            for ref in done:
                self._receive_place(ref)
            if self._starting and time.monotonic() > deadline:
                raise ClusterError(
                    f"sampler: only {len(self._places)} of {len(self.actors)} workers have started "
                    f"within {START_TIMEOUT:g} s; expected room for all on {self._session.name}, "
                    "which other programs may use, or fewer sampler.workers"
                )

    def _receive_place(self, ref: Any) -> None:
        """Note that an actor has started, or replace it if it is lost already.

        Raises:
            WorkerError, ClusterError: as `__init__`.
        """
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError

        index = self._starting.pop(ref)
        try:
            self._places[index] = ray.get(ref, timeout=self._timeout)
        except (RayActorError, OutOfMemoryError) as error:
            if getattr(error, "actor_init_failed", False):
                raise WorkerError(f"sampler: {_last_line(error)}") from error
            self._session.check()
            self._replace(index, f"was lost at its start ({first_line(error)})")

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the results of a method, called on the actors with these arguments, in order.

        Raises:
            UserError, WorkerError: as the method; other errors are those of Ray. Of several calls
                that fail, the first in order raises its error, whichever fails first.
            ClusterError: if the head is lost, workers are lost more often than `max_restarts`, or
                all are lost and none has room.
        """
        import ray
        from ray.exceptions import (
            ObjectLostError,
            OutOfMemoryError,
            RayActorError,
            RayTaskError,
            WorkerCrashedError,
        )

        results: dict[int, Any] = {}
        errors: dict[int, RayTaskError] = {}
        waiting = deque(range(len(arguments)))
        pending: dict[Any, tuple[int, int, float]] = {}  # call, actor and deadline

        def repeat(call: int, index: int, reason: str) -> None:
            self._replace(index, reason)
            waiting.append(call)

        self._session.check()
        last_seen = time.monotonic()  # of an actor that has started
        while waiting or pending:
            idle = self._places.keys() - {index for _, index, _ in pending.values()}
            while waiting and idle:
                call = waiting.popleft()
                index = call if call in idle else min(idle)
                idle.remove(index)
                ref = getattr(self.actors[index], method).remote(*arguments[call])
                pending[ref] = call, index, time.monotonic() + self._timeout
            done, _ = ray.wait([*pending, *self._starting], num_returns=1, timeout=POLL)
            if not done:
                self._session.check()
            for ref in done:
                if ref in self._starting:
                    self._receive_place(ref)
                    continue
                call, index, _ = pending.pop(ref)
                try:
                    results[call] = ray.get(ref, timeout=self._timeout)
                except RayTaskError as error:
                    errors[call] = error
                except (
                    *(RayActorError, ObjectLostError, WorkerCrashedError),
                    OutOfMemoryError,  # Ray ends processes where memory runs short
                ) as error:
                    self._session.check()
                    repeat(call, index, f"was lost ({first_line(error)})")
                except TimeoutError:
                    repeat(call, index, f"did not hand over its result within {self._timeout:g} s")
            now = time.monotonic()
            late = [ref for ref, (_, _, deadline) in pending.items() if now > deadline]
            if late:  # those with a result are in time: this process was paused
                _, late = ray.wait(late, num_returns=len(late), timeout=0)
            for ref in late:
                call, index, _ = pending.pop(ref)
                repeat(call, index, f"gave no answer for {self._timeout:g} s (sampler.timeout)")
            if self._places:
                last_seen = now
            elif now - last_seen > START_TIMEOUT:
                raise ClusterError(
                    f"sampler: all workers of {self._session.name} were lost, and no new one has "
                    f"found room and started within {START_TIMEOUT:g} s"
                )
        if errors:
            error = errors[min(errors)]
            if isinstance(error.cause, UserError | WorkerError):
                raise type(error.cause)(f"{error.cause}") from error
            raise error
        return [results[call] for call in range(len(arguments))]

    def name(self, index: int) -> str:
        """Return the number of an actor, and its process and machine if it has started."""
        return ", ".join([f"worker {index + 1}", *filter(None, [self._places.get(index)])])

    def _replace(self, index: int, reason: str) -> None:
        """Put a new actor in the place of a lost one; it may have to wait for room.

        Raises:
            ClusterError: if too many were replaced already.
        """
        self._kill(index)
        lost = f"{self.name(index)}, of {self._session.name}, {reason}"
        if self.num_restarts >= self._max_restarts:
            raise ClusterError(
                f"sampler: {lost}, and {self.num_restarts} workers were replaced before: no more "
                "than sampler.max_restarts"
            )
        self.num_restarts += 1
        warn(f"{lost}; it is replaced once there is room, and its episodes are played again")
        self._places.pop(index, None)
        self._start(index)

    def _kill(self, index: int) -> None:
        import ray

        with contextlib.suppress(Exception):  # it may be dead already
            ray.kill(self.actors[index], no_restart=True)

    def close(self) -> None:
        """End all actors."""
        for index in range(len(self.actors)):
            self._kill(index)


def _last_line(error: Exception) -> str:
    """Return the last line of an error of Ray that is not empty: type and message of its cause."""
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()
