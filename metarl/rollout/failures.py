"""Numbers that are not finite, and other numerical trouble: what a run remembers of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

OnFailure: TypeAlias = Literal["stop", "skip_update", "drop_episode"]
"""What to do where a number is not finite: `metarl.config.Config.on_failure`."""

MAX_FLOAT32 = float(np.finfo(np.float32).max)  # what is stored of an episode has 32 bits


@dataclass(frozen=True)
class Failure:
    """One event.

    Attributes:
        kind: `episode` (one that is not finite), `update` (one that was not made), or `warning`.
        reason: what happened.
        adaptation_step: number of adaptations before the episode; None, like all that follows,
            where the event is not one episode's.
        task_index: the task's number within its batch.
        task: the task itself, (task_dim,).
        episode: the episode's number within its task.
        step: the control step.
    """

    kind: Literal["episode", "update", "warning"]
    reason: str
    adaptation_step: int | None = None
    task_index: int | None = None
    task: tuple[float, ...] | None = None
    episode: int | None = None
    step: int | None = None

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
    """Describe the failures of episodes, `ids` into a batch of `num_episodes` per task."""
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
        failures: of these episodes, at least one.
    """

    def __init__(self, failures: Sequence[Failure], remark: str = "") -> None:
        self.failures = list(failures)
        more = len(self.failures) - 1
        others = f" (and {more} more episodes)" if more else ""
        super().__init__(f"{self.failures[0]}{others}{remark}")


class NotFinite(FloatingPointError):
    """An update that would not be finite, and was not made.

    Attributes:
        what: is not finite.
        indices: of the tasks whose own part is not finite; none if only their sum is not.
        tasks: the tasks themselves, (n, task_dim), if they are known.
    """

    def __init__(
        self, what: str, indices: Sequence[int] = (), tasks: np.ndarray | None = None
    ) -> None:
        self.what, self.indices, self.tasks = what, list(indices), tasks
        super().__init__(str(self.failure))

    @property
    def failure(self) -> Failure:
        """The event, with the first of the tasks."""
        more = len(self.indices) - 1
        others = f" (nor of {more} more tasks)" if more > 0 else ""
        reason = f"{self.what} is not finite; nothing was updated{others}"
        if self.tasks is None or not self.indices:
            return Failure("update", reason)
        task = tuple(self.tasks[0].tolist())
        return Failure("update", reason, task_index=self.indices[0], task=task)


def check_finite(what: str, total: Tensor, parts: Sequence[Tensor], sizes: Sequence[int]) -> None:
    """Refuse a sum over chunks of tasks that is not finite.

    Args:
        what: the sum is called.
        total: the sum.
        parts: what was added, chunk by chunk.
        sizes: how many tasks each chunk has.

    Raises:
        NotFinite: naming the tasks of the chunks that are not finite.
    """
    if bool(torch.isfinite(total).all()):
        return
    starts = np.cumsum([0, *sizes[:-1]])
    raise NotFinite(
        what,
        [
            int(task)
            for part, start, size in zip(parts, starts, sizes, strict=True)
            if not bool(torch.isfinite(part).all())
            for task in range(start, start + size)
        ],
    )


def failures_of(error: Exception) -> list[Failure]:
    """Return the events that an error tells of."""
    if isinstance(error, EpisodeDiverged):
        return error.failures
    if isinstance(error, NotFinite):
        return [error.failure]
    return [Failure("update", str(error))] if isinstance(error, FloatingPointError) else []


def lines_of(
    failures: Sequence[Failure], iteration: int, on_failure: OnFailure
) -> list[dict[str, Any]]:
    """Return what a run's record says of the events of an iteration: what is known of each, and
    how it was handled."""
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
