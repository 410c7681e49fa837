"""A comparison of methods: every config with every seed is trained and evaluated, and all of them
are put into one report and one table per family, and into aggregates over the families."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError, check, check_whole
from metarl.core.parsing import read_json
from metarl.evaluation.compare import RANDOM, UNTRAINED, evaluate_run
from metarl.evaluation.result_file import DEFAULTS, result_stem, stem_of_content
from metarl.evaluation.tasks import is_number_of_tasks, own_tasks, split_of
from metarl.reporting.aggregates import FIGURES, Aggregates, aggregate
from metarl.reporting.comparison_page import write_page
from metarl.reporting.comparison_plan import (
    check_evaluation,
    check_jobs,
    cluster_of_runs,
    plan,
)
from metarl.reporting.comparison_tables import AGGREGATED, write_returns, write_tables
from metarl.reporting.pooling import by_label, comparable, method_order, results_by_method
from metarl.reporting.report import report_page
from metarl.reporting.report_sections import Section, make_section
from metarl.reporting.style import FORMATS, method_styles, save_drawing
from metarl.reporting.summary import evaluation_names, read_summaries
from metarl.runs.atomic_io import make_output_folder
from metarl.runs.lock import training_lock
from metarl.runs.logs import RunLogs
from metarl.runs.result import Evaluation
from metarl.runs.run import check_no_run
from metarl.training.cluster_runs import finished_on_cluster
from metarl.training.many_runs import Job, Outcome, finished
from metarl.training.progress import clock_time


@dataclass
class Comparison:
    """The result of a comparison.

    Attributes:
        sections: the evaluation of each family, by its name.
        aggregates: the aggregates over families; None where there are none.
        files: the files that were written.
        failed: the jobs that failed.
        stopped: whether a signal stopped it; there are no sections then.
    """

    sections: dict[str, Section] = field(default_factory=dict)
    aggregates: Aggregates | None = None
    files: list[Path] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)
    stopped: bool = False


def compare(
    names: Sequence[str],
    out: Path,
    *,
    seeds: int = 3,
    jobs: int = 1,
    evaluation: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    env_steps: int | None = None,
    on_progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Train, evaluate and report configs with several seeds each.

    Finished runs and evaluations are not repeated and others are resumed, so the call can be
    stopped and repeated at any time, also with further configs or seeds.

    Args:
        names: names or paths of configs, of one family or several.
        out: the folder of the runs, and of the results.
        seeds: number of seeds of each config.
        jobs: number of runs at a time.
        evaluation: settings of `metarl.evaluation.compare.evaluate_run`, such as `tasks`.
        overrides: values that replace those of all configs, by dotted key.
        env_steps: env steps of each training, at most; by default as many as its config has.
        on_progress: called with a line about each run that ends.

    Returns:
        The comparison, whose files are `comparison.html`, a report for each family,
        `comparison.csv` and `comparison.md` with the returns, `comparison-returns.csv` with those
        of each run on each task, and the figures `aggregate*` with their numbers.

    Raises:
        UserError: as `plan` and `check_jobs`, or if a setting of the evaluation is out of range,
            or the folder cannot be written, is that of a run, or is one that another process
            compares in.
        WorkerError: if an environment cannot be started.
        StorageError: if a result cannot be written.
    """
    check_whole("--jobs", jobs, 1)
    sampler, overrides = cluster_of_runs(overrides or {})
    expected = "--sampler.workers, the number of runs at a time on a cluster"
    check(sampler is None or jobs == 1, "--jobs", expected, jobs)
    settings = {"protocol": "k_step", "split": "test", **DEFAULTS, **(evaluation or {})}
    planned = plan(names, seeds, out, overrides, env_steps)
    for family in planned.values():
        env = family[0].config.env
        if not is_number_of_tasks(settings["tasks"]):  # results are named by them
            settings["tasks"] = own_tasks(env, settings["tasks"]).tolist()
            settings["split"] = split_of(settings["split"], settings["tasks"])
        check_evaluation(env, settings)
    all_jobs = [job for family in planned.values() for job in family]
    check_no_run(out)
    check_jobs(all_jobs, here=sampler is None)
    make_output_folder(out)
    references = {family[0].name for family in planned.values()}
    work = functools.partial(evaluate, references=references, settings=settings)
    outcomes = (
        finished(all_jobs, jobs, work)
        if sampler is None
        else finished_on_cluster(all_jobs, sampler, work)
    )
    with training_lock(out):  # two comparisons would write the files of one another
        with contextlib.closing(outcomes):
            result = await_all(outcomes, all_jobs, on_progress)
        if not result.stopped:
            write_results(result, planned, settings, out)
    return result


