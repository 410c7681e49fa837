"""The sections of a report: the tables and figures of one evaluation each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import NamedTuple

import numpy as np

from metarl.core.statistics import (
    difference_interval,
    interquartile_mean,
    mean_interval,
    probability_of_improvement,
)
from metarl.evaluation.continual import forgetting
from metarl.reporting.evaluation import evaluation_notes, evaluation_text
from metarl.reporting.figures import WITH_OWN_FIGURE, longest_result, main_figure
from metarl.reporting.groups import group_runs
from metarl.reporting.pooling import (
    MethodPart,
    by_label,
    comparable,
    final_scores,
    method_order,
    part_styles,
    pooled_interval,
    pooled_scores,
    results_by_method,
)
from metarl.reporting.score_figures import profiles, returns_by_task
from metarl.reporting.style import Drawing
from metarl.reporting.summary import RunSummary
from metarl.runs.printing import decimals
from metarl.runs.result import Evaluation, part_label

MAX_SCATTERS = 3
"""Number of methods whose returns are drawn against the task."""


class ScoreCell(NamedTuple):
    """The scores of a method at one x: mean over seeds and tasks, its interval (NaN where there is
    none), interquartile mean, and the fraction of episodes that succeeded (None where it is
    unknown)."""

    mean: float
    low: float
    high: float
    iqm: float
    success: float | None


@dataclass(frozen=True)
class MethodRow:
    """A row of an evaluation's table.

    Attributes:
        name: the label of method and part.
        method: the name of the group of runs, or the label of the baseline.
        split: name of the task set.
        seeds: number of seeds.
        cells: the scores at each x of the table; None where the method does not have it.
    """

    name: str
    method: str
    split: str
    seeds: int
    cells: Sequence[ScoreCell | None]


class Improvement(NamedTuple):
    """The probability that `method`, which has the higher mean return, beats `other`, and the
    difference of their mean returns with its interval (NaN where there is none)."""

    method: str
    other: str
    probability: float
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the method is better: undecided where the interval contains 0."""
        return "better" if self.low > 0 else "undecided"


class Transfer(NamedTuple):
    """Return on tasks just met, return on all tasks after a sequence, backward transfer and
    forgetting: means over seeds and sequences."""

    name: str
    plasticity: float
    average: float
    backward_transfer: float
    forgetting: float


@dataclass(frozen=True)
class Section:
    """The content of one evaluation, such as `k_step-test`, over all methods."""

    name: str
    family: str
    split: str
    num_tasks: int
    about: str
    notes: Sequence[str]
    x_label: str
    x: Sequence[int]
    rows: Sequence[MethodRow]
    improvements: Sequence[Improvement]
    transfers: Sequence[Transfer]
    figures: Mapping[str, Drawing]

    @property
    def decimals(self) -> int:
        """The number of decimals of all returns in its tables."""
        return decimals(np.array([cell.mean for row in self.rows for cell in row.cells if cell]))


def make_section(
    summaries: Sequence[RunSummary], name: str, methods: Sequence[str] = ()
) -> Section:
    """Return the section of one evaluation.

    Args:
        summaries: the runs.
        name: the name of the evaluation.
        methods: all methods of a set of figures; by default those of the runs.

    Raises:
        UserError: if the results of the runs cannot be put together.
    """
    protocol = name.partition("-")[0]
    seeds_by_part = comparable(results_by_method(summaries, name))
    seeds_by_label = by_label(seeds_by_part)
    results = first_results(summaries, name)
    first, compared = next(iter(results.values())), next(iter(seeds_by_part.values()))[0]
    longest = longest_result(seeds[0] for seeds in seeds_by_label.values())
    methods = methods or method_order(summaries)
    figures = {name: main_figure(protocol, seeds_by_part, methods)}
    if protocol not in WITH_OWN_FIGURE:
        styles = part_styles(seeds_by_part, methods)
        figures[f"{name}-profile"] = profiles(seeds_by_label, styles)
        few = best_results(results, MAX_SCATTERS)
        scatter = returns_by_task(few, styles)
        if scatter is not None and protocol != "drift":  # whose tasks are elsewhere in the end
            if len(few) < len(results):
                note = f" Drawn are the {len(few)} best of {len(results)} results."
                scatter = replace(scatter, caption=scatter.caption + note)
            figures[f"{name}-tasks"] = scatter
    sequences = seeds_by_label if protocol == "continual" else {}
    return Section(
        name=name,
        family=first.family,
        split=first.split,
        num_tasks=compared.num_distinct,
        about=evaluation_text(results.values()),
        notes=[
            *left_out(summaries, name),
            *common_tasks(first, compared),
            *iteration_notes(summaries, name),
        ],
        x_label=longest.x_label,
        x=longest.x,
        rows=[method_row(key, seeds, len(longest.x)) for key, seeds in seeds_by_part.items()],
        improvements=[] if protocol in WITH_OWN_FIGURE else improvements(seeds_by_part),
        transfers=[
            transfer(label, seeds) for label, seeds in sequences.items() if len(seeds[0].x) > 1
        ],
        figures=figures,
    )


def best_results(results: Mapping[str, Evaluation], number: int) -> dict[str, Evaluation]:
    """Return the results with the highest mean returns at the last x, in their own order."""
    best = sorted(results, key=lambda label: -results[label].mean[-1])[:number]
    return {label: result for label, result in results.items() if label in best}


