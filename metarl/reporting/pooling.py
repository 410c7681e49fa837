"""Results of several runs put together: runs with the same settings are seeds of one method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np

from metarl.core.errors import UserError
from metarl.core.statistics import mean_interval
from metarl.evaluation.compare import RANDOM, UNTRAINED
from metarl.reporting.groups import group_runs
from metarl.reporting.style import LineStyle, method_style, part_style
from metarl.reporting.summary import RunSummary
from metarl.runs.printing import count_text, episodes_text
from metarl.runs.result import Evaluation, Results, part_label


class MethodPart(NamedTuple):
    """What has a row and a curve of its own: a part of the results of a method; as text its label.

    Attributes:
        method: the name of a group of runs, or the label of a baseline.
        part: the part of the protocol; '' if the protocol has only one.
    """

    method: str
    part: str

    def __str__(self) -> str:
        return part_label(*self)


MEASURED_ALIKE = ("task_hash", "seed", "deterministic")
"""Attributes in which the results of all methods agree that are put together."""

Key = TypeVar("Key", str, MethodPart)
Seeds = TypeVar("Seeds", bound=Sequence[Evaluation])


def config_differences(summaries: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """Return the config keys whose values differ between runs, with the value of each run; '' where
    its kind of agent does not have the key."""
    configs = [summary.values for summary in summaries]
    keys = {key: None for config in configs for key in config}
    values = {key: [config.get(key, "") for config in configs] for key in keys}
    return {key: row for key, row in values.items() if any(each != row[0] for each in row)}


def results_by_method(
    summaries: Sequence[RunSummary], name: str
) -> dict[MethodPart, list[Evaluation]]:
    """Return the results of each method, and part, in the evaluations of one name, seed by seed.

    Baselines without a run among `summaries` come from the first run that was compared with them.
    All results of a part are on the same tasks, with the same random numbers and the same kind of
    actions. The seeds of a method have the same x and the same number of episodes. The x of one
    method may be the beginning of another's: an agent that cannot adapt has x = (0,).

    Args:
        summaries: the runs.
        name: the name of the evaluation, such as `k_step-test`.

    Raises:
        UserError: if results were measured otherwise, on other tasks or at other x; or if a seed of
            a method is there twice.
    """
    found: dict[MethodPart, list[Evaluation]] = {}
    longest: dict[str, tuple[RunSummary, Evaluation]] = {}  # by part
    first: dict[MethodPart, tuple[RunSummary, Evaluation]] = {}

    def add(summary: RunSummary, key: MethodPart, result: Evaluation) -> None:
        seed_summary, seed_result = first.setdefault(key, (summary, result))
        if result.x != seed_result.x or result.returns.shape[2] != seed_result.returns.shape[2]:
            raise mismatch(name, seed_summary, seed_result, summary, result)
        other, expected = longest.setdefault(key.part, (summary, result))
        shared = min(len(result.x), len(expected.x))
        unlike = any(getattr(result, each) != getattr(expected, each) for each in MEASURED_ALIKE)
        if unlike or result.x[:shared] != expected.x[:shared]:
            raise mismatch(name, other, expected, summary, result)
        if len(result.x) > len(expected.x):
            longest[key.part] = summary, result
        found.setdefault(key, []).append(result)

    for method, runs in group_runs(summaries).items():
        for summary in runs:
            for part, result in summary.evaluations.get(name, {}).items():
                add(summary, MethodPart(method, part), result)
    measured = [each.evaluations[name] for each in summaries if name in each.evaluations]
    own = {summary.method for summary in summaries if name in summary.evaluations}
    methods = {summary.method for summary in summaries}
    for summary in summaries:
        for method, results in summary.baselines.get(name, {}).items():
            # An untrained agent is none of these runs, even where all returns are 0.
            untrained = method in (RANDOM, UNTRAINED)
            if not untrained and any(are_same(results, each) for each in measured):
                continue  # another of these runs, which is a seed of its method
            # Not the runs of a method that is called `random`.
            method = UNTRAINED if method == RANDOM and RANDOM in methods else method
            for part, result in results.items():
                key = MethodPart(method, part)
                if method not in own and key not in found:
                    add(summary, key, result)
    return found


def are_same(one: Results, other: Results) -> bool:
    """Return whether two results have the same parts with the same returns, bit for bit."""
    return one.keys() == other.keys() and all(
        np.array_equal(one[part].returns, other[part].returns, equal_nan=True) for part in one
    )


def by_label(results: Mapping[MethodPart, Seeds]) -> dict[str, Seeds]:
    """Return the results of each method, and part, by label."""
    return {str(key): seeds for key, seeds in results.items()}


def method_order(summaries: Sequence[RunSummary]) -> list[str]:
    """List the methods of runs, and behind them those that any was compared with."""
    compared = (each for summary in summaries for each in summary.baselines.values())
    return list(dict.fromkeys([*group_runs(summaries), *chain.from_iterable(compared)]))


def part_styles(keys: Iterable[MethodPart], methods: Sequence[str] = ()) -> dict[str, LineStyle]:
    """Return the style of each method, and part, by label: parts of a method differ in the line.

    Args:
        keys: the methods and parts of a figure.
        methods: all methods of a set of figures, in each of which a method looks alike.
    """
    keys = list(keys)
    order = list(dict.fromkeys([*methods, *(key.method for key in keys)]))
    styles: dict[str, LineStyle] = {}
    seen: set[str] = set()
    for key in keys:
        style_of = part_style if key.method in seen else method_style
        styles[str(key)] = style_of(order.index(key.method))
        seen.add(key.method)
    return styles


def mismatch(
    name: str, one: RunSummary, expected: Evaluation, other: RunSummary, result: Evaluation
) -> UserError:
    """Return the error that two results of an evaluation cannot be put together."""
    return UserError(
        f"{name}: {one.name} was evaluated on {extent(expected)}, {other.name} on "
        f"{extent(result)}; evaluate both alike to put them together (metarl evaluate)"
    )


def extent(result: Evaluation) -> str:
    """Return how a result was measured, as text."""
    last = count_text(result.x[-1], result.x_label)
    kind = ", deterministic actions" if result.deterministic else ""
    return (
        f"{len(result.tasks)} tasks (hash {result.task_hash}), {last}, {episodes_text([result])} "
        f"each{kind}, seed {result.seed}"
    )


def comparable(results: Mapping[Key, Sequence[Evaluation]]) -> dict[Key, list[Evaluation]]:
    """Return the results on the tasks that every seed of every method has played to their end.

    A task that is not complete for one seed of one method is left out of all results on the same
    task set, with the other tasks of its sequence. If any result has successes, one without had
    none: some environments tell of a success only once there is one.

    Args:
        results: by method, seed by seed.

    Raises:
        UserError: if no task is left.
    """
    complete: dict[str, np.ndarray] = {}  # by the hash of the tasks
    for each in (each for seeds in results.values() for each in seeds):
        known = complete.get(each.task_hash, each.complete_tasks)
        complete[each.task_hash] = known & each.complete_tasks
    for name, seeds in results.items():
        if not complete[seeds[0].task_hash].any():
            raise UserError(f"{name}: no task is left that every method has played to its end")
    defined = any(each.success is not None for seeds in results.values() for each in seeds)

    def compared(result: Evaluation) -> Evaluation:
        if defined and result.success is None:
            result = replace(result, success=np.zeros(result.returns.shape, bool))
        return result.only(complete[result.task_hash])

    return {name: [compared(each) for each in seeds] for name, seeds in results.items()}


def pooled_scores(seeds: Sequence[Evaluation]) -> np.ndarray:
    """Return the scores of a method, (S, D, P): mean returns by seed, distinct task and x."""
    return np.stack([each.scores for each in seeds])


def pooled_interval(seeds: Sequence[Evaluation]) -> np.ndarray:
    """Return the 95% interval of the mean return of a method at each x, (P, 2): over its runs and
    tasks, or sequences of tasks; of its only run, as `Evaluation.interval`.

    Args:
        seeds: the result of each run of the method, on the same tasks.
    """
    if len(seeds) == 1:
        return seeds[0].interval
    scores = np.stack([each.independent_scores.T for each in seeds], axis=1)  # (P, S, n)
    return np.stack(mean_interval(scores, fixed_tasks=seeds[0].has_all_tasks), axis=1)


def final_places(results: Mapping[Key, Sequence[Evaluation]]) -> dict[Key, int]:
    """Return the place of the x at which each method is compared with others.

    This is the last x that all methods have. A method that cannot adapt, with one x, does not limit
    the others and is compared by its only scores.
    """
    counts = [len(seeds[0].x) for seeds in results.values()]
    last = min((count for count in counts if count > 1), default=1) - 1
    return {name: min(last, len(seeds[0].x) - 1) for name, seeds in results.items()}


def final_scores(results: Mapping[Key, Sequence[Evaluation]]) -> dict[Key, np.ndarray]:
    """Return the scores by which methods are compared, (S, D), from comparable results."""
    places = final_places(results)
    return {name: pooled_scores(seeds)[:, :, places[name]] for name, seeds in results.items()}
