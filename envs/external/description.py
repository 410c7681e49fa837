"""What an environment is, and what it says of itself when a worker tries it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np

from metarl.envs.external.process import Lost, WorkerError, WorkerProcess, import_path

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
    answer = _opened(environment, python, timeout)
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


def _opened(
    environment: Mapping[str, Any], python: str, timeout: float, restarts: int = 1
) -> dict[str, Any]:
    """Return what a worker answers that opens the environment; one that is lost is replaced."""
    worker = WorkerProcess(python, timeout)
    worker.start()
    path = import_path(python)
    worker.send({"do": "open", "spec": environment, "path": path, "render": False})
    try:
        answer = worker.receive()
    except Lost as loss:
        worker.kill()
        if restarts:
            return _opened(environment, python, timeout, restarts - 1)
        raise WorkerError(lost_text(f"{environment['name']}: its worker", loss, worker)) from loss
    worker.ask_to_end()
    worker.bury()
    return answer


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