def first_results(summaries: Sequence[RunSummary], name: str) -> dict[str, Evaluation]:
    """Return one result of each run method, and part, in the evaluations of one name."""
    found: dict[str, Evaluation] = {}
    for method, runs in group_runs(summaries).items():
        for summary in runs:
            for part, result in summary.evaluations.get(name, {}).items():
                found.setdefault(part_label(method, part), result)
    return found


def method_row(key: MethodPart, seeds: Sequence[Evaluation], columns: int) -> MethodRow:
    """Return the table row of a method.

    Args:
        key: the method, and the part of its results.
        seeds: the comparable result of each seed, at P values of x.
        columns: number of columns of the table, at least P; the cells after P are empty.
    """
    scores = pooled_scores(seeds)
    rates = [result.success_rate for result in seeds if result.success_rate is not None]
    success = np.mean(rates, axis=0).tolist() if rates else [None] * scores.shape[2]
    cells: list[ScoreCell | None] = []
    intervals = pooled_interval(seeds).tolist()
    for values, (low, high), rate in zip(scores.T, intervals, success, strict=True):
        iqm = float(interquartile_mean(values.ravel()))
        cells.append(ScoreCell(float(values.mean()), low, high, iqm, rate))
    cells += [None] * (columns - len(cells))
    return MethodRow(str(key), key.method, seeds[0].split, len(seeds), cells)


def left_out(summaries: Sequence[RunSummary], name: str) -> list[str]:
    """Return a note for each method and part, and seed if there are several, with episodes that
    were left out; also for those that a run was compared with."""
    notes = []
    for method, runs in group_runs(summaries).items():
        for summary in runs:
            seed = f", seed {summary.run.config.seed}" if len(runs) > 1 else ""
            results = summary.evaluations.get(name, {})
            found = {part_label(method, part) + seed: each for part, each in results.items()}
            for label, baseline in summary.baselines.get(name, {}).items():
                for part, each in baseline.items():
                    found[f"{part_label(label, part)}, beside {summary.name}"] = each
            notes += evaluation_notes(found)
    return notes


def common_tasks(first: Evaluation, compared: Evaluation) -> list[str]:
    """Return a note if methods are compared on fewer tasks than were played.

    Args:
        first: a result as it was measured.
        compared: the same on the tasks that are compared.
    """
    played = len(np.unique(first.tasks, axis=0))
    if compared.num_distinct == played:
        return []
    return [
        f"All returns are over {compared.num_distinct} of {played} tasks, those that every method "
        "and seed has played to the end"
    ]


def iteration_notes(summaries: Sequence[RunSummary], name: str) -> list[str]:
    """Return a note for each method whose seeds were measured after different numbers of
    iterations, and for each run that has been trained further since it was measured."""
    notes = []
    for method, runs in group_runs(summaries).items():
        measured = [(one, one.settings[name]) for one in runs if name in one.evaluations]
        numbers = sorted({found["iteration"] for _, found in measured if "iteration" in found})
        if len(numbers) > 1:
            text = ", ".join(map(str, numbers))
            notes.append(f"{method}: its seeds were measured after {text} iterations")
        for summary, settings in measured:
            trained = int(summary.metrics["iteration"][-1])
            number = settings.get("iteration", trained)
            if settings.get("checkpoint") == "latest" and number < trained:
                notes.append(
                    f"{summary.name}: measured after {number} of the {trained} iterations that it "
                    "has now"
                )
    return notes


def transfer(name: str, seeds: Sequence[Evaluation]) -> Transfer:
    """Return the means over seeds and sequences of a part of the protocol `continual`."""
    found = [forgetting(seed) for seed in seeds]
    names = ("plasticity", "average", "backward_transfer", "forgetting")
    means = ([getattr(each, one).mean() for each in found] for one in names)
    return Transfer(name, *(float(np.mean(each)) for each in means))


def improvements(results: Mapping[MethodPart, Sequence[Evaluation]]) -> list[Improvement]:
    """Return the probability that a method beats another at the last x that both have, and by how
    much, by pairs.

    Of each pair on the same tasks the method with the higher mean return comes first.

    Args:
        results: of each method, and part, seed by seed. Two parts of a method are results of the
            same runs, so each run is compared with itself.
    """
    found = []
    for (one, x), (other, y) in permutations(final_scores(results).items(), 2):
        same = results[one][0].task_hash == results[other][0].task_hash
        if not same or x.shape[1] != y.shape[1]:  # of a file that was changed
            continue
        same_runs = one.method == other.method and len(x) == len(y)
        pairs = zip(x[:, None], y[:, None], strict=True) if same_runs else [(x, y)]
        probability = float(np.mean([probability_of_improvement(*pair) for pair in pairs]))
        difference = x.mean() - y.mean()
        if difference > 0 or (difference == 0 and str(one) < str(other)):
            fixed = results[one][0].has_all_tasks
            bounds = (
                mean_interval(x - y, fixed_tasks=fixed)
                if same_runs
                else difference_interval(x, y, fixed_tasks=fixed)
            )
            names = str(one), str(other)
            found.append(Improvement(*names, probability, difference, *map(float, bounds)))
    return found
