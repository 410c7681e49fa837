"""The study of a search: Optuna's record of its trials, in a file that Optuna's own tools read.

Nothing else imports Optuna, which is an extra.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.config import Config
from metarl.core.errors import StorageError, UserError, check_known
from metarl.core.parsing import format_value
from metarl.core.schema_keys import plain
from metarl.runs.identity import fixed_values
from metarl.runs.run import Run
from metarl.training.callbacks import Callback
from metarl.training.tuning.space import Range, SearchSpace
from metarl.training.validation import comparable_return

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

FILE = "study.db"
NAME = "metarl"
PRUNERS = ("median", "hyperband", "none")
PRUNED_AT = "pruned_at"
"""Attribute of a trial: the iteration at which it was found to be bad."""
SETTINGS = "search"
"""Attribute of a study: the settings of its search, which stay as they are."""
LOCK_TIMEOUT = 100.0
"""Seconds for which a process waits for another one to write to the file."""


def check_optuna() -> None:
    """Check that Optuna is installed.

    Raises:
        UserError: if it is not; names the extra.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError('tune: needs the extra `tune`: pip install "metarl-torch[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def open_study(out: Path, config: Config, space: SearchSpace, pruner: str) -> Iterator[Study]:
    """Open the study in a folder, or make it, and close its file at the end of the block.

    Args:
        out: the folder, which exists.
        config: the config of all trials, without what varies.
        space: what varies.
        pruner: one of `PRUNERS`.

    Raises:
        UserError: if the study is of another search; names the first key and both values.
    """
    wanted = search_settings(config, space, pruner)
    with open_file(out / FILE, make_pruner(pruner, config)) as study:
        begun = study.user_attrs.get(SETTINGS, wanted)
        for key in sorted(begun.keys() | wanted.keys()):
            own, other = (format_value(each.get(key)) for each in (begun, wanted))
            if own != other:
                raise UserError(
                    f"{out}: its search was begun with {key} = {own}, not {other}; choose another "
                    "folder with --out"
                )
        study.set_user_attr(SETTINGS, wanted)
        yield study


def search_settings(config: Config, space: SearchSpace, pruner: str) -> dict[str, Any]:
    """Return the settings that all trials of a search have in common, by name, as JSON values."""
    values = {**fixed_values(config), "iterations": config.iterations, "pruner": pruner}
    varied = {f"space {key}": plain(asdict(each)) for key, each in space.items()}
    return json.loads(json.dumps({**values, **varied}, default=str))


@contextmanager
def open_file(file: Path, pruner: BasePruner) -> Iterator[Study]:
    """Yield the study in an SQLite file, which is made if it is not there, and close the file at
    the end of the block.

    Raises:
        StorageError: if the file cannot be written, also in the block.
        UserError: if it is damaged, likewise.
    """
    import optuna
    from sqlalchemy import URL

    path = str(file.resolve())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{file}: SQLite needs a path in UTF-8; choose another folder") from None
    url = URL.create("sqlite", database=path)
    arguments = {"connect_args": {"timeout": LOCK_TIMEOUT}}
    with wrap_database_errors(file):
        storage = optuna.storages.RDBStorage(str(url), engine_kwargs=arguments)
        try:
            yield optuna.create_study(
                storage=storage,
                study_name=NAME,
                direction="maximize",
                load_if_exists=True,
                pruner=pruner,
            )
        finally:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def wrap_database_errors(file: Path) -> Iterator[None]:
    """Convert the errors of the database in a file to those of metarl, which name the file.

    Raises:
        StorageError: if the file cannot be written.
        UserError: if it is damaged.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause: BaseException = error
        while not isinstance(cause, sqlite3.Error) and (under := cause.__cause__) is not None:
            cause = under
        reason = str(cause).partition("\n")[0]
        if type(cause) is sqlite3.DatabaseError:
            raise UserError(
                f"{file}: cannot be read ({reason}); bring back a copy of it, or choose another "
                "folder with --out"
            ) from error
        raise StorageError(f"{file}: cannot be written ({reason})") from error


def make_pruner(name: str, config: Config) -> BasePruner:
    """Return the pruner of a name, which decides whether a trial is stopped before its end.

    Raises:
        UserError: if the name is unknown.
    """
    import optuna

    check_known(name, PRUNERS, "--pruner: unknown pruner")
    if name == "median":
        # Learning curves cross in the beginning.
        return optuna.pruners.MedianPruner(n_warmup_steps=config.iterations // 5)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=config.evaluation.every, max_resource=config.iterations
        )
    return optuna.pruners.NopPruner()


def open_trial(study: Study, number: int) -> Trial:
    """Return the trial of a number, which is a new one or is not finished yet."""
    known = study.get_trials(deepcopy=False)
    return study.ask() if number == len(known) else trial_of(study, known[number])


def trial_of(study: Study, frozen: FrozenTrial) -> Trial:
    """Return a recorded trial as one that Optuna lets change."""
    import optuna

    return optuna.trial.Trial(study, frozen._trial_id)


def make_sampler(seed: int, number: int) -> BaseSampler:
    """Return the sampler that chooses the values of a trial: with a seed of its own, so that the
    values do not depend on stops between trials.

    Args:
        seed: the seed of the config.
        number: the number of the trial.
    """
    import optuna

    state = np.random.SeedSequence([seed, number]).generate_state(1)
    return optuna.samplers.TPESampler(seed=int(state[0]))


def choose(study: Study, number: int, seed: int, space: SearchSpace) -> dict[str, Any]:
    """Return the values of the config in a trial, by dotted key; those it has, if it has any.

    Args:
        study: the study.
        number: the number of the trial.
        seed: the seed of the config.
        space: what varies.
    """
    study.sampler = make_sampler(seed, number)
    trial = open_trial(study, number)
    if 0 < len(trial.params) < len(space):
        # The process ended between two of them, and its random numbers with it: a copy of the study
        # before this trial chooses all of them once more.
        import optuna

        copy = optuna.create_study(
            study_name=NAME,
            sampler=make_sampler(seed, number),
            pruner=study.pruner,
            direction="maximize",
        )
        copy.add_trials(study.get_trials(deepcopy=False)[:number])
        again = copy.ask()
        suggest(again, space)
        for key in [each for each in space if each not in trial.params]:
            kind = again.distributions[key]
            chosen = kind.to_internal_repr(again.params[key])
            trial.storage.set_trial_param(trial._trial_id, key, chosen, kind)
        trial = open_trial(study, number)
    return suggest(trial, space)


def suggest(trial: Trial, space: SearchSpace) -> dict[str, Any]:
    """Let a trial choose its values, and return them as `choose`."""
    values = {}
    for key, each in space.items():
        if isinstance(each, Range) and each.whole:
            chosen = trial.suggest_int(key, int(each.low), int(each.high))
        elif isinstance(each, Range):
            chosen = trial.suggest_float(key, each.low, each.high, log=each.log)
        else:
            chosen = trial.suggest_categorical(key, each.names)
        values[key] = each.value_of(chosen)
    return values


@dataclass(frozen=True)
class Pruning(Callback):
    """Reports the evaluations of a trial to the study, and stops a trial that is a bad one.

    Attributes:
        file: the file of the study.
        number: the number of the trial.
        pruner: one of `PRUNERS`.
    """

    file: Path
    number: int
    pruner: str

    def on_start(self, run: Run, iteration: int) -> bool:
        """Make up for what a process that was killed did not report."""
        return self._report(run.metrics(), run.config)

    def on_evaluation(self, run: Run, metrics: Mapping[str, Any]) -> bool:
        return self._report([metrics], run.config)

    def _report(self, lines: Sequence[Mapping[str, Any]], config: Config) -> bool:
        """Report the evaluations in lines of metrics, and return whether the trial, whose last
        evaluation is in the last line, is to be stopped."""
        check_optuna()  # as quiet as in the process of the search
        with open_file(self.file, make_pruner(self.pruner, config)) as study:
            own = study.get_trials(deepcopy=False)[self.number]
            trial = trial_of(study, own)
            reports = dict(own.intermediate_values)
            for line in lines:
                value, iteration = comparable_return(line), line["iteration"]
                if value is not None and iteration not in reports:
                    trial.report(value, iteration)
                    reports[iteration] = value
            last = lines[-1]["iteration"] if lines else 0
            if last != max(reports, default=0) or last in (0, config.iterations):
                return False
            if not trial.should_prune():
                return False
            trial.set_user_attr(PRUNED_AT, last)
            return True
