"""Trainings: new runs, and runs that go on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl.config import Config
from metarl.core.errors import check
from metarl.runs.run import Run
from metarl.training.callbacks import Callback, check_callbacks
from metarl.training.trainer import Trainer


def train(
    config: Config,
    out: str | Path | None = None,
    *,
    init_from: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Meta-train a new run.

    Args:
        config: the config of the run.
        out: the run's folder, which must not exist; by default runs/FAMILY-METHOD-seedN.
        init_from: another run, from whose parameters this one begins, or RUN:CHECKPOINT; see
            `metarl.training.warm_start.warm_start`. The run keeps them as its checkpoint 0.
        callbacks: are told the events of the training, and may stop it; see
            `metarl.training.callbacks.Callback`.

    Returns:
        The run: finished, unless a callback stopped it.

    Raises:
        UserError: if the folder exists, the device is not available, the observations do not fit
            into memory, WANDB_MODE is no mode, the parameters of `init_from` do not fit, or
            `callbacks` is no list of callbacks.
        WorkerError: if an environment of the user's does not repeat its episodes.
        Interrupted, EpisodeDiverged, NotFinite, WorkerError, StorageError: as `Trainer.run`.
    """
    check(isinstance(config, Config), "config", "what metarl.load_config returns", config)
    check_callbacks(callbacks)
    return Trainer.create(config, out, init_from).run(callbacks)


def resume(directory: str | Path, *, callbacks: Sequence[Callback] = (), **overrides: Any) -> Run:
    """Continue an interrupted run; the finished run is identical to an uninterrupted one.

    Args:
        directory: the run's folder.
        callbacks: as in `train`.
        overrides: new values of `iterations`, `threads`, `device` and the keys of `sampler` and
            `tracking`, which the run's config then has. With more iterations, a finished run goes
            on. On another device, a warning says that results are no longer bit for bit those of
            the first.

    Raises:
        ConfigError: if another key would change, or fewer iterations are asked for than are done.
        UserError: if the run does not exist or is finished, if another process is training it, if
            all its checkpoints are damaged, or if `callbacks` is no list of callbacks.
        Interrupted, EpisodeDiverged, NotFinite, WorkerError, StorageError: as `Trainer.run`.
    """
    check_callbacks(callbacks)
    return Trainer.resume(directory, **overrides).run(callbacks)


def start_or_resume(
    config: Config,
    out: str | Path,
    *,
    init_from: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Start the run of a config in the folder `out`, or continue it, and return the finished run.

    An existing run may have been started with another number of iterations: parameters and metrics
    are those of a run that was started with this config. (It has a further checkpoint where it
    ended before, and, if `evaluation.every` is set, a further evaluation. `best` may be another one
    than without a break: the last iteration before was a candidate too, by that evaluation or by
    the mean return of up to `checkpoint_every` iterations.) It may also have had
    other `threads`, another `device`, another `sampler` or other `tracking`, and goes on with those
    of `config`; see `resume`. A run with enough iterations is not changed.

    Args:
        config, out, init_from, callbacks: as in `train`.

    Raises:
        UserError: if the folder has a run of another config or from other parameters, or another
            process is training it.
        Interrupted, EpisodeDiverged, NotFinite, WorkerError, StorageError: as `Trainer.run`.
    """
    check_callbacks(callbacks)
    return Trainer.create_or_resume(config, out, init_from).run(callbacks)
