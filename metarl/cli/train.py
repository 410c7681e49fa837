"""The command `metarl train`. Slow imports are in the bodies of functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metarl.cli.completion import complete_run
from metarl.cli.flags import ConfigTarget, KeyCommand, short_flags
from metarl.cli.group import FILE, cli, config_argument
from metarl.cli.parser import print_error
from metarl.core.errors import StorageError, UserError
from metarl.core.parsing import shell_path


@cli.command(cls=KeyCommand, target=ConfigTarget, short_help="Meta-train.")
@config_argument(required=False)
@click.option("--out", type=FILE, metavar="DIR", help="The run's folder.")
@click.option(
    "--resume",
    type=FILE,
    metavar="RUN",
    help="Continue this run, in place of a CONFIG. It takes --iterations, --device, --threads, "
    "--sampler.*, --tracking.* and --dry-run.",
    shell_complete=complete_run,
)
@click.option(
    "--continue",
    "or_resume",
    is_flag=True,
    help="Continue the run in --out if it exists, up to --iterations; do nothing if it has more.",
)
@click.option(
    "--init-from",
    metavar="RUN[:CHECKPOINT]",
    help="Begin from the parameters of this run: its latest checkpoint, or that after the colon.",
    shell_complete=complete_run,
)
@click.option("--dry-run", "dry", is_flag=True, help="Check and print the config only.")
def train(
    target: ConfigTarget,
    overrides: dict[str, Any],
    out: Path | None,
    resume: Path | None,
    or_resume: bool,
    init_from: str | None,
    dry: bool,
) -> int:
    """Meta-train a config into a run's folder, or continue an interrupted run.

    `metarl train CONFIG --help` shows the values of that config, each of which is a flag.
    """
    from metarl.config_files import check_cluster_keys
    from metarl.rollout.cluster.session import ClusterError
    from metarl.rollout.failures import EpisodeDiverged
    from metarl.runs.identity import default_directory
    from metarl.runs.run import is_free
    from metarl.training.iterations import Interrupted
    from metarl.training.tracking_environment import check_environment
    from metarl.training.trainer import Trainer

    check_environment()
    check_start(target.name, out, resume, or_resume, init_from)
    directory = resume or Path()
    try:
        if resume:
            with short_flags():
                trainer = Trainer.resume(resume, **overrides)
            trainer.config.sampler.check_used(overrides)
        else:
            config = target.make(overrides)
            check_cluster_keys(config, target.data, target.name or "", overrides)
            # A label given by hand names the folder too.
            source = None if "method" in overrides else target.name
            directory = out or default_directory(config, source)
            if dry and not (or_resume and not is_free(directory)):
                return dry_run(config, directory, init_from)
            start = Trainer.create_or_resume if or_resume else Trainer.create
            trainer = start(config, directory, init_from)
        if dry:
            return dry_continuation(trainer)
        with short_flags():
            trainer.run()
    except Interrupted as interruption:
        click.echo(interruption)
        return 128 + interruption.signal
    except (EpisodeDiverged, FloatingPointError) as error:
        return print_error(f"training stopped: {error}", 1)
    except ClusterError as error:
        remedy = f"once it is there again, {go_on_with(directory)}"
        return print_error(f"training stopped: {error}; {remedy}", 1)
    except StorageError as error:
        remedy = f"once it can be, {go_on_with(directory)}"
        return print_error(f"training stopped: {error}; {remedy}", 1)
    click.echo(f"finished: {directory}\nevaluate it with: metarl evaluate {shell_path(directory)}")
    return 0


def check_start(
    name: str | None, out: Path | None, resume: Path | None, or_resume: bool, init_from: str | None
) -> None:
    """Check that the arguments say in one way where a run begins, as those of `train`.

    Raises:
        UserError: if there is neither a config nor a run to continue, or arguments exclude each
            other.
    """
    if (name is None) == (resume is None):
        raise UserError("train: expected either a CONFIG or --resume RUN; see metarl train --help")
    if resume and out:
        raise UserError(
            f"--out: {resume} goes on in its own folder; for another run: metarl train "
            f"{shell_path(resume / 'config.yaml')} --out {shell_path(out)}"
        )
    if resume and init_from is not None:
        raise UserError(f"--init-from: {resume} goes on from its own checkpoint; give CONFIG")
    if resume and or_resume:
        raise UserError(
            f"--continue: goes with CONFIG and --out; --resume {resume} continues by itself"
        )


def go_on_with(directory: Path) -> str:
    """Return how to continue the run of a folder, as text."""
    return f"go on with: metarl train --resume {shell_path(directory)}"


def dry_run(config: Any, directory: Path, init_from: str | None) -> int:
    """Check all settings that can be checked without training, and print the config."""
    from metarl.runs.run import check_free
    from metarl.training.checks import check_startable
    from metarl.training.episode_source import check_sampler
    from metarl.training.trainer import warn_of
    from metarl.training.warm_start import warm_start

    check_startable(config, directory)
    check_sampler(config)
    warn_of(config)
    origin = None if init_from is None else warm_start(config, init_from)[1]
    if origin is None:
        config.make_agent()
    click.echo(config.to_yaml(), nl=False)
    steps = config.sampling.max_steps(config.env.horizon)
    count = "1 iteration" if config.iterations == 1 else f"{config.iterations} iterations"
    click.echo(f"# {count} of up to {steps:,} env steps, into {directory}")
    if origin is not None:
        click.echo(f"# begun from: {origin}: {origin.remark}")
    check_free(directory)
    check_folder(directory)
    return 0


def dry_continuation(trainer: Any) -> int:
    """Check all settings with which a run would go on, and print its config."""
    from metarl.training.episode_source import check_sampler
    from metarl.training.trainer import warn_of

    with short_flags():
        remaining = trainer.remaining()
    warn_of(trainer.config)
    trainer.config.env.check_repeatable()
    check_sampler(trainer.config)
    check_folder(trainer.directory)
    click.echo(trainer.config.to_yaml(), nl=False)
    steps = trainer.config.sampling.max_steps(trainer.config.env.horizon)
    click.echo(
        f"# {remaining} of {trainer.config.iterations} iterations remain of up to "
        f"{steps:,} env steps, in {trainer.directory}"
    )
    return 0


def check_folder(directory: Path) -> None:
    """Check that files can be written in a run's folder, or where it is to be made.

    Raises:
        UserError: if they cannot.
    """
    from metarl.runs.atomic_io import check_writable

    place = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    try:
        check_writable(place)
    except StorageError as error:
        raise UserError(str(error)) from error
