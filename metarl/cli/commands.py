"""The commands on runs: they call the library, print, and return the exit code.

Slow imports are in the bodies of functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metarl.cli.completion import complete_names, complete_run
from metarl.cli.flags import KeyCommand, RunTarget
from metarl.cli.group import FILE, cli, print_files, print_table, refuse_flags
from metarl.cli.parser import Command, Numbers, are_numbers, print_error
from metarl.cli.task_options import given_tasks, task_file_option, task_option
from metarl.cli.tracking import check_tracking, run_to_track
from metarl.core.errors import UserError, check, shown
from metarl.core.parsing import read_numbers

MAX_ROWS = 64  # tasks of a video

run_argument = click.argument(
    "run",
    expose_value=False,
    help="A run's folder, or a name of metarl list pretrained.",
    shell_complete=complete_run,
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
protocol_option = click.option(
    "--protocol",
    default="k_step",
    metavar="NAME",
    help="k_step, few_episode, ood, robust, continual or drift: see docs/evaluation.md.",
    shell_complete=complete_names("metarl.evaluation.protocols:PROTOCOLS"),
)
trials_option = click.option(
    "--trials", default=5, help="Repetitions of a task's experience in few_episode."
)
experience_option = click.option(
    "--experience",
    cls=Numbers,
    metavar="NUMBERS",
    default="1 2 3 5 10 20",
    callback=lambda ctx, option, text: [
        int(each) if each.is_integer() else each for each in read_numbers(text)
    ],
    help="Numbers of episodes that few_episode measures after, beside 0.",
)


def read_perturbations(words: tuple[str, ...]) -> dict[str, list[float]] | None:
    """Return the strengths of perturbations, given as NAME=NUMBERS; None for no words."""
    found: dict[str, list[float]] = {}
    for word in words:
        name, _, text = word.partition("=")
        if not are_numbers(text):
            expected = "--perturbations: expected a name and numbers, such as action_delay=1,2"
            raise UserError(f"{expected}, got {shown(word)}")
        found.setdefault(name, []).extend(
            int(each) if each.is_integer() else each for each in read_numbers(text)
        )
    return found or None


perturbations_option = click.option(
    "--perturbations",
    multiple=True,
    metavar="NAME=NUMBERS",
    callback=lambda ctx, option, words: read_perturbations(words),
    help="Strengths in robust: observation_noise=0.1,0.3, action_delay=2 or motor_strength=0.5. "
    "Can be repeated.  [default: several of each]",
)
deterministic_option = click.option(
    "--deterministic",
    is_flag=True,
    help="Measure the policy's mean or mode; adaptation explores as usual.",
)


@cli.command(cls=KeyCommand, target=RunTarget, short_help="Measure adaptation.")
@run_argument
@checkpoint_option
@seed_option
@protocol_option
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
@trials_option
@experience_option
@perturbations_option
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
    perturbations: dict[str, list[float]] | None,
    **settings: Any,
) -> int:
    """Measure the return before and after adaptation, on test tasks or tasks of your own.

    `--SECTION.KEY VALUE` replaces a value of the run's config, such as `--env.horizon 50`.
    """
    from metarl.config import PlayedConfig
    from metarl.evaluation.compare import ResultNotWritten, evaluate_run
    from metarl.evaluation.overrides import check_overrides
    from metarl.reporting.evaluation import publish_evaluation
    from metarl.reporting.progress import WorkProgress
    from metarl.rollout.failures import EpisodeDiverged
    from metarl.runs.run import Run

    check_tracking(target.directory, overrides)
    # The name of a folder may have commas.
    lists = [[each] if Path(each).is_dir() else each.split(",") for each in against]
    baselines = [name for names in lists for name in names]
    check("" not in baselines, "--against", "names or folders, with commas between", list(against))
    check_flags_of(protocol)
    config = Run.open(target.directory, config_class=PlayedConfig, **overrides).config
    check_overrides(overrides, config.agent, "an evaluation")
    own = given_tasks(config.env, task, task_file, {"--tasks": tasks, "--split": split})
    chosen = {"split": split, "tasks": tasks if own is None else own}
    chosen |= {"perturbations": perturbations}
    settings |= {name: value for name, value in chosen.items() if value is not None}
    settings |= {"protocol": protocol, "against": baselines}
    try:
        with WorkProgress() as progress:
            results, file = evaluate_run(
                target.directory, on_agent=progress.playing, **settings, **overrides
            )
    except EpisodeDiverged as error:
        return print_error(f"evaluation stopped: {error}", 1)
    except ResultNotWritten as error:
        print_results(error.results)
        raise
    # Before anything else is written, which a full disk or a lost server can prevent
    try:
        print_results(results)
        click.echo(file)
    finally:  # also if nobody reads what is printed, as after `| head -1`
        run = run_to_track(target.directory, overrides)
        figure = publish_evaluation(run, file, results)
    click.echo(figure)
    return 0


def print_results(results: dict[str, Any]) -> None:
    """Print evaluations by method as a table, and by task where they are few, with title and
    notes."""
    from metarl.reporting import evaluation as presented

    click.echo(presented.evaluation_title(results))
    print_table(presented.evaluation_table(results))
    if (by_task := presented.task_table(results)) is not None:
        print_table(by_task)
    for line in presented.evaluation_notes(results):
        click.echo(line)


def check_flags_of(protocol: str) -> None:
    """Check that all flags of the command have an influence on a protocol.

    Raises:
        UserError: if one has none, or there is no such protocol.
    """
    from metarl.evaluation.protocols import UNUSED_SETTINGS, check_protocol

    check_protocol(protocol)
    refuse_flags(sorted(UNUSED_SETTINGS[protocol]), f"on the protocol {protocol}")


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
    "--preset", metavar="NAME", help="readme (a .gif, 720 pixels wide) or talk (1080p .mp4)."
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

    `--SECTION.KEY VALUE` replaces a value of the run's config, such as `--env.horizon 50`.
    """
    from metarl.envs import RendererFailed, RenderingUnavailable
    from metarl.evaluation.evaluate import open_to_evaluate
    from metarl.evaluation.overrides import check_overrides
    from metarl.reporting.progress import WorkProgress
    from metarl.reporting.video.adaptation import adaptation_video
    from metarl.rollout.failures import EpisodeDiverged
    from metarl.training.tracking import start_tracker

    check_tracking(target.directory, overrides)
    if settings["preset"] is not None:
        refuse_flags(["width", "height"], "with --preset, which has a size of its own")
    run = open_to_evaluate(target.directory, **overrides)
    check_overrides(overrides, run.config.agent, "a video")
    family = run.config.env
    rows = given_tasks(family, task, task_file, {"--tasks": tasks})
    num_tasks = len(rows) if rows is not None else 1 if tasks is None else tasks
    check(num_tasks <= MAX_ROWS, "--tasks", f"at most {MAX_ROWS}", num_tasks)
    try:
        rows = family.tasks("test", num_tasks) if rows is None else rows
    except ValueError as error:
        raise UserError(f"--tasks: {str(error).removeprefix('num_tasks: ')}") from error
    agent = run.make_agent(run.load(checkpoint))
    try:
        with WorkProgress() as progress:
            settings |= {"on_step": progress.playing(run.config.method)}
            settings |= {"episodes": episodes, "on_frame": progress.drawing}
            settings |= {"cores": overrides.get("threads") or None}  # all, if it is 0 or not given
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
    print_files(write_report(runs, out))
    return 0
