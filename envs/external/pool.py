"""Episodes shared out among worker processes that may hang or die without changing a result."""

from __future__ import annotations

import json
import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from envs.external.process import Lost, WorkerError, WorkerProcess, import_path
from envs.external.worker import views

RESTARTS = 3
"""How often a worker is started again between two resets."""

Route = Literal["keyword", "attribute", "options"]


@dataclass(frozen=True)
class Environment:
    """What a worker makes, and how a task reaches it."""

    name: str
    """A Gymnasium id, `package.module:Name`, or `/path/to/file.py:Name`."""
    parameters: tuple[str, ...]
    """What the numbers of a task are called."""
    route: Route = "attribute"
    """`keyword`: arguments of the constructor; `attribute`: set on the unwrapped environment before
    each reset; `options`: entries of `reset(options=...)`."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the constructor."""


@dataclass(frozen=True)
class Description:
    """What an environment says of itself. Bounds are flat; `num_actions` is None for a Box."""

    obs_low: np.ndarray
    obs_high: np.ndarray
    num_actions: int | None
    action_low: np.ndarray
    action_high: np.ndarray
    frames_per_second: float | None
    draws: bool

    @property
    def action_dim(self) -> int:
        """How many numbers an action has: 1, the index, where it is Discrete."""
        return len(self.action_low) if self.num_actions is None else 1


def describe(
    environment: Environment, trial: Sequence[float], python: str, timeout: float
) -> Description:
    """Try an environment under the task `trial` in a worker of its own, once for each environment.

    Raises:
        WorkerError: if it does not exist, or cannot be used; says what helps.
    """
    spec = json.dumps({**asdict(environment), "trial": list(trial)})
    return _describe(spec, python, timeout)


@cache
def _describe(spec: str, python: str, timeout: float) -> Description:
    environment = json.loads(spec)
    worker = WorkerProcess(python, timeout)
    worker.start()
    path = import_path(python)
    worker.send({"do": "open", "spec": environment, "path": path, "render": False})
    try:
        answer = worker.receive()
    except Lost as loss:
        worker.kill()
        raise WorkerError(lost_text(f"{environment['name']}: its worker", loss, worker)) from loss
    worker.ask_to_end()
    worker.bury()
    if "done" not in answer:
        raise WorkerError(refusal(environment["name"], answer))
    found, none = answer["done"], np.empty(0)
    obs, action = found["obs"], found["action"]
    return Description(
        obs_low=np.array(obs["low"]),
        obs_high=np.array(obs["high"]),
        num_actions=action.get("n"),
        action_low=np.array(action.get("low", none), float),
        action_high=np.array(action.get("high", none), float),
        frames_per_second=found["fps"],
        draws=found["draws"],
    )


def refusal(name: str, answer: Mapping[str, Any]) -> str:
    """Say in words why a worker did not do as told."""
    if "refused" in answer:
        return f"{name} {answer['refused']}"
    return "\n  ".join([f"{name} raised {answer['raised']}", *answer["traceback"]])


def lost_text(who: str, loss: Lost, worker: WorkerProcess) -> str:
    """Say how a worker was lost, with its last words and what helps."""
    words = f"; its last words:\n{worker.last_words}\n" if worker.last_words else "; "
    hung = "gave no answer" in str(loss)
    remedy = (
        f"if the environment is only slow, raise env.timeout ({worker.timeout:g} s)"
        if hung
        else "if memory ran out, play fewer episodes at once; else look at the environment"
    )
    return f"{who} {loss}{words}{remedy}"


