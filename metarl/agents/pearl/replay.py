"""The replay buffer: transitions of the training tasks, in the order of time.

O is the size of an observation, A that of an action, B the number of tasks of an iteration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarl.rollout.episodes import Episodes

SLOT_BYTES = 2 * 8
"""Bytes of the indices of a transition: in its iteration, and among those of its task."""


@dataclass(frozen=True)
class RowFormat:
    """A transition as one row of numbers: observation, action, reward, next observation, and
    whether the return goes on after it (1) or a terminal state is reached (0).

    Attributes:
        obs_dim: O.
        centre: centre of the action space, (A,) float32.
        half_width: half of its width, (A,) float32.
    """

    obs_dim: int
    centre: np.ndarray
    half_width: np.ndarray

    @property
    def size(self) -> int:
        """Length of a row."""
        return 2 * self.obs_dim + len(self.centre) + 2

    def rows(self, episodes: Episodes) -> np.ndarray:
        """Return the rows of all steps, (B, E, T, size) float32; those of steps that did not take
        place mean nothing. Actions are scaled so that those of the action space are within +-1."""
        last = episodes.ends[..., None]  # (B, E, T, 1)
        following = np.concatenate([episodes.obs[:, :, 1:], episodes.obs[:, :, :1]], axis=2)
        following = np.where(last, episodes.last_obs[:, :, None], following)
        action = np.clip((episodes.action - self.centre) / self.half_width, -1, 1)
        ends = last & episodes.terminated[..., None, None]
        parts = [episodes.obs, action, episodes.reward[..., None], following, ~ends]
        return np.concatenate(parts, axis=-1, dtype=np.float32)


@dataclass(frozen=True)
class Recorded:
    """The transitions of one iteration in a buffer.

    Attributes:
        iteration: its number.
        slots: places of the transitions of each task in the buffer, by the id of the task.
        size: number of transitions.
    """

    iteration: int
    slots: dict[int, np.ndarray]
    size: int


@dataclass(frozen=True)
class Collection:
    """The last transitions of a task that were collected in one iteration.

    Attributes:
        iteration: its number.
        slots: places of the transitions in the buffer, phase by phase.
        ends: how many of them are of the phases under the prior, and of one, two, ... phases more.
    """

    iteration: int
    slots: np.ndarray
    ends: np.ndarray


class Replay:
    """The last transitions of all tasks together, whole iterations, oldest out first.

    All that can be drawn is a function of the iterations that are kept, whatever was kept before.
    """

    def __init__(self, capacity: int, row_format: RowFormat, prior_phases: int) -> None:
        """Set up an empty buffer.

        Args:
            capacity: maximum number of transitions.
            row_format: makes the rows.
            prior_phases: number of phases of an iteration that are played under the prior.
        """
        self._capacity, self.row_format = capacity, row_format
        self._prior_phases = prior_phases
        self._rows = np.empty((0, row_format.size), np.float32)  # until something is recorded
        self._next, self.size = 0, 0
        self._kept: deque[Recorded] = deque()
        self._by_task: dict[int, np.ndarray] = {}
        self._last: dict[int, Collection] = {}

    @property
    def tasks(self) -> list[int]:
        """Ids of the tasks that have transitions, and such of their last collection under the
        prior, in ascending order."""
        return sorted(self._by_task.keys() & self._last.keys())

    def record(self, iteration: int, phases: Sequence[Episodes]) -> int:
        """Add the transitions of an iteration, and drop the oldest iterations if they are too many.

        Args:
            iteration: the number of the iteration, more than that of all before.
            phases: the episodes, phase by phase, with task ids.

        Returns:
            The number of the oldest iteration that is kept.
        """
        found: dict[int, list[list[np.ndarray]]] = {}  # by task and phase
        for number, episodes in enumerate(phases):
            assert episodes.task_ids is not None
            rows = self.row_format.rows(episodes)
            for task, own, mask in zip(episodes.task_ids, rows, episodes.mask, strict=True):
                if mask.any():
                    found.setdefault(int(task), [[] for _ in phases])[number].append(own[mask])
        lengths = {
            task: np.array([sum(map(len, phase)) for phase in parts])
            for task, parts in found.items()
        }
        size = int(sum(length.sum() for length in lengths.values()))
        changed = set(found)
        while self._kept and self.size + size > self._capacity:
            changed |= self._drop_oldest()
        slots = {}
        for task, parts in found.items():
            slots[task] = self._write(np.concatenate([rows for phase in parts for rows in phase]))
            ends = lengths[task].cumsum()[min(self._prior_phases, len(phases)) - 1 :]
            if ends[0]:
                self._last[task] = Collection(iteration, slots[task], ends)
        self._kept.append(Recorded(iteration, slots, size))
        for task in changed:
            own = [each.slots[task] for each in self._kept if task in each.slots]
            if own:
                self._by_task[task] = np.concatenate(own)
            else:
                del self._by_task[task]
        return self._kept[0].iteration

    def _drop_oldest(self) -> set[int]:
        """Drop the oldest iteration; returns its tasks."""
        oldest = self._kept.popleft()
        self.size -= oldest.size
        for task in oldest.slots:
            if task in self._last and self._last[task].iteration == oldest.iteration:
                del self._last[task]
        return set(oldest.slots)

    def _write(self, rows: np.ndarray) -> np.ndarray:
        if not len(self._rows):
            self._rows = np.empty((self._capacity, self.row_format.size), np.float32)
        slots = (self._next + np.arange(len(rows))) % self._capacity
        self._rows[slots] = rows
        self._next = (self._next + len(rows)) % self._capacity
        self.size += len(rows)
        return slots

    def draw(self, tasks: Sequence[int], number: int, rng: np.random.Generator) -> np.ndarray:
        """Draw transitions of tasks, with replacement, (M, number, row size)."""
        return self._draw([self._by_task[task] for task in tasks], number, rng)

    def draw_prior(self, tasks: Sequence[int], number: int, rng: np.random.Generator) -> np.ndarray:
        """Draw transitions of tasks, with replacement, from the last episodes of each task that
        were played under the prior, (M, number, row size)."""
        last = [self._last[task] for task in tasks]
        return self._draw([each.slots[: each.ends[0]] for each in last], number, rng)

    def draw_trial(self, tasks: Sequence[int], number: int, rng: np.random.Generator) -> np.ndarray:
        """Draw transitions of tasks, with replacement, from the last trials of each task up to a
        random episode, at least those under the prior, (M, number, row size)."""
        last = [self._last[task] for task in tasks]
        slots = [each.slots[: each.ends[rng.integers(0, len(each.ends))]] for each in last]
        return self._draw(slots, number, rng)

    def _draw(
        self, slots: Sequence[np.ndarray], number: int, rng: np.random.Generator
    ) -> np.ndarray:
        drawn = [each[rng.integers(0, len(each), number)] for each in slots]
        return self._rows[np.stack(drawn)]
