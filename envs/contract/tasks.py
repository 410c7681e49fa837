"""Checks of the distribution and the sets of tasks."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np

from metarl.envs.base import TaskFamily
from metarl.envs.contract.recording import (
    Violation,
    expect,
    random_tasks,
    unused_global_rngs,
)
from metarl.envs.task_distribution import SPLITS

REQUIRED_SPLITS = ("train", "validation", "test")
"""The task sets that every family must have."""
MAX_QUANTILE_ERROR = 0.08
"""Largest difference of the distribution functions of two samples of 1000 equally distributed
numbers; larger ones are less probable than 1 in 200 (Kolmogorov and Smirnov)."""
SET_SIZES = (50, 10, 1)  # tasks of each set to compare: the largest number that the set has


def sampled_tasks(family: TaskFamily) -> str:
    """Sampled tasks are float64 rows of the task space that `check_task` takes as they are."""
    for num_tasks in (1, 20):
        tasks = random_tasks(family, num_tasks)
        expected = (num_tasks, *family.task_space.shape)
        shape = np.shape(tasks)
        expect(shape == expected, f"sample_tasks: expected the shape {expected}, got {shape}")
        expect(isinstance(tasks, np.ndarray), "sample_tasks: expected an array of NumPy")
        expect(
            tasks.dtype == np.float64,
            f"sample_tasks: expected float64, got {np.dtype(tasks.dtype)}",
        )
        for task in tasks:
            space = family.task_space
            inside = (task >= space.low).all() and (task <= space.high).all()
            expect(
                bool(inside),
                f"sample_tasks drew {_format_task(task)}, which is not in the task space; widen "
                "the space or narrow the distribution",
            )
            _expect_accepted(family, task)
    if (known := family.all_tasks) is not None:
        size, shape = family.task_space.shape[0], np.shape(known)
        expect(
            len(shape) == 2 and shape[0] > 0 and shape[1] == size,
            f"all_tasks: expected the shape (n, {size}) with one task at least, got {shape}",
        )
    return ""


def _expect_accepted(family: TaskFamily, task: np.ndarray) -> None:
    checked = family.check_task(task)
    expect(
        np.array_equal(checked, task),
        f"check_task: expected the task {_format_task(task)} as it is, got {_format_task(checked)}",
    )


def _format_task(task: np.ndarray) -> str:
    return np.array2string(np.asarray(task), threshold=6, edgeitems=2, separator=", ")


def sampling_randomness(family: TaskFamily) -> str:
    """Tasks depend on the given generator, and on nothing else."""
    drawn = []
    for seed in (1, 2):  # of the global generators, which must not matter
        with unused_global_rngs(seed):
            drawn.append(random_tasks(family, 20))
            family.tasks("train", 3)
    expect(
        np.array_equal(*drawn),
        "the same generator gave other tasks; draw from nothing but the generator that is given",
    )
    expect(
        not np.array_equal(drawn[0], random_tasks(family, 20, seed=1)),
        "two generators gave the same 20 tasks; draw them from the generator that is given",
    )
    return ""


def task_coordinates(family: TaskFamily) -> str:
    """Tasks at uniformly drawn coordinates are distributed like sampled tasks, number by number."""
    if not family.num_coordinates:
        return "its tasks have no coordinates (num_coordinates is 0)"
    size = 1000
    even = np.random.default_rng([4, 0]).random((size, family.num_coordinates))
    found, drawn = family.tasks_at(even), random_tasks(family, size)
    expect(
        found.shape == drawn.shape and found.dtype == np.float64,
        f"tasks_at: expected float64 of the shape {drawn.shape}, got {found.dtype}, {found.shape}",
    )
    for number in range(found.shape[1]):
        pair = [np.sort(tasks[:, number]) for tasks in (found, drawn)]
        grid = np.concatenate(pair)
        shares = [np.searchsorted(each, grid, side="right") / size for each in pair]
        error = float(np.abs(shares[0] - shares[1]).max())
        expect(
            error <= MAX_QUANTILE_ERROR,
            f"tasks_at: number {number} of a task is not distributed as by sample_tasks; write "
            "tasks_at anew, or have num_coordinates return 0",
        )
    return ""


def task_sets(family: TaskFamily) -> str:
    """The task sets are fixed, begin alike at any size, and are disjoint, or go through all tasks
    of a finite distribution in turn."""
    missing = set(REQUIRED_SPLITS) - set(family.splits)
    expect(not missing, f"splits: expected {', '.join(REQUIRED_SPLITS)} at least")
    sets = {split: _first_tasks(family, split) for split in family.splits}
    for split, tasks in sets.items():
        again, fewer = family.tasks(split, len(tasks)), min(5, len(tasks))
        expect(np.array_equal(tasks, again), f"the {split} tasks differ from one call to the next")
        expect(
            np.array_equal(tasks[:fewer], family.tasks(split, fewer)),
            f"the first {fewer} of {len(tasks)} {split} tasks are not those of a set of {fewer}; "
            "task number i must not depend on how many are asked for",
        )
        for task in tasks:
            _expect_accepted(family, task)
            expect(
                family.in_distribution(task) == (split != "ood"),
                f"the {split} task {_format_task(task)}: in_distribution says "
                f"{family.in_distribution(task)}; draw it elsewhere, or mend in_distribution",
            )
    absent = [split for split in SPLITS if split not in sets]
    for wrong in (("no_such_split", 3), ("test", 0), *((split, 3) for split in absent)):
        try:
            family.tasks(*wrong)
        except ValueError:
            continue
        raise Violation(f"tasks{wrong}: expected a ValueError")
    inside, outside = family.task_space, family.ood_space
    expect(
        (outside.low <= inside.low).all() and (outside.high >= inside.high).all(),
        "ood_space: expected the task space and more",
    )
    note = f"no {', '.join(absent)} tasks" if absent else ""
    if family.all_tasks is None:
        _expect_disjoint(sets)
        return note
    _expect_in_turn(family.all_tasks, family, sets)
    return "; ".join(filter(None, [f"{len(family.all_tasks)} tasks in all", note]))


def _first_tasks(family: TaskFamily, split: str) -> np.ndarray:
    """Return the first tasks of a set, as many as it has of the largest size in SET_SIZES."""
    for size in SET_SIZES[:-1]:
        with contextlib.suppress(ValueError):
            return family.tasks(split, size)
    return family.tasks(split, SET_SIZES[-1])


def _expect_disjoint(sets: dict[str, np.ndarray]) -> None:
    rows = {split: {task.tobytes() for task in tasks} for split, tasks in sets.items()}
    common = [pair for pair in itertools.combinations(rows, 2) if rows[pair[0]] & rows[pair[1]]]
    expect(
        not common,
        f"{' and '.join(common[0]) if common else ''} have tasks in common; draw them apart, or "
        "return all tasks from all_tasks where they are few",
    )


def _expect_in_turn(all_tasks: np.ndarray, family: TaskFamily, sets: dict[str, np.ndarray]) -> None:
    """Check that tasks are all different, and are what is drawn and what the sets go through."""
    known = {task.tobytes() for task in all_tasks}
    expect(len(known) == len(all_tasks), "all_tasks: expected each task once")
    for task in random_tasks(family, 50):
        expect(
            task.tobytes() in known,
            f"sample_tasks drew {_format_task(task)}, which is not one of all_tasks",
        )
    for split in REQUIRED_SPLITS:
        turns = np.arange(len(sets[split])) % len(all_tasks)
        expect(
            np.array_equal(sets[split], all_tasks[turns]),
            f"the {split} tasks do not go through all_tasks in turn; leave `tasks` as it is",
        )
