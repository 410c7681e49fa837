"""The commands: call the library, print, return the exit code. Slow imports are in their bodies."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from metarl.cli.completion import complete_names, complete_run
from metarl.cli.flags import ConfigTarget, KeyCommand, RunTarget, short_flags
from metarl.cli.group import FILE, cli, config_argument, print_table
from metarl.cli.parser import Command, print_error
from metarl.cli.task_options import given_tasks, task_file_option, task_option
from metarl.core.errors import StorageError, UserError, check

MAX_ROWS = 64  # tasks of a video

run_argument = click.argument(
    "run", expose_value=False, help="A run's folder.", shell_complete=complete_run
)
checkpoint_option = click.option(
    "--checkpoint",
    default="latest",
    metavar="NAME",
    help="latest, best, a number, or average: the mean of the last quarter of those kept.",
)
seed_option = click.option("--seed", default=0, help="Seed of the episodes.")
episodes_option = click.option("--episodes", default=20, help="Episodes per task and step.")
steps_option = click.option("--steps", default=3, help="Adaptations.")
deterministic_option = click.option(
    "--deterministic",
    is_flag=True,
    help="Measure the policy's mean or mode; adaptation explores as usual.",
)


@cli.command(cls=KeyCommand, target=ConfigTarget, short_help="Meta-train.")
@config_argument(required=False)
@click.option("--out", type=FILE, metavar="DIR", help="The run's folder.")
@click.option(
    "--resume",
    type=FILE,
    metavar="RUN",
    help="Continue this run, in place of a CONFIG. It takes --iterations, --device, --threads, "
    "--tracking.* and --dry-run.",
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
    from metarl.rollout.failures import EpisodeDiverged
    from metarl.runs.identity import default_directory
    from metarl.runs.run import is_free
    from metarl.training.loop import Interrupted, Trainer
    from metarl.training.tracking_environment import check_environment

    check_environment()
    if (target.name is None) == (resume is None):
        raise UserError("train: expected either a CONFIG or --resume RUN; see metarl train --help")
    if resume and out:
        raise UserError(
            f"--out: {resume} goes on in its own folder; for another run: metarl train "
            f"{shlex.quote(str(resume / 'config.yaml'))} --out {shlex.quote(str(out))}"
        )
    if resume and init_from:
        raise UserError(f"--init-from: {resume} goes on from its own checkpoint; give CONFIG")
    if resume and or_resume:
        raise UserError(
            f"--continue: goes with CONFIG and --out; --resume {resume} continues by itself"
        )
    directory = resume
    try:
        if resume:
            with short_flags():
                trainer = Trainer.resume(resume, **overrides)
        else:
            config = target.make(overrides)
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
    except StorageError as error:
        remedy = f"once it can be, go on with: metarl train --resume {directory}"
        return print_error(f"training stopped: {error}; {remedy}", 1)
    click.echo(f"finished: {directory}\nevaluate it with: metarl evaluate {directory}")
    return 0


def dry_run(config: Any, directory: Path, init_from: str | None) -> int:
    """Check all settings that can be checked without training, and print the config."""
    from metarl.runs.run import check_free
    from metarl.training.memory import check_memory
    from metarl.training.warm_start import warm_start

    check_memory(config)
    config.env.check_repeatable()
    origin = warm_start(config, init_from)[1] if init_from else None
    if origin is None:
        config.make_agent()
    click.echo(config.to_yaml(), nl=False)
    steps = config.sampling.max_steps(config.env.horizon)
    click.echo(f"# {config.iterations} iterations of up to {steps:,} env steps, into {directory}")
    if origin is not None:
        click.echo(f"# begun from: {origin}: {origin.remark}")
    check_free(directory)
    return 0


def dry_continuation(trainer: Any) -> int:
    """Check all settings with which a run would go on, and print its config."""
    with short_flags():
        remaining = trainer.remaining()
    trainer.config.env.check_repeatable()
    click.echo(trainer.config.to_yaml(), nl=False)
    steps = trainer.config.sampling.max_steps(trainer.config.env.horizon)
    click.echo(
        f"# {remaining} of {trainer.config.iterations} iterations remain of up to "
        f"{steps:,} env steps, in {trainer.directory}"
    )
    return 0


@cli.command(cls=KeyCommand, target=RunTarget, short_help="Measure adaptation.")
@run_argument
@checkpoint_option
@seed_option
@click.option(
    "--protocol",
    default="k_step",
    metavar="NAME",
    help="k_step, few_episode, ood, robust or continual: see docs/evaluation.md.",
    shell_complete=complete_names("metarl.evaluation.protocols:PROTOCOLS"),
)
@click.option(
    "--split",
    metavar="NAME",
    help="train, validation, test or ood.  [default: test]",
    shell_complete=complete_names("metarl.envs:SPLITS"),
)
@click.option("--tasks", type=int, help="Tasks of the split.  [default: 40]")
@task_option
@task_file_option
@episodes_option
@steps_option
@deterministic_option
@click.option(
    "--out",
    type=FILE,
    metavar="FILE",
    help="A new .json file, or a folder, for the result.  [default: the folder `evaluation` of "
    "the run]",
)
@click.option(
    "--against",
    multiple=True,
    metavar="LIST",
    help="A baseline, or several with commas: random, the folder of another run, or the method "
    "(oracle) of a run beside it. Can be repeated.",
)
def evaluate(
    target: RunTarget,
    overrides: dict[str, Any],
    against: tuple[str, ...],
    protocol: str,
    split: str | None,
    tasks: int | None,
    task: tuple[str, ...],
    task_file: Path | None,
    **settings: Any,
) -> int:
    """Measure the return before and after adaptation, on test tasks or tasks of your own.

    `--SECTION.KEY VALUE` replaces any value of the run's config, such as `--env.horizon 50`.
    """
    from metarl.evaluation.compare import evaluate_run
    from metarl.evaluation.protocols import check_protocol
    from metarl.reporting import evaluation as presented
    from metarl.reporting.progress import WorkProgress
    from metarl.rollout.failures import EpisodeDiverged
    from metarl.runs.run import Run
    from metarl.training.tracking_environment import check_environment

    check_environment()
    # The name of a folder may have commas.
    lists = [[each] if Path(each).is_dir() else each.split(",") for each in against if each]
    baselines = [name for names in lists for name in names if name]
    check_protocol(protocol)
    family = Run.open(target.directory, **overrides).config.env
    own = given_tasks(family, task, task_file, {"--tasks": tasks, "--split": split})
    chosen = {"split": split, "tasks": tasks if own is None else own}
    settings |= {name: value for name, value in chosen.items() if value is not None}
    settings |= {"protocol": protocol, "against": baselines}
    try:
        with WorkProgress() as progress:
            results, file = evaluate_run(
                target.directory, on_agent=progress.playing, **settings, **overrides
            )
    except EpisodeDiverged as error:
        return print_error(f"evaluation stopped: {error}", 1)
    run = run_to_track(target.directory, overrides)
    figure = presented.publish_evaluation(run, file, results)
    click.echo(presented.evaluation_title(results))
    print_table(presented.evaluation_table(results))
    for line in (*presented.evaluation_notes(results), file, figure):
        click.echo(line)
    return 0


def run_to_track(directory: Path, overrides: dict[str, Any]) -> Any:
    """Open a run whose evaluation or video is tracked: with its own config, by which it is grouped,
    except for new values of `tracking`."""
    from metarl.runs.run import Run

    return Run.open(directory, **{k: v for k, v in overrides.items() if k.startswith("tracking.")})


@cli.command(cls=KeyCommand, target=RunTarget, short_help="Make a video of adaptation.")
@run_argument
@checkpoint_option
@seed_option
@task_option
@task_file_option
@click.option("--tasks", type=int, help="The first test tasks, as a grid.  [default: 1]")
@episodes_option
@steps_option
@deterministic_option
@click.option("--out", type=FILE, required=True, metavar="FILE", help=".mp4 or .gif.")
@click.option("--width", default=480, help="Width of a panel, pixels.")
@click.option("--height", default=360, help="Height of a panel, pixels.")
@click.option("--fps", type=float, help="Frames per second.  [default: the control rate]")
@click.option(
    "--preset", metavar="NAME", help="readme (a small .gif) or talk (1080p .mp4, 60 fps)."
)
def render(
    target: RunTarget,
    overrides: dict[str, Any],
    checkpoint: str,
    task: tuple[str, ...],
    task_file: Path | None,
    tasks: int | None,
    episodes: int,
    out: Path,
    **settings: Any,
) -> int:
    """Make a video of the agent before and after each adaptation, side by side.

    `--SECTION.KEY VALUE` replaces any value of the run's config, such as `--env.horizon 50`.
    """
    from metarl.envs import RendererFailed, RenderingUnavailable
    from metarl.evaluation.evaluate import open_to_evaluate
    from metarl.reporting.progress import WorkProgress
    from metarl.reporting.video.adaptation import adaptation_video
    from metarl.rollout.failures import EpisodeDiverged
    from metarl.training.tracking import start_tracker
    from metarl.training.tracking_environment import check_environment

    check_environment()
    run = open_to_evaluate(target.directory, **overrides)
    family = run.config.env
    rows = given_tasks(family, task, task_file, {"--tasks": tasks})
    num_tasks = len(rows) if rows is not None else 1 if tasks is None else tasks
    check(num_tasks <= MAX_ROWS, "--tasks", f"at most {MAX_ROWS}", num_tasks)
    try:
        rows = family.tasks("test", num_tasks) if rows is None else rows
    except ValueError as error:
        raise UserError(f"--tasks: {error}") from error
    agent = run.config.make_agent(run.load(checkpoint).agent)
    try:
        with WorkProgress() as progress:
            settings |= {"on_step": progress.playing(run.config.method)}
            settings |= {"num_episodes": episodes, "on_frame": progress.drawing}
            info = adaptation_video(agent, family, rows, out=out, **settings)
    except (RenderingUnavailable, RendererFailed, EpisodeDiverged) as error:
        return print_error(error, 1)
    click.echo(f"{info}\n{info.speed}")
    tracker = start_tracker(run_to_track(target.directory, overrides), job="render")
    tracker.video(f"adaptation/{out.stem}", out)
    tracker.finish()
    return 0


@cli.command(cls=Command, short_help="Write a page about runs.")
@click.argument(
    "runs", nargs=-1, required=True, type=FILE, help="Runs' folders.", shell_complete=complete_run
)
@click.option(
    "--out", type=FILE, metavar="DIR", help="[default: the folder `report` in the first run]"
)
def report(runs: tuple[Path, ...], out: Path | None) -> int:
    """Write one self-contained page about runs, the figures, and a model card of the first."""
    from metarl.reporting.report import write_report
    from metarl.training.tracking_environment import check_environment

    check_environment()
    for path in write_report(runs, out):
        click.echo(path)
    return 0
