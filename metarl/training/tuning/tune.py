"""The search for hyper-parameters by the return on validation tasks (`metarl tune`)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.config import Config
from metarl.config_files import check_cluster_keys, make_config, read_config
from metarl.core.csv_text import csv_content
from metarl.core.errors import check, check_known
from metarl.runs.atomic_io import make_output_folder, write_atomically
from metarl.runs.lock import training_lock
from metarl.runs.run import Run, check_no_run
from metarl.training.checks import check_startable
from metarl.training.many_runs import Job, Outcome, finished
from metarl.training.progress import clock_time, format_return
from metarl.training.tuning.space import SearchSpace, read_space
from metarl.training.tuning.study import (
    FILE,
    PRUNED_AT,
    PRUNERS,
    Pruning,
    check_optuna,
    choose,
    open_study,
    open_trial,
)
from metarl.training.validation import comparable_return

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

EVALUATIONS = 10
"""Most evaluations of a trial, unless the config has `evaluation.every`."""
ERROR = "error"
"""Attribute of a trial that failed, or did not come to its end: the reason."""
SAME_AS = "same_as"
"""Attribute of a trial that has the values, and so the result, of an earlier one: its number."""
NO_VALUE = "not all validation tasks were played to the end"
DIVERGED = ("EpisodeDiverged", "NotFinite", NO_VALUE)
"""Beginnings of the errors that are due to the values of a trial."""
MAX_TRIALS, MAX_JOBS = 100_000, 1024


@dataclass(frozen=True)
class TrialRow:
    """A trial of a search.

    Attributes:
        number: its number, from 0.
        state: `complete`, `pruned`, `failed` or `running`.
        value: the last return after adaptation on validation tasks; None before the first.
        values: the values that it has of the config, by dotted key.
        note: where it was pruned, why it failed or is not finished, or the earlier trial with the
            same values, whose result it has; '' otherwise.
    """

    number: int
    state: str
    value: float | None
    values: Mapping[str, Any]
    note: str


@dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
        trials: all trials, in order.
        best: the best complete trial; None if there is none.
        files: the files that were written.
        stopped: whether a signal stopped it.
    """

    trials: Sequence[TrialRow]
    best: TrialRow | None
    files: Sequence[Path]
    stopped: bool


