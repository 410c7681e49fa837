"""The result of an evaluation: returns by task, by x (such as the number of adaptations) and by
episode."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from metarl.core.statistics import interquartile_mean, mean_interval, repeats_interval
from metarl.envs import TaskFamily
from metarl.rollout.failures import Failure
from metarl.runs.printing import as_html, as_repr, as_text
from metarl.runs.result_content import evaluation_fields


@dataclass(frozen=True, eq=False)  # arrays have no equality that is true or false
class Evaluation:
    """Returns of one agent on B tasks, each at P values of x, with statistics over tasks.

    Statistics are over the D distinct tasks: a task that is there several times, each time with an
    adaptation of its own, counts once, with the mean of these returns.

    Failed episodes are left out of all statistics. A task whose episodes have all failed at some x
    is left out at all x, with the other tasks of its sequence, so that statistics at different x
    are over the same tasks.

    Attributes:
        family: name of the task family.
        split: name of the task set.
        task_hash: hash of family and tasks.
        tasks: (B, task_dim).
        returns: undiscounted returns, (B, P, episodes); NaN for failed episodes.
        seed: seed of the episodes.
        success: (B, P, episodes) bool, whether each episode succeeded; None if the environment
            defines no success.
        x_label: name of the quantity x.
        x: (P,) integers, increasing; 0, ..., P - 1 by default. An agent that cannot adapt has
            x = (0,).
        failures: the failed episodes.
        num_all_tasks: number of tasks of the distribution; None if it is infinite.
        deterministic: whether the episodes have deterministic actions.
        sequence_length: number of consecutive tasks that are a sequence: an agent in one state
            plays them all, so their returns are not independent.
    """

    family: str
    split: str
    task_hash: str
    tasks: np.ndarray
    returns: np.ndarray
    seed: int = 0
    success: np.ndarray | None = None
    x_label: str = "adaptations"
    x: tuple[int, ...] = ()
    failures: tuple[Failure, ...] = ()
    num_all_tasks: int | None = None
    deterministic: bool = False
    sequence_length: int = 1

    def __post_init__(self) -> None:
        if not self.x:
            object.__setattr__(self, "x", tuple(range(self.returns.shape[1])))

    def __repr__(self) -> str:
        return as_repr(self)

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @classmethod
    def on_tasks(cls, family: TaskFamily, rows: np.ndarray, **fields: Any) -> Evaluation:
        """Return the evaluation on tasks of a family, `rows` (B, task_dim), with other fields."""
        return cls(
            family=family.name,
            task_hash=family.task_hash(rows),
            tasks=rows,
            num_all_tasks=population_size(family, rows),
            **fields,
        )

    @property
    def successes(self) -> Evaluation | None:
        """This evaluation with 1 in place of the return of an episode that succeeded, and 0 of any
        other, so that its statistics are those of success; None if success is undefined."""
        if self.success is None:
            return None
        counted = np.where(np.isfinite(self.returns), self.success, np.nan)
        return replace(self, returns=counted, success=None)

    @property
    def success_rate(self) -> np.ndarray | None:
        """Fraction of the episodes that succeeded at each x, mean over tasks, (P,); None if success
        is undefined."""
        found = self.successes
        return None if found is None else found.mean

    @functools.cached_property
    def by_task(self) -> np.ndarray:
        """Mean return of each of the B tasks at each x, (B, P); NaN if all its episodes failed."""
        counted = np.isfinite(self.returns)
        sums, counts = np.where(counted, self.returns, 0).sum(axis=2), counted.sum(axis=2)
        return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)

    @property
    def complete_tasks(self) -> np.ndarray:
        """Mask of the tasks with episodes at every x, in whole sequences, (B,) bool; only these
        enter statistics."""
        known = np.isfinite(self.by_task).all(axis=1)
        whole = known.reshape(-1, self.sequence_length).all(axis=1)
        return np.repeat(whole, self.sequence_length)

    def only(self, kept: np.ndarray) -> Evaluation:
        """Return the results, and failures, of some of the tasks, given by a mask (B,) bool."""
        new = np.cumsum(kept) - 1  # the indices of those that are kept
        failures = [
            each for each in self.failures if each.task_index is None or kept[each.task_index]
        ]
        return replace(
            self,
            tasks=self.tasks[kept],
            returns=self.returns[kept],
            success=None if self.success is None else self.success[kept],
            failures=tuple(each.with_index(lambda index: int(new[index])) for each in failures),
        )

    @functools.cached_property
    def distinct_index(self) -> np.ndarray:
        """For each complete task its number among the distinct ones, (number of complete tasks,)
        integers from 0 to D - 1, numbered as they first occur."""
        rows = [task.tobytes() for task in self.tasks[self.complete_tasks]]
        numbers = {row: number for number, row in enumerate(dict.fromkeys(rows))}
        return np.array([numbers[row] for row in rows])

    @property
    def distinct_tasks(self) -> np.ndarray:
        """The distinct complete tasks, (D, task_dim), as they first occur."""
        _, first = np.unique(self.distinct_index, return_index=True)
        return self.tasks[self.complete_tasks][first]

    @property
    def num_distinct(self) -> int:
        """Number of distinct complete tasks, D."""
        return int(self.distinct_index.max(initial=-1)) + 1

    @property
    def has_all_tasks(self) -> bool:
        """Whether the distinct tasks are all tasks of the distribution, none of them by chance."""
        return self.num_distinct == self.num_all_tasks

    @property
    def scores(self) -> np.ndarray:
        """Mean return of each distinct complete task at each x, (D, P)."""
        index, values = self.distinct_index, self.by_task[self.complete_tasks]
        sums = np.zeros((self.num_distinct, values.shape[1]))
        np.add.at(sums, index, values)
        return sums / np.bincount(index)[:, None]

    @property
    def independent_scores(self) -> np.ndarray:
        """Scores around `mean` that are independent given the run, (n, P): those of tasks, or those
        of sequences."""
        if self.sequence_length == 1:
            return self.scores
        played = self.by_task[self.complete_tasks]
        means = played.reshape(-1, self.sequence_length, len(self.x)).mean(axis=1)
        return means - means.mean(axis=0) + self.mean  # which counts repeated tasks once

    @property
    def mean(self) -> np.ndarray:
        """Mean over distinct tasks at each x, (P,)."""
        return self.scores.mean(axis=0)

    @functools.cached_property
    def interval(self) -> np.ndarray:
        """95% interval of `mean` at each x, (P, 2): of this run, over tasks, or over sequences of
        tasks. If the tasks are all there are, over the repetitions of each task. NaN if there is
        none: for one task or sequence, or for all tasks without repetitions.
        """
        if self.has_all_tasks and self.sequence_length == 1:
            played = self.by_task[self.complete_tasks]
            bounds = repeats_interval(played.T, self.distinct_index)
        else:
            bounds = mean_interval(self.independent_scores.T[:, None])
        return np.stack(bounds, axis=1)

    @property
    def iqm(self) -> np.ndarray:
        """Interquartile mean over tasks at each x, (P,)."""
        return np.array([interquartile_mean(values) for values in self.scores.T])

    @property
    def fraction_worse(self) -> np.ndarray:
        """Fraction of the distinct tasks whose return is below that before adaptation, (P,)."""
        return (self.scores < self.scores[:, :1]).mean(axis=0)

    @property
    def note(self) -> str:
        """A sentence about the episodes and tasks left out; '' if there are none."""
        if not self.failures:
            return ""
        lost = int((~self.complete_tasks).sum())
        tasks = f" and {lost} of {len(self.tasks)} tasks" if lost else ""
        return f"{len(self.failures)} episodes{tasks} left out (first: {self.failures[0]})"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a row for each episode, for `pandas.DataFrame` or `csv.DictWriter`: the index of
        its `task` in `tasks`, `x`, the number of the `episode` from 0, its `return` (NaN for a
        failed episode) and, if the environment defines it, its `success`."""
        rows = []
        for (task, place, episode), value in np.ndenumerate(self.returns):
            row = {"task": task, "x": self.x[place], "episode": episode, "return": float(value)}
            if self.success is not None:
                row["success"] = bool(self.success[task, place, episode])
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON content of a result file."""
        return {
            "family": self.family,
            "split": self.split,
            "task_hash": self.task_hash,
            "tasks": self.tasks.tolist(),
            "num_all_tasks": self.num_all_tasks,
            "x_label": self.x_label,
            "x": self.x,
            "seed": self.seed,
            "returns": without_nan(self.returns),
            "mean": self.mean.tolist(),
            "interval": without_nan(self.interval),
            "iqm": self.iqm.tolist(),
            "fraction_worse": self.fraction_worse.tolist(),
            **({} if self.success is None else {"success": self.success.tolist()}),
            **({} if self.success_rate is None else {"success_rate": self.success_rate.tolist()}),
            **({"deterministic": True} if self.deterministic else {}),
            **({"sequence_length": length} if (length := self.sequence_length) > 1 else {}),
            **({"failures": [asdict(each) for each in self.failures]} if self.failures else {}),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation of a result file, in its present or its earlier form.

        Statistics are recomputed from the returns.

        Args:
            content: the JSON content, as returned by `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: if `content` is not a valid result.
        """
        return cls(**evaluation_fields(content))


def population_size(family: TaskFamily, rows: np.ndarray) -> int | None:
    """Return the number of tasks of a family's distribution, if it is finite and has all tasks in
    `rows`, (B, task_dim); None otherwise, as for tasks out of distribution."""
    known = {row.tobytes() for row in family.all_tasks} if family.all_tasks is not None else set()
    return len(known) if known.issuperset(row.tobytes() for row in rows) else None


def without_nan(values: np.ndarray) -> list[Any]:
    """Return values as nested lists, with None for NaN, which JSON does not have."""
    nested = values.astype(object)
    nested[np.isnan(values)] = None
    return nested.tolist()


Results: TypeAlias = dict[str, Evaluation]
"""Evaluations by part of a protocol, such as `nominal`; the name of an only part is ''."""


def part_label(method: str, part: str) -> str:
    """Return the label of a part of the results of a method."""
    return f"{method}, {part}" if part else method


def results_by_label(results: Mapping[str, Results]) -> dict[str, Evaluation]:
    """Return the results of several methods, by method, as one mapping by `part_label`."""
    return {
        part_label(method, part): result
        for method, parts in results.items()
        for part, result in parts.items()
    }
