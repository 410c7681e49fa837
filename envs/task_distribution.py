"""The tasks of a family: the distribution from which they are drawn, and named task sets.

A task is a row of numbers (a goal, a direction, a scale).
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box

from metarl.envs.errors import TaskError

SPLITS = ("train", "validation", "test", "ood")
"""The named task sets of a family. Not every family has tasks out of distribution (`ood`)."""

MARGIN = 1.5
"""Width of the range of tasks out of distribution, as a multiple of the task space's."""


@dataclass(frozen=True)
class TaskDistribution(ABC):
    """The tasks of a family, without their episodes; see `metarl.envs.base.TaskFamily`."""

    name: ClassVar[str]
    """The name under which configs and the command line know the family."""
    dynamics_tasks: ClassVar[bool] = False
    """Whether the numbers of a task are parameters of the dynamics, which may drift while an agent
    adapts (`sampling.drift`)."""
    uniform_tasks: ClassVar[bool] = False
    """Whether tasks are drawn uniformly from the task space, each number for itself."""
    no_ood_reason: ClassVar[str] = "it defines no `ood_space`"
    """Why a family whose `ood_space` is its task space has no tasks out of distribution."""

    def __init_subclass__(cls) -> None:
        """Take the coordinates of tasks from a class that draws its tasks in another way than its
        base class, and says nothing of coordinates."""
        super().__init_subclass__()
        own = vars(cls).keys()
        if "sample_tasks" in own and not own & {"uniform_tasks", "num_coordinates"}:
            cls.uniform_tasks = False
            cls.num_coordinates = TaskDistribution.num_coordinates  # pyright: ignore[reportAttributeAccessIssue]

    @property
    @abstractmethod
    def task_space(self) -> Box:
        """The space of one task, (task_dim,)."""

    @property
    def ood_space(self) -> Box:
        """The space of the tasks out of distribution: the task space and a margin around it.

        By default the task space itself: there are none.
        """
        return self.task_space

    @property
    def splits(self) -> tuple[str, ...]:
        """The named task sets that the family has."""
        return SPLITS if self.ood_space != self.task_space else SPLITS[:-1]

    @property
    def all_tasks(self) -> np.ndarray | None:
        """Every task of a finite distribution, (n, task_dim), all equally probable, in the order in
        which the task sets go through them again and again; None, the default, if there are
        infinitely many. A family with few tasks has to name them: else its task sets hold some more
        often than others, and training meets the tasks of the other sets.
        """
        return None

    @property
    def num_all_tasks(self) -> int | None:
        """Number of tasks of a finite distribution; None if there are infinitely many."""
        return None if self.all_tasks is None else len(self.all_tasks)

    @abstractmethod
    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        """Draw tasks from the distribution, (num_tasks, task_dim) float64."""

    def sample_sequences(
        self, rng: np.random.Generator, num_sequences: int, length: int
    ) -> np.ndarray:
        """Draw sequences of different tasks, (num_sequences, length, task_dim) float64. A family
        that draws from tasks of a set overrides it, unless they are `all_tasks`."""
        return self.sample_tasks(rng, num_sequences * length).reshape(num_sequences, length, -1)

    @property
    def num_coordinates(self) -> int:
        """Number k of the coordinates of a task (`tasks_at`); 0 for tasks without coordinates."""
        return self.task_space.shape[0] if self.uniform_tasks else 0

    def tasks_at(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the tasks at coordinates, (n, task_dim) float64.

        Args:
            coordinates: (n, k), in [0, 1]. Independent, uniform coordinates give tasks of the
                distribution of `sample_tasks`.
        """
        low, high = (np.asarray(x, np.float64) for x in (self.task_space.low, self.task_space.high))
        return low + (high - low) * coordinates

    def in_distribution(self, task: np.ndarray) -> bool:
        """Return whether `sample_tasks` could draw a task, (task_dim,)."""
        if self.all_tasks is not None:
            return bool((self.all_tasks == task).all(axis=1).any())
        low, high = self.task_space.low, self.task_space.high
        return bool(((task >= low) & (task <= high)).all())

    def sample_ood_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        """Draw tasks out of distribution, (num_tasks, task_dim): uniformly from `ood_space`.

        Raises:
            RuntimeError: if hardly any task there is out of distribution.
        """
        rows: list[np.ndarray] = []
        for _ in range(1000 * num_tasks):
            row = rng.uniform(self.ood_space.low, self.ood_space.high)
            if not self.in_distribution(row):
                rows.append(row)
            if len(rows) == num_tasks:
                return np.stack(rows)
        raise RuntimeError(
            f"{self.name}: in_distribution accepts nearly all tasks of ood_space; make that larger"
        )

    def tasks(self, split: str, num_tasks: int) -> np.ndarray:
        """Return the first tasks of a fixed set, (num_tasks, task_dim).

        Task number i of a split does not depend on `num_tasks`. Training draws its tasks from the
        distribution by its own seed, and in a continuous task space practically never draws a
        validation or test task. The train split is for evaluation on tasks like those of training,
        `ood` for tasks beyond the range of all others. Where the distribution is finite, every set
        but `ood` goes through `all_tasks` in turn, so that each is there equally often.

        Raises:
            ValueError: if the split is unknown, the family does not have it, or no task is asked
                for.
        """
        if num_tasks < 1:
            raise ValueError(f"num_tasks: expected at least 1, got {num_tasks}")
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: expected one of {', '.join(self.splits)}")
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}: {self.no_ood_reason}")
        if self.all_tasks is not None and split != "ood":
            return self.all_tasks[np.arange(num_tasks) % len(self.all_tasks)]
        # The last word of the counter separates these numbers from those of training runs.
        key = [SPLITS.index(split), 0]
        philoxes = (np.random.Philox(key=key, counter=[0, i, 0, 1]) for i in range(num_tasks))
        sample = self.sample_ood_tasks if split == "ood" else self.sample_tasks
        rows = [sample(np.random.Generator(philox), 1) for philox in philoxes]
        return np.concatenate(rows)

    def task_settings(self) -> dict[str, Any]:
        """Return the fields that enter `task_hash`, all of them by default."""
        return asdict(self)

    def task_hash(self, tasks: np.ndarray) -> str:
        """Return a fingerprint, 16 hex digits, of the tasks, (n, task_dim), and their family.

        Only fields that differ from their defaults enter the hash, so that adding a field to a
        family does not change existing hashes.
        """
        defaults = {field.name: field.default for field in fields(self)}
        settings = self.task_settings().items()
        changed = {name: value for name, value in settings if value != defaults[name]}
        text = json.dumps({"family": self.name, **changed}, sort_keys=True)
        content = text.encode() + np.ascontiguousarray(tasks, np.float64).tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def _task_numbers(self, task: Any) -> np.ndarray:
        """Return the numbers of a task, of any shape, float64.

        Raises:
            TaskError: if it is something else.
        """
        try:
            return np.atleast_1d(np.array(task, np.float64))
        except (TypeError, ValueError):
            raise self._wrong_size(repr(task)) from None

    def _wrong_size(self, got: object) -> TaskError:
        """Return the error that something is no task of this size."""
        size = self.task_space.shape[0]
        return TaskError(f"a task of {self.name} has {size} number{'s' * (size > 1)}, got {got}")

    def check_task(self, task: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the task as a row, (task_dim,) float64.

        Raises:
            TaskError: if it has the wrong size or lies outside the task space and the space of
                the tasks out of distribution.
        """
        low, high = self.ood_space.low.astype(np.float64), self.ood_space.high.astype(np.float64)
        row = self._task_numbers(task)
        if row.shape != low.shape:
            raise self._wrong_size(row.tolist())
        if not np.all((row >= low) & (row <= high)):
            near = np.clip(row, low, high).tolist()
            hint = "" if np.isnan(row).any() else f" (nearest: {near})"
            raise TaskError(
                f"a task of {self.name} lies between {low.tolist()} and {high.tolist()}, "
                f"got {row.tolist()}{hint}"
            )
        return row
