"""How an environment is made, and its spaces, which a worker reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np

from metarl.envs.external.process import (
    EnvironmentRefused,
    WorkerError,
    WorkerLost,
    WorkerProcess,
    import_path,
)

Route = Literal["keyword", "attribute", "options"]


@dataclass(frozen=True)
class Environment:
    """The environment that a worker makes, and how tasks are passed to it."""

    name: str
    """A Gymnasium id, `package:Id-v0`, `package.module:Name`, or `/path/to/file.py:Name`."""
    parameters: tuple[str, ...]
    """The names of the numbers of a task."""
    route: Route = "attribute"
    """`keyword`: arguments of the constructor; `attribute`: set on the unwrapped environment before
    each reset; `options`: entries of `reset(options=...)`."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the constructor."""


@dataclass(frozen=True)
class Description:
    """Spaces and rendering of an environment.

    Attributes:
        obs_low, obs_high: bounds of the flat observation, (obs_dim,).
        num_actions: of a Discrete action space; None for a Box.
        action_low, action_high: bounds of the flat action; empty for a Discrete space.
        frames_per_second: None if the environment does not say.
        can_render: whether it has the render mode rgb_array.
    """

    obs_low: np.ndarray
    obs_high: np.ndarray
    num_actions: int | None
    action_low: np.ndarray
    action_high: np.ndarray
    frames_per_second: float | None
    can_render: bool

    @property
    def action_dim(self) -> int:
        """The size of an action; 1, for the index, if the space is Discrete."""
        return len(self.action_low) if self.num_actions is None else 1


def query_environment(
    environment: Environment, trial: Sequence[float], python: str, timeout: float
) -> Description:
    """Make an environment under the task `trial` in a worker and return its description, cached.

    Raises:
        EnvironmentRefused: if it does not exist, or cannot be used; the message names a remedy.
        WorkerError: if it fails.
    """
    spec = json.dumps({**asdict(environment), "trial": list(trial)})
    return _query(spec, python, timeout)


@cache
def _query(spec: str, python: str, timeout: float) -> Description:
    environment = json.loads(spec)
    answer = _open_in_worker(environment, python, timeout)
    if "refused" in answer:
        raise EnvironmentRefused(f"env: {failure_text(environment['name'], answer)}")
    if "done" not in answer:
        raise WorkerError(failure_text(environment["name"], answer))
    found = answer["done"]
    (obs_low, obs_high), action = bounds(found["obs"]), found["action"]
    action_low, action_high = bounds(action) if "n" not in action else np.empty((2, 0))
    return Description(
        obs_low=obs_low,
        obs_high=obs_high,
        num_actions=action.get("n"),
        action_low=action_low,
        action_high=action_high,
        frames_per_second=found["fps"],
        can_render=found["can_render"],
    )


def bounds(box: Mapping[str, Any]) -> np.ndarray:
    """Return the bounds of a flat Box that a worker described, low and high, (2, size)."""
    return np.array([np.broadcast_to(box[end], box["size"]) for end in ("low", "high")], float)


def _open_in_worker(
    environment: Mapping[str, Any], python: str, timeout: float, restarts: int = 1
) -> dict[str, Any]:
    """Return the answer of a worker that opens the environment; a lost worker is replaced."""
    worker = WorkerProcess(python, timeout)
    worker.start()
    path = import_path(python)
    worker.send({"do": "open", "spec": environment, "path": path, "render": False})
    try:
        answer = worker.receive()
    except WorkerLost as loss:
        worker.kill()
        if restarts:
            return _open_in_worker(environment, python, timeout, restarts - 1)
        raise WorkerError(lost_text(f"{environment['name']}: its worker", loss, worker)) from loss
    worker.request_exit()
    worker.wait_closed()
    return answer


def failure_text(name: str, answer: Mapping[str, Any]) -> str:
    """Return why a worker did not carry out a command."""
    if "refused" in answer:
        return f"{name} {answer['refused']}"
    return "\n  ".join([f"{name} raised {answer['raised']}", *answer["traceback"]])


def lost_text(who: str, loss: WorkerLost, worker: WorkerProcess) -> str:
    """Return how a worker was lost, with the end of its stderr and a remedy."""
    stderr = f"; its last words:\n{worker.stderr_tail}\n" if worker.stderr_tail else "; "
    hung = "gave no answer" in str(loss)
    remedy = (
        f"if the environment is only slow, raise env.timeout ({worker.timeout:g} s)"
        if hung
        else "if memory ran out, play fewer episodes at once; else look at the environment"
    )
    return f"{who} {loss}{stderr}{remedy}"