def await_all(
    outcomes: Iterable[Outcome], jobs: Sequence[Job], on_progress: Callable[[str], None]
) -> Comparison:
    """Wait for the ends of all jobs, and return the comparison without any results yet.

    Args:
        outcomes: the outcomes of the jobs, as they end.
        jobs: the jobs.
        on_progress: as in `compare`.
    """
    result, start = Comparison(), time.perf_counter()
    missing, done = {job.folder: missing_share(job) for job in jobs}, 0.0
    for ended, outcome in enumerate(outcomes, start=1):
        done += missing[outcome.job.folder]
        left = (time.perf_counter() - start) * (sum(missing.values()) / done - 1) if done else 0.0
        on_progress(
            f"{ended}/{len(jobs)}  {outcome.job.folder.name} {end_of(outcome)} "
            f"({clock_time(outcome.seconds)})"
            + (f"  ETA {clock_time(left)}" if left > 0 and not outcome.stopped else "")
        )
        result.stopped |= outcome.stopped
        if outcome.error is not None:
            result.failed.append(outcome)
    return result


def missing_share(job: Job) -> float:
    """Return the share of the iterations of a job that its folder does not have yet."""
    try:
        return 1 - min(len(RunLogs(job.folder).metrics()) / job.config.iterations, 1)
    except UserError:  # not readable: the job will tell why
        return 1.0


def write_results(
    result: Comparison, planned: Mapping[str, Sequence[Job]], settings: Mapping[str, Any], out: Path
) -> None:
    """Add reports, tables and figures of the runs that did not fail to a comparison.

    Nothing is written if all runs failed: the files of an earlier comparison stay.

    Args:
        result: the comparison.
        planned: the runs by family.
        settings: the settings of their evaluation.
        out: the folder of the comparison.
    """
    failed = {outcome.job.folder for outcome in result.failed}
    results: dict[str, dict[str, list[Evaluation]]] = {}
    reports: dict[str, Path] = {}
    folders = {
        family: [job.folder for job in jobs if job.folder not in failed]
        for family, jobs in planned.items()
    }
    name = result_stem(settings["protocol"], settings["split"], "latest", settings, {})
    runs = {family: read_summaries(each, name) for family, each in folders.items() if each}
    methods = list(dict.fromkeys(chain.from_iterable(map(method_order, runs.values()))))
    for family, summaries in runs.items():
        assert name in evaluation_names(summaries)
        result.sections[family] = make_section(summaries, name, methods)
        results[family] = by_label(comparable(results_by_method(summaries, name)))
        report = report_page(summaries, out / f"report-{family}", methods, name)
        reports[family] = report[0]
    if not result.sections:
        return
    if settings["protocol"] in AGGREGATED:
        result.aggregates = aggregate(results, method_styles(methods))
    missing = [f"Missing: {each.job.folder.name}, which {end_of(each)}" for each in result.failed]
    result.files += [write_page(out, result.sections, reports, result.aggregates, missing)]
    result.files += reports.values()
    result.files += write_tables(out, result.sections, result.aggregates, missing)
    result.files += [write_returns(out, runs, name)]
    drawings = {} if result.aggregates is None else result.aggregates.drawings
    drawn = [save_drawing(drawing, out / f"{name}.png") for name, drawing in drawings.items()]
    result.files += [files[0] for files in drawn]
    for name in set(FIGURES) - set(drawings):  # of an earlier comparison
        for ending in FORMATS:
            (out / f"{name}.{ending}").unlink(missing_ok=True)


def end_of(outcome: Outcome) -> str:
    """Return how a job ended, as text."""
    if outcome.error is None:
        return "trained and evaluated"
    return "stopped" if outcome.stopped else f"failed: {outcome.error}"


def evaluate(job: Job, references: set[str], settings: Mapping[str, Any]) -> None:
    """Evaluate a finished run, unless its result file is there; the first config of a family also
    before it had learned anything."""
    stem = result_stem(settings["protocol"], settings["split"], "latest", settings, {})
    file = job.folder / "evaluation" / f"{stem}.json"
    against = [RANDOM] if job.name in references else []
    with contextlib.suppress(Exception):  # a damaged file, which is replaced
        content = read_json(file)
        own, *others = content["methods"].items()
        begun = not against or any(label in (RANDOM, UNTRAINED) for label, _ in others)
        found = own[0], own[1].get("iteration"), stem_of_content(content)
        if begun and found == (job.config.method, job.config.iterations, stem):
            return
    evaluate_run(job.folder, against=against, **settings)
