"""Numerical failures of a run: non-finite episodes, skipped updates, and warnings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:  # workers of a cluster, which play episodes, start without torch
    from torch import Tensor

OnFailure: TypeAlias = Literal["stop", "skip_update", "drop_episode"]
"""The reaction to a number that is not finite: see `metarl.config.Config.on_failure`."""

MAX_FLOAT32 = float(np.finfo(np.float32).max)  # episodes are stored in float32


@dataclass(frozen=True)
class Failure:
    """A numerical failure or a warning.

    Attributes:
        kind: `episode` (an episode with a number that is not finite), `update` (an update that was
            not made), or `warning`.
        reason: a sentence about the failure.
        adaptation_step: number of adaptations before the episode; None for other kinds.
        task_index: index of the task in its batch; None if no task is known.
        task: parameters of the task, (task_dim,); None if no task is known.
        episode: index of the episode in its task; None for other kinds.
        step: environment step in the episode; None for other kinds.
    """

    kind: Literal["episode", "update", "warning"]
    reason: str
    adaptation_step: int | None = None
    task_index: int | None = None
    task: tuple[float, ...] | None = None
    episode: int | None = None
    step: int | None = None

    def with_index(self, index_of: Callable[[int], int]) -> Failure:
        """Return the failure with another index of its task, a function of this one."""
        index = self.task_index
        return self if index is None else replace(self, task_index=index_of(index))

    def __str__(self) -> str:
        task = None if self.task is None else f"task {self.task_index} {list(self.task)}"
        episode = None if self.episode is None else f"episode {self.episode}, step {self.step}"
        place = ", ".join(part for part in (task, episode) if part)
        return f"{place}: {self.reason}" if place else self.reason


def episode_failures(
    ids: Sequence[int] | np.ndarray,
    tasks: np.ndarray,
    num_episodes: int,
    reason: str,
    *,
    adaptation_step: int,
    step: int,
) -> list[Failure]:
    """Return the failures of the episodes `ids` of a batch.

    Args:
        ids: indices of episodes, (n,), counted task by task.
        tasks: (B, task_dim).
        num_episodes: E, the number of episodes of each task.
        reason: a sentence about the failure.
        adaptation_step: number of adaptations before the episodes.
        step: environment step in the episodes.
    """
    places = [divmod(int(i), num_episodes) for i in ids]
    return [
        Failure(
            "episode", reason, adaptation_step, task, tuple(tasks[task].tolist()), episode, step
        )
        for task, episode in places
    ]


class EpisodeDiverged(RuntimeError):
    """Episodes reached a state, a reward or an action that is not finite.

    Attributes:
        failures: the failures of these episodes, at least one.
        remark: the end of the message.
    """

    def __init__(self, failures: Sequence[Failure], remark: str = "") -> None:
        self.failures, self.remark = list(failures), remark
        more = len(self.failures) - 1
        others = f" (and {more} more episodes)" if more else ""
        super().__init__(f"{self.failures[0]}{others}{remark}")


class NotFinite(FloatingPointError):
    """A quantity of an update is not finite; the update was not made.

    Attributes:
        what: name of the quantity.
        indices: indices of the tasks with a non-finite contribution to the quantity; empty if all
            contributions are finite, but not their sum.
        tasks: the parameters of these tasks, (n, task_dim); None if they are not known.
    """

    def __init__(
        self, what: str, indices: Sequence[int] = (), tasks: np.ndarray | None = None
    ) -> None:
        self.what, self.indices, self.tasks = what, list(indices), tasks
        super().__init__(str(self.failure))

    @property
    def failure(self) -> Failure:
        """The failure, with the first of the tasks."""
        more = len(self.indices) - 1
        others = f" (nor of {more} more tasks)" if more > 0 else ""
        reason = f"{self.what} is not finite; nothing was updated{others}"
        if self.tasks is None or not self.indices:
            return Failure("update", reason)
        task = tuple(self.tasks[0].tolist())
        return Failure("update", reason, task_index=self.indices[0], task=task)


def check_metrics(metrics: Mapping[str, float]) -> None:
    """Check that all diagnostics of an update are finite.

    Raises:
        NotFinite: if one is not; names it.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NotFinite(name)


def check_finite(what: str, total: Tensor, parts: Sequence[Tensor], sizes: Sequence[int]) -> None:
    """Check that a sum over microbatches of tasks is finite.

    Args:
        what: name of the sum in the error message.
        total: the sum, a tensor of any shape.
        parts: the summands, one for each microbatch.
        sizes: number of tasks of each microbatch.

    Raises:
        NotFinite: if the sum is not finite; names the tasks of the microbatches whose summands are
            not finite.
    """
    if bool(total.isfinite().all()):
        return
    starts = np.cumsum([0, *sizes[:-1]])
    raise NotFinite(
        what,
        [
            int(task)
            for part, start, size in zip(parts, starts, sizes, strict=True)
            if not bool(part.isfinite().all())
            for task in range(start, start + size)
        ],
    )


def failures_of(error: Exception) -> list[Failure]:
    """Return the failures that an error reports; [] for errors that are not numerical."""
    if isinstance(error, EpisodeDiverged):
        return error.failures
    if isinstance(error, NotFinite):
        return [error.failure]
    return [Failure("update", str(error))] if isinstance(error, FloatingPointError) else []


def lines_of(
    failures: Sequence[Failure], iteration: int, on_failure: OnFailure
) -> list[dict[str, Any]]:
    """Return the entries of a run's failure log for the failures of one iteration.

    Args:
        failures: the failures and warnings of the iteration.
        iteration: number of the iteration.
        on_failure: the reaction to failures, which the entries record as `handled`.

    Returns:
        One dict for each failure, without the fields that are None.
    """
    skipped: OnFailure = "stop" if on_failure == "stop" else "skip_update"
    handled = {"episode": on_failure, "update": skipped, "warning": "warned"}
    return [
        {
            "iteration": iteration,
            **{name: value for name, value in asdict(each).items() if value is not None},
            "handled": handled[each.kind],
        }
        for each in failures
    ]
