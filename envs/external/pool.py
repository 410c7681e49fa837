"""Episodes divided among worker processes that may hang or die without changing a result."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from metarl.envs.external.description import Environment, failure_text, lost_text
from metarl.envs.external.process import WorkerError, WorkerLost, WorkerProcess, import_path
from metarl.envs.external.worker.shared_arrays import views

MAX_RESTARTS = 3
"""Restarts of a worker between two resets, after which its loss is an error."""


def shared_file(length: int) -> int:
    """Open a file of so many bytes for processes to share: in memory, or where there is no room, as
    in a container, in the folder of temporary files. Its room is taken at once: a process that
    writes where none is left is killed. The file has no name, so that the system removes it when
    the last process has ended.

    Raises:
        WorkerError: if there is no room in either.
    """
    folders = ["/dev/shm"] * os.access("/dev/shm", os.W_OK) + [tempfile.gettempdir()]
    for folder in folders:
        descriptor, name = tempfile.mkstemp(dir=folder)
        os.unlink(name)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, length)
            else:  # macOS
                os.ftruncate(descriptor, length)
            return descriptor
        except OSError as error:
            os.close(descriptor)
            reason = error.strerror
    raise WorkerError(
        f"{' and '.join(folders)}: no room for the {length / 1e6:,.0f} MB that processes of "
        f"environments share ({reason}); play fewer episodes at once"
    )


class Pool:
    """N episodes of an environment on W worker processes, each with a slice of them.

    All commands since the reset are stored: a worker that dies or hangs is restarted and repeats
    them, which requires an environment determined by its seed and actions.

    Attributes:
        views: the shared arrays by name (`metarl.envs.external.worker.shared_arrays.views`).
        workers: the worker processes, which start at the first command.
    """

    def __init__(
        self,
        environment: Environment,
        sizes: Mapping[str, int],
        python: str,
        timeout: float,
        render: bool = False,
    ) -> None:
        self._environment, self._sizes, self._can_render = environment, dict(sizes), render
        self._path = import_path(python)
        num_episodes, num_workers = sizes["episodes"], sizes["workers"]
        bounds = [num_episodes * i // num_workers for i in range(num_workers + 1)]
        self._slices = [slice(*ends) for ends in pairwise(bounds)]
        self.workers = [WorkerProcess(python, timeout) for _ in range(num_workers)]
        self._restarts = [0] * num_workers
        _, length = views(sizes)
        self._fd = shared_file(length)
        self.views, _ = views(sizes, mmap.mmap(self._fd, length))
        self._history: list[tuple[np.ndarray, np.ndarray]] = []
        self._last_obs = self.views["obs"].copy()
        self._close = weakref.finalize(self, close_workers, self.workers, self._fd, os.getpid())

    @property
    def pids(self) -> list[int]:
        """The ids of the worker processes."""
        return [worker.pid for worker in self.workers]

    def close(self) -> None:
        """End the workers. The pool cannot be used afterwards."""
        self._close()

    def reset(self, tasks: np.ndarray, seeds: np.ndarray) -> None:
        """Begin all episodes: tasks (N, task_dim), seeds (N,).

        Raises:
            WorkerError: if the environment fails, or a worker is lost too often.
        """
        self.views["task"][:], self.views["seed"][:] = tasks, seeds
        self._history.clear()
        self._restarts = [0] * len(self.workers)
        self._command({"do": "reset"})

    def step(self, action: np.ndarray, active: np.ndarray) -> None:
        """Step the episodes where `active`, (N,), under the environment's actions, (N, action_dim).

        Raises:
            WorkerError: if the environment fails, or a worker is lost too often.
        """
        self.views["action"][:], self.views["active"][:] = action, active
        self._history.append((self.views["action"].copy(), self.views["active"].copy()))
        self._command({"do": "step"})

    def render(self, row: int) -> np.ndarray:
        """Return the image that the environment of an episode renders, (height, width, 3) uint8.

        Raises:
            WorkerError: if the environment fails, or a worker is lost too often.
        """
        index = next(i for i, rows in enumerate(self._slices) if row < rows.stop)
        worker, name = self.workers[index], self._environment.name
        while True:
            worker.send({"do": "render", "row": row})
            try:
                answer = worker.receive()
                if "done" not in answer:
                    raise WorkerError(failure_text(name, answer))
                shape = answer["done"]
                content = worker.receive_bytes(math.prod(shape))
                return np.frombuffer(content, np.uint8).reshape(shape)
            except WorkerLost as loss:
                answer = self._replace(index, loss, pending=False)
                if "done" not in answer:
                    raise WorkerError(failure_text(name, answer)) from loss

    def _command(self, command: Mapping[str, Any]) -> None:
        """Send a command to all workers and wait until all have carried it out."""
        if not self._close.alive:
            raise WorkerError(f"{self._environment.name}: is closed; make the environment again")
        try:
            for index, worker in enumerate(self.workers):
                if not worker.started:
                    self._open(index)
                worker.send(command)
            answers = [self._answer(index) for index in range(len(self.workers))]
        except BaseException:
            # Unread answers would be taken for those of later commands.
            for worker in self.workers:
                worker.kill()
            raise
        for index, answer in enumerate(answers):
            if "done" not in answer:
                if "refused" in answer:
                    raise WorkerError(failure_text(self._environment.name, answer))
                raise WorkerError(
                    f"{failure_text(self._environment.name, answer)}\n{self._at(index)}"
                )
        self._last_obs[:] = self.views["obs"]

    def _open(self, index: int) -> None:
        worker, rows = self.workers[index], self._slices[index]
        worker.start(self._fd)
        worker.send(
            {
                "do": "open",
                "spec": asdict(self._environment),
                "path": self._path,
                "render": self._can_render,
                "sizes": self._sizes,
                "fd": self._fd,
                "index": index,
                "rows": [rows.start, rows.stop],
            }
        )

    def _answer(self, index: int) -> dict[str, Any]:
        """Return a worker's answer; if the worker is lost, the answer of its replacement."""
        try:
            return self.workers[index].receive(lambda: int(self.views["calls"][index]))
        except WorkerLost as loss:
            return self._replace(index, loss)

    def _replace(self, index: int, loss: WorkerLost, *, pending: bool = True) -> dict[str, Any]:
        """Return the answer of a lost worker's replacement to the last command.

        Args:
            index: which worker.
            loss: how it was lost.
            pending: whether the answer to that command had not arrived yet.

        Raises:
            WorkerError: if replacements are lost too, or cannot reproduce its episodes.
        """
        worker = self.workers[index]
        while True:
            where = self._at(index)
            worker.kill()
            if self._restarts[index] == MAX_RESTARTS:
                rows = self._slices[index]
                subject = (
                    f"{self._environment.name}: worker {index} (episodes {rows.start} to "
                    f"{rows.stop - 1}), started again {MAX_RESTARTS} times,"
                )
                raise WorkerError(f"{lost_text(subject, loss, worker)}\n{where}") from loss
            self._restarts[index] += 1
            try:
                return self._restore(index, pending)
            except WorkerLost as error:
                loss = error

    def _restore(self, index: int, pending: bool) -> dict[str, Any]:
        """Restart a worker, and repeat all commands since the reset."""
        worker, rows = self.workers[index], self._slices[index]

        def repeat(name: str) -> dict[str, Any]:
            worker.send({"do": name})
            return worker.receive(lambda: int(self.views["calls"][index]))

        self._open(index)
        answer = repeat("reset")
        for number, (action, active) in enumerate(self._history):
            if "done" not in answer:
                break
            if pending and number == len(self._history) - 1:
                self._check_restored(index)
            self.views["action"][rows], self.views["active"][rows] = action[rows], active[rows]
            answer = repeat("step")
        if not pending:
            self._check_restored(index)
        return answer

    def _check_restored(self, index: int) -> None:
        rows = self._slices[index]
        if not np.array_equal(self.views["obs"][rows], self._last_obs[rows], equal_nan=True):
            raise WorkerError(
                f"{self._environment.name}: worker {index} was lost and cannot be replaced: "
                "seed and actions lead its successor to other observations. Make the "
                "environment deterministic given the seed of its reset"
            )

    def _at(self, index: int) -> str:
        """Return the step, episode, seed and task that a worker is working on."""
        rows = self._slices[index]
        # Written by the worker, which has failed: the row may be out of range.
        row = int(np.clip(self.views["row"][index], rows.start, rows.stop - 1))
        task = zip(self._environment.parameters, self.views["task"][row], strict=True)
        values = ", ".join(f"{name} {value:g}" for name, value in task)
        steps = len(self._history)
        when = f"at step {steps - 1}" if steps else "at the reset"
        return f"({when} of episode {row}, seed {int(self.views['seed'][row])}, task {values})"


def close_workers(workers: Sequence[WorkerProcess], fd: int, owner: int) -> None:
    """End workers and free their shared memory, only in the process that made them."""
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.request_exit()
    for worker in workers:
        worker.wait_closed()
    os.close(fd)
