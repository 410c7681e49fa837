"""A group of workers on a Ray cluster, in which lost and hanging workers are replaced."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from metarl.core.errors import UserError, warn
from metarl.envs import WorkerError
from metarl.envs.errors import first_line
from metarl.rollout.cluster.session import ClusterError, Session

POLL = 1.0  # s, between two looks at the cluster while workers play
START_TIMEOUT = 60.0  # s, for a new actor to start, in addition to the time of a call


class WorkerGroup:
    """Calls one method of several actors of Ray at once, and waits for all results.

    A call whose actor dies, or does not answer in time, is repeated on a new actor: calls must not
    depend on earlier ones.

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
            timeout: seconds for a call; the first call of an actor has START_TIMEOUT more.
            max_restarts: number of actors that may be replaced.

        Raises:
            WorkerError: if an actor fails at its start.
            ClusterError: if the actors do not start in time, or are lost too often.
        """
        self._session, self._make, self._timeout = session, make, timeout
        self._max_restarts, self.num_restarts = max_restarts, 0
        self.actors = [make() for _ in range(num_workers)]
        self._is_new = [True] * num_workers
        self._places = [actor.place.remote() for actor in self.actors]
        self.call("place", [()] * num_workers)

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the results of a method, called on the actors with these arguments, in order.

        Raises:
            UserError, WorkerError: as the method; other errors are those of Ray. Of several calls
                that fail, the first in order raises its error, whichever fails first.
            ClusterError: if the head is lost, or workers are lost more often than `max_restarts`.
        """
        import ray
        from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError

        results: dict[int, Any] = {}
        errors: dict[int, RayTaskError] = {}
        pending: dict[Any, int] = {}
        deadlines = [0.0] * len(arguments)

        def submit(index: int) -> None:
            ref = getattr(self.actors[index], method).remote(*arguments[index])
            pending[ref] = index
            more = START_TIMEOUT if self._is_new[index] else 0.0
            deadlines[index] = time.monotonic() + self._timeout + more

        def repeat(index: int, reason: str) -> None:
            self._replace(index, reason)
            submit(index)

        self._session.check()
        for index in range(len(arguments)):
            submit(index)
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1, timeout=POLL)
            if not done:
                self._session.check()
            for ref in done:
                index = pending.pop(ref)
                try:
                    results[index] = ray.get(ref, timeout=self._timeout)
                    self._is_new[index] = False
                except RayTaskError as error:
                    errors[index] = error
                except (RayActorError, ObjectLostError, WorkerCrashedError) as error:
                    if getattr(error, "actor_init_failed", False):
                        raise WorkerError(f"sampler: {_last_line(error)}") from error
                    self._session.check()
                    repeat(index, f"was lost ({first_line(error)})")
                except TimeoutError:
                    repeat(index, f"did not hand over its result within {self._timeout:g} s")
            now = time.monotonic()
            for ref in [ref for ref, index in pending.items() if now > deadlines[index]]:
                index = pending.pop(ref)
                limit = self._timeout + (START_TIMEOUT if self._is_new[index] else 0.0)
                repeat(index, f"gave no answer for {limit:g} s (sampler.timeout)")
        if errors:
            error = errors[min(errors)]
            if isinstance(error.cause, UserError | WorkerError):
                raise type(error.cause)(f"{error.cause}") from error
            raise error
        return [results[index] for index in range(len(arguments))]

    def name(self, index: int) -> str:
        """Return the number of an actor, and its process and machine if it has started."""
        import ray
        from ray.exceptions import RayError

        place = ""
        with contextlib.suppress(RayError, TimeoutError):
            place = f", {ray.get(self._places[index], timeout=0)}"
        return f"worker {index + 1}{place}"

    def _replace(self, index: int, reason: str) -> None:
        """Put a new actor in the place of a lost one.

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
        warn(f"{lost}; it is replaced, and its episodes are played again")
        self.actors[index], self._is_new[index] = self._make(), True
        self._places[index] = self.actors[index].place.remote()

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