def tune(
    name: str,
    space: Path,
    out: Path,
    *,
    trials: int = 20,
    jobs: int = 1,
    pruner: str = "median",
    overrides: Mapping[str, Any] | None = None,
    on_progress: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Train a config with other values, trial by trial, and find the best ones.

    All trials have the config's seed and the same validation tasks, and are judged by the last
    `validation/return_after`. Trials that are done are not repeated, and one that was stopped goes
    on, so the call can be stopped and repeated at any time, also with more trials. With one job the
    trials do not depend on stops.

    Args:
        name: the config, by path or by name.
        space: the file of the search space; see `metarl.training.tuning.space.read_space`.
        out: the folder of the runs, the study and the results.
        trials: number of trials.
        jobs: number of trials at a time, each on one thread unless `overrides` say otherwise.
        pruner: `median` stops a trial whose best evaluation so far is below the median of the
            others at the same iteration, after a fifth of the iterations and once five trials are
            complete; `hyperband` stops by brackets of budgets; or `none`.
        overrides: values that replace those of the config, by dotted key.
        on_progress: called with a line about each trial that ends.

    Returns:
        The trials; the files are `best.yaml`, a config with the best values, and `trials.csv`.

    Raises:
        UserError: if Optuna is not installed, a setting, the config or the search space is not
            valid, or the folder cannot be written, is that of a run, or has another search or
            another process that searches.
        WorkerError: as `metarl.training.checks.check_startable`, in a new folder.
    """
    check(1 <= trials <= MAX_TRIALS, "--trials", f"from 1 to {MAX_TRIALS}", trials)
    check(1 <= jobs <= MAX_JOBS, "--jobs", f"from 1 to {MAX_JOBS}", jobs)
    check_known(pruner, PRUNERS, "--pruner: unknown pruner")
    check_optuna()
    given = dict(overrides or {})
    values = read_config(name)  # once: the file may change during the search
    config = make_config(values, name, given)
    check_cluster_keys(config, values, name, given)
    searched = read_space(space, values, name, given)
    every = config.evaluation.every or math.ceil(config.iterations / EVALUATIONS)
    # Trials with other numbers of episodes or adaptations in training are measured alike.
    amounts = config.evaluation.amounts(config.sampling)
    measured = {f"evaluation.{key}": amount for key, amount in amounts.items()}
    settings = {**given, **measured, "evaluation.every": every}
    config = Job(name, settings, out, values=values).config
    check_no_run(out)
    if not out.exists():
        check_startable(config, out)
        config.untrained_state()
    make_output_folder(out)
    with training_lock(out), open_study(out, config, searched, pruner) as study:
        search = Search(name, values, settings, config, searched, out, pruner, study)
        stopped = search.run(trials, jobs, on_progress)
        rows = [row_of(each) for each in study.get_trials()]
    best = best_of(rows)
    files = [write_trials(out / "trials.csv", rows, searched)]
    if best is not None:
        chosen = {key: searched[key].value_of(best.values[key]) for key in searched}
        files.append(out / "best.yaml")
        text = make_config(values, name, {**given, **chosen}).to_yaml()
        write_atomically(files[-1], text.encode())
    return Tuned(rows, best, files, stopped)


@dataclass(frozen=True)
class Search:
    """The trials of a search; the attributes are as in `tune`, `values` those of the config's
    file, and `settings` with the evaluations."""

    name: str
    values: Mapping[str, Any]
    settings: Mapping[str, Any]
    config: Config
    space: SearchSpace
    out: Path
    pruner: str
    study: Study

    def run(self, trials: int, jobs: int, on_progress: Callable[[str], None]) -> bool:
        """Carry out the trials that are missing, and return whether a signal stopped them."""
        stopped, seconds = False, 0.0
        with contextlib.closing(finished(self._jobs(trials), jobs, done)) as outcomes:
            for ended, outcome in enumerate(outcomes, start=1):
                stopped |= outcome.stopped
                if outcome.stopped and outcome.error is not None:
                    continue
                self._tell(outcome)
                known = self.study.get_trials()
                rows = [row_of(each) for each in known]
                row, best = rows[number_of(outcome.job)], best_of(rows)
                over = sum(each.state.is_finished() for each in known)
                seconds += outcome.seconds
                left = seconds / ended * (trials - over) / min(jobs, max(1, trials - over))
                value = f"{format_return(row.value)}{f' ({row.note})' if row.note else ''}"
                on_progress(
                    f"{over}/{trials}  trial {row.number}: {value}"
                    + (f"  best {format_return(best.value)} (trial {best.number})" if best else "")
                    + f"  {clock_time(outcome.seconds)}"
                    + (f"  ETA {clock_time(left)}" if left > 0 and not stopped else "")
                )
        return stopped

    def _jobs(self, trials: int) -> Iterator[Job]:
        """Yield the jobs of the trials that were stopped, then those of new ones."""
        for each in self.study.get_trials():
            if not each.state.is_finished() and each.number < trials:
                if PRUNED_AT in each.user_attrs:
                    self._tell_pruned(each.number)
                else:
                    yield self._job(each.number)
        while (number := len(self.study.get_trials(deepcopy=False))) < trials:
            job = self._job(number)
            if not self._is_repeated(number):
                yield job

    def _is_repeated(self, number: int) -> bool:
        """Return whether a new trial has the values of a complete one, whose result is then its
        own: with one seed it would be the same training."""
        trials = self.study.get_trials(deepcopy=False)
        for each in trials[:number]:
            if each.state.name == "COMPLETE" and each.params == trials[number].params:
                first = each.user_attrs.get(SAME_AS, each.number)
                open_trial(self.study, number).set_user_attr(SAME_AS, first)
                self.study.tell(number, each.value)
                return True
        return False

    def _job(self, number: int) -> Job:
        values = choose(self.study, number, self.config.seed, self.space)
        pruning = Pruning(self.out / FILE, number, self.pruner)
        folder = trial_folder(self.out, number)
        settings = {**self.settings, **values}
        return Job(self.name, settings, folder, callbacks=(pruning,), values=self.values)

    def _tell(self, outcome: Outcome) -> None:
        """Record the end of a trial in the study. One that an error kept from its end which may
        pass is not finished, and goes on another time."""
        from optuna.trial import TrialState

        number, error = number_of(outcome.job), outcome.error
        trial = self.study.get_trials(deepcopy=False)[number]
        if error is None and PRUNED_AT in trial.user_attrs:
            self._tell_pruned(number)
            return
        value = None
        if error is None:
            value = comparable_return(Run.open(outcome.job.folder).metrics()[-1])
            error = NO_VALUE if value is None else None
        if error is not None:
            open_trial(self.study, number).set_user_attr(ERROR, error)
            if not outcome.passing:
                # The sampler learns from pruned trials, as bad ones, and nothing from failed ones.
                diverged = error.startswith(DIVERGED)
                self.study.tell(number, state=TrialState.PRUNED if diverged else TrialState.FAIL)
            return
        self.study.tell(number, value)

    def _tell_pruned(self, number: int) -> None:
        from optuna.trial import TrialState

        self.study.tell(number, state=TrialState.PRUNED)


def done(job: Job) -> None:
    """There is nothing to do after the training of a trial, whose evaluations are in it."""


def number_of(job: Job) -> int:
    """Return the number of a job's trial."""
    return int(job.folder.name.rpartition("-")[2])


def row_of(trial: FrozenTrial) -> TrialRow:
    """Return a trial of Optuna's as a row."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    state = names.get(trial.state.name, "running")
    if state == "pruned" and PRUNED_AT not in trial.user_attrs:
        state = "failed"  # it diverged
    note = trial.user_attrs.get(ERROR, "") if state in ("failed", "running") else ""
    if state == "pruned":
        note = f"pruned at iteration {trial.user_attrs[PRUNED_AT]}"
    if SAME_AS in trial.user_attrs:
        note = f"as trial {trial.user_attrs[SAME_AS]}"
    last = max(trial.intermediate_values.items(), default=(0, None))[1]
    value = trial.value if state == "complete" else last
    return TrialRow(trial.number, state, value, trial.params, note)


def trial_folder(out: Path, number: int) -> Path:
    """Return the folder of the run of a trial."""
    return out / f"trial-{number:04d}"


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the complete trial with the highest value, the first of equal ones."""
    complete = [row for row in rows if row.state == "complete"]
    return max(complete, key=lambda row: (row.value or 0.0, -row.number), default=None)


def write_trials(file: Path, rows: Sequence[TrialRow], space: SearchSpace) -> Path:
    """Write the trials as CSV, and return the file."""
    lines: list[list[Any]] = [["trial", "state", "value", *space, "note"]]
    for row in rows:
        values = [row.values.get(key, "") for key in space]
        lines.append([row.number, row.state, row.value, *values, row.note])
    write_atomically(file, csv_content(lines))
    return file