class Pool:
    """N episodes of an environment on W worker processes, each with a slice of them.

    What happened since the reset is remembered: a worker that dies, or hangs, is started again and
    led to where it was, which needs an environment whose seed and actions decide everything.

    Attributes:
        views: the shared arrays by name (`envs.external.worker.views`).
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
        self._environment, self._sizes, self._render = environment, dict(sizes), render
        self._path = import_path(python)
        num_episodes, num_workers = sizes["episodes"], sizes["workers"]
        bounds = [num_episodes * i // num_workers for i in range(num_workers + 1)]
        self._slices = [slice(*ends) for ends in pairwise(bounds)]
        self.workers = [WorkerProcess(python, timeout) for _ in range(num_workers)]
        self._restarts = [0] * num_workers
        # A file without a name: nothing is left of it when the last process has ended.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._fd, name = tempfile.mkstemp(dir=memory)
        os.unlink(name)
        _, length = views(sizes)
        os.ftruncate(self._fd, length)
        self.views, _ = views(sizes, mmap.mmap(self._fd, length))
        self._history: list[tuple[np.ndarray, np.ndarray]] = []
        self._before = self.views["obs"].copy()
        self._close = weakref.finalize(self, end, self.workers, self._fd, os.getpid())

    @property
    def pids(self) -> list[int]:
        """The numbers of the worker processes."""
        return [worker.pid for worker in self.workers]

    def close(self) -> None:
        """End the workers. The pool is of no use afterwards."""
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

    def picture(self, row: int) -> np.ndarray:
        """Return what the environment of an episode draws, (height, width, 3) uint8."""
        index = next(i for i, rows in enumerate(self._slices) if row < rows.stop)
        worker, name = self.workers[index], self._environment.name
        worker.send({"do": "picture", "row": row})
        try:
            answer = worker.receive()
            if "done" not in answer:
                raise WorkerError(refusal(name, answer))
            shape = answer["done"]
            content = worker.receive_bytes(int(np.prod(shape)))
        except Lost as loss:
            worker.kill()
            raise WorkerError(lost_text(f"{name}: its worker", loss, worker)) from loss
        return np.frombuffer(content, np.uint8).reshape(shape)

    def _command(self, command: Mapping[str, Any]) -> None:
        """Have all workers carry a command out."""
        try:
            for index, worker in enumerate(self.workers):
                if not worker.started:
                    self._open(index)
                worker.send(command)
            answers = [self._answer(index, command) for index in range(len(self.workers))]
        except BaseException:
            for worker in self.workers:  # answers that nobody waits for would confuse the next
                worker.kill()
            raise
        for index, answer in enumerate(answers):
            if "done" not in answer:
                if "refused" in answer:
                    raise WorkerError(refusal(self._environment.name, answer))
                raise WorkerError(f"{refusal(self._environment.name, answer)}\n{self._at(index)}")
        self._before[:] = self.views["obs"]

    def _open(self, index: int) -> None:
        worker, rows = self.workers[index], self._slices[index]
        worker.start(self._fd)
        worker.send(
            {
                "do": "open",
                "spec": asdict(self._environment),
                "path": self._path,
                "render": self._render,
                "sizes": self._sizes,
                "fd": self._fd,
                "index": index,
                "rows": [rows.start, rows.stop],
            }
        )

    def _answer(self, index: int, command: Mapping[str, Any]) -> dict[str, Any]:
        """Return a worker's answer; if it is lost, that of its successors."""
        worker = self.workers[index]
        try:
            return worker.receive(lambda: int(self.views["calls"][index]))
        except Lost as error:
            loss = error
        while True:
            where = self._at(index)
            worker.kill()
            if self._restarts[index] == RESTARTS:
                rows = self._slices[index]
                who = (
                    f"{self._environment.name}: worker {index} (episodes {rows.start} to "
                    f"{rows.stop - 1}), started again {RESTARTS} times,"
                )
                raise WorkerError(f"{lost_text(who, loss, worker)}\n{where}") from loss
            self._restarts[index] += 1
            try:
                return self._restore(index)
            except Lost as error:
                loss = error

    def _restore(self, index: int) -> dict[str, Any]:
        """Start a worker again, and repeat what its predecessor did since the reset."""
        worker, rows = self.workers[index], self._slices[index]

        def repeat(name: str) -> dict[str, Any]:
            worker.send({"do": name})
            return worker.receive(lambda: int(self.views["calls"][index]))

        self._open(index)
        answer = repeat("reset")
        for number, (action, active) in enumerate(self._history):
            if "done" not in answer:
                break
            last = number == len(self._history) - 1
            if last and not np.array_equal(
                self.views["obs"][rows], self._before[rows], equal_nan=True
            ):
                raise WorkerError(
                    f"{self._environment.name}: worker {index} was lost and cannot be replaced: "
                    "seed and actions lead its successor to other observations. Make the "
                    "environment deterministic given the seed of its reset"
                )
            self.views["action"][rows], self.views["active"][rows] = action[rows], active[rows]
            answer = repeat("step")
        return answer

    def _at(self, index: int) -> str:
        """Say what a worker is, or was, working on."""
        row = int(self.views["row"][index])
        task = zip(self._environment.parameters, self.views["task"][row], strict=True)
        values = ", ".join(f"{name} {value:g}" for name, value in task)
        steps = len(self._history)
        when = f"at step {steps - 1}" if steps else "at the reset"
        return f"({when} of episode {row}, seed {int(self.views['seed'][row])}, task {values})"


def end(workers: Sequence[WorkerProcess], fd: int, owner: int) -> None:
    """End workers and free their memory, in the process that made them only."""
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.ask_to_end()
    for worker in workers:
        worker.bury()
    os.close(fd)
