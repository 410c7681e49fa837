"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from metarl.checks import StorageError, UserError
from metarl.parser import Parser, add_flags_of, add_run_flags
from metarl.reading import printable

EPILOG = "Every command has a --help. Documentation: README.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 2 for wrong input, 1 for failed work."""
    try:
        check_rendering_library()
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # where a user's own task family may be
        words = list(sys.argv[1:] if argv is None else argv)
        args, unknown = make_parser(words).parse_known_args(words)
        if unknown:
            args.parser.refuse(unknown[0])
        return args.run(args)
    except UserError as error:
        return complain(error, 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        return complain(error, 1)
    except MemoryError:
        return complain("out of memory; choose fewer tasks, episodes or steps at once", 1)
    except RuntimeError as error:
        from envs import WorkerError

        if not isinstance(error, WorkerError):
            raise
        return complain(error, 1)


def complain(error: object, code: int) -> int:
    """Print one line of error and return the exit code."""
    # What is not printable would steer the terminal; an environment's traceback has lines.
    lines = (printable(line) for line in str(error).splitlines() or [type(error).__name__])
    print("metarl: error: " + "\n".join(lines), file=sys.stderr)
    return code


def check_rendering_library() -> None:
    """MuJoCo cannot even be imported where MUJOCO_GL names a library that is missing.

    Raises:
        UserError: saying which variable and which package help.
    """
    try:
        import mujoco  # noqa: F401
    except (ImportError, AttributeError, RuntimeError) as error:
        backend = os.environ.get("MUJOCO_GL", "")
        if not backend:
            raise
        raise UserError(
            f"MUJOCO_GL={backend}: MuJoCo cannot load that OpenGL library ({error}); unset "
            "MUJOCO_GL, or install it (Debian and Ubuntu: libegl1 for egl, libosmesa6 for osmesa)"
        ) from error


def make_parser(words: Sequence[str]) -> Parser:
    """Make the parser. The flags of some commands depend on the config or family in the words."""
    parser = Parser(prog="metarl", description="Meta-reinforcement learning.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=metadata.version("metarl-torch"))
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    command = commands.add_parser("train", help="meta-train", description=train.__doc__)
    command.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file, or a name")
    command.add_argument("--out", type=Path, metavar="DIR", help="the run's folder")
    command.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run's folder")
    command.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="go on with --out if it exists, and do nothing if it is finished",
    )
    command.add_argument("--dry-run", action="store_true", help="check and print the config only")
    add_flags_of(words, command)
    command.set_defaults(run=train, parser=command)

    command = commands.add_parser(
        "evaluate", help="measure adaptation", description=evaluate.__doc__
    )
    add_run_flags(command)
    command.add_argument(
        "--protocol",
        default="paper",
        metavar="NAME",
        help="paper (default), few_episode, ood, robust or continual: see docs/evaluation.md",
    )
    command.add_argument("--split", default="test", help="train, validation, test (default) or ood")
    command.add_argument("--tasks", type=int, default=40, help="tasks of the split (default 40)")
    command.add_argument("--episodes", type=int, default=20, help="per task and step (default 20)")
    command.add_argument("--steps", type=int, default=3, help="adaptation steps (default 3)")
    command.add_argument(
        "--against",
        default="",
        metavar="LIST",
        help="baselines: random, the folders of other runs, or methods (oracle) of runs beside it",
    )
    command.add_argument(
        "--inner-lr-schedule",
        default="halving",
        metavar="NAME",
        help="halving (default): half the step size after the first step; or constant",
    )
    command.set_defaults(run=evaluate, parser=command)

    command = commands.add_parser("render", help="film adaptation", description=render.__doc__)
    add_run_flags(command)
    shown = command.add_mutually_exclusive_group()
    shown.add_argument("--task", type=float, nargs="+", help="the task; default: a test task")
    shown.add_argument(
        "--tasks", type=int, default=1, metavar="N", help="the first N test tasks, as a grid"
    )
    command.add_argument("--episodes", type=int, default=20, help="to adapt from (default 20)")
    command.add_argument("--steps", type=int, default=3, help="adaptation steps (default 3)")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help=".mp4 or .gif")
    command.add_argument("--width", type=int, default=480, help="of a panel, pixels (default 480)")
    command.add_argument("--height", type=int, default=360, help="of a panel, pixels (default 360)")
    command.add_argument("--fps", type=float, help="frames per second (default: the control rate)")
    command.add_argument(
        "--preset", metavar="NAME", help="readme (a small .gif) or talk (1080p .mp4, 60 fps)"
    )
    command.set_defaults(run=render, parser=command)

    command = commands.add_parser("report", help="write a page", description=report.__doc__)
    command.add_argument("directories", type=Path, nargs="+", metavar="RUN", help="a run's folder")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder `report` in the first run"
    )
    command.set_defaults(run=report, parser=command)

    command = commands.add_parser("bench", help="time an iteration", description=bench.__doc__)
    command.add_argument("config", metavar="CONFIG", help="a YAML file, or a name")
    command.add_argument("--repeats", type=int, default=3, help="timed iterations (default 3)")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    add_flags_of(words, command)
    command.set_defaults(run=bench, parser=command)

    command = commands.add_parser(
        "setup", help="install what needs its own place", description=setup.__doc__
    )
    command.add_argument("what", choices=("metaworld",))
    command.set_defaults(run=setup, parser=command)

    command = commands.add_parser(
        "check-env", help="check a task family", description=check_env.__doc__
    )
    command.add_argument(
        "target", metavar="TARGET", help="a family's name, or package.module:Class"
    )
    add_flags_of(words, command)
    command.set_defaults(run=check_env, parser=command)

    command = commands.add_parser("list", help="show what there is", description=show_list.__doc__)
    command.add_argument("what", choices=("families", "configs", "runs"))
    command.add_argument("--runs", type=Path, default=Path("runs"), help="the folder of runs")
    command.set_defaults(run=show_list, parser=command)
    return parser


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what a command on a run replaces in the run's config."""
    return {"device": args.device} if "device" in args else {}


def train(args: argparse.Namespace) -> int:
    """Meta-train a config into a run's folder, or go on with an interrupted run."""
    from metarl.failures import EpisodeDiverged
    from metarl.flags import config_of
    from metarl.training import Interrupted, default_directory, resume, start_or_resume
    from metarl.training import train as start

    if (args.config is None) == (args.resume is None):
        raise UserError("train: expected either a CONFIG or --resume RUN; see metarl train --help")
    directory = args.resume
    try:
        if args.resume:
            run = resume(args.resume)
        else:
            config = config_of(args)
            directory = args.out or default_directory(config)
            if args.dry_run:
                return dry_run(config, directory)
            run = (start_or_resume if args.go_on else start)(config, directory)
    except Interrupted as interruption:
        print(interruption)
        return 128 + interruption.signal
    except (EpisodeDiverged, FloatingPointError) as error:
        return complain(f"training stopped: {error}", 1)
    except StorageError as error:
        remedy = f"once it can be, go on with: metarl train --resume {directory}"
        return complain(f"training stopped: {error}; {remedy}", 1)
    print(f"finished: {run.directory}\nevaluate it with: metarl evaluate {run.directory}")
    return 0


def dry_run(config: Any, directory: Path) -> int:
    """Check everything that can be checked without working, and print the config."""
    from metarl.agents import make_agent
    from metarl.runs import check_vacant

    make_agent(config)
    phases = config.inner_steps + 1
    steps = config.num_tasks * config.num_episodes * config.env.horizon * phases
    print(config.to_yaml(), end="")
    print(f"# {config.iterations} iterations of up to {steps:,} env steps, into {directory}")
    check_vacant(directory)
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Measure the return before and after adaptation on held-out tasks."""
    from metarl.comparison import (
        evaluate_run,
        evaluation_remarks,
        evaluation_table,
        evaluation_title,
    )
    from metarl.failures import EpisodeDiverged

    against = [name for name in args.against.split(",") if name]
    try:
        results, files = evaluate_run(
            args.directory,
            protocol=args.protocol,
            checkpoint=args.checkpoint,
            split=args.split,
            tasks=args.tasks,
            episodes=args.episodes,
            steps=args.steps,
            schedule=args.inner_lr_schedule,
            seed=args.seed,
            against=against,
            **overrides_of(args),
        )
    except EpisodeDiverged as error:
        return complain(f"evaluation stopped: {error}", 1)
    print(evaluation_title(results))
    print_table(evaluation_table(results))
    for remark in evaluation_remarks(results):
        print(remark)
    for path in files:
        print(path)
    return 0


def render(args: argparse.Namespace) -> int:
    """Film the same agent before and after each adaptation step, side by side."""
    from envs import RenderingUnavailable, TaskError
    from metarl.agents import make_agent
    from metarl.failures import EpisodeDiverged
    from metarl.runs import Run
    from metarl.tracking import start_tracker
    from metarl.video import adaptation_video

    run = Run.open(args.directory, **overrides_of(args))
    family = run.config.env
    try:
        given = args.task is not None
        task = family.check_task(args.task) if given else family.tasks("test", args.tasks)
    except TaskError as error:
        raise UserError(f"--task: {error}") from error
    except ValueError as error:
        raise UserError(f"--tasks: {error}") from error
    agent = make_agent(run.config, run.load(args.checkpoint).agent)
    try:
        info = adaptation_video(
            agent,
            family,
            task,
            steps=args.steps,
            out=args.out,
            seed=args.seed,
            num_episodes=args.episodes,
            width=args.width,
            height=args.height,
            fps=args.fps,
            preset=args.preset,
        )
    except (RenderingUnavailable, EpisodeDiverged) as error:
        return complain(error, 1)
    print(info)
    print(info.speed)
    tracker = start_tracker(run, job="render")
    tracker.video(f"adaptation/{args.out.stem}", args.out)
    tracker.finish()
    return 0


def report(args: argparse.Namespace) -> int:
    """Write one self-contained page about runs, the figures, and a model card of the first."""
    from metarl.report import write_report

    for path in write_report(args.directories, args.out):
        print(path)
    return 0


def bench(args: argparse.Namespace) -> int:
    """Time one meta-iteration by its parts, and the physics limit beside it."""
    from metarl.bench import bench as measure
    from metarl.bench import bench_table, write_json
    from metarl.flags import config_of

    config = config_of(args)
    if args.json and not args.json.resolve().parent.is_dir():
        raise UserError(f"--json: there is no folder {args.json.resolve().parent}")
    result = measure(config, args.repeats)
    print_table(bench_table(result))
    if args.json:
        write_json(result, args.json)
    return 0


def setup(args: argparse.Namespace) -> int:
    """Make a Python environment with Meta-World and what it needs, which does not fit beside ours,
    in METARL_HOME (by default ~/.cache/metarl). Safe to repeat."""
    from envs.external.meta_world_setup import setup as make

    make()
    return 0


def check_env(args: argparse.Namespace) -> int:
    """Check that a task family keeps the contract that training relies on."""
    from envs.contract import check_family
    from metarl.flags import family_of
    from metarl.listing import checks, verdict

    results = check_family(family_of(args))
    print_table(checks(results))
    print(verdict(args.target, results))
    # Where everything was skipped, nothing is known.
    outcomes = {result.outcome for result in results}
    return 0 if "pass" in outcomes and "FAIL" not in outcomes else 1


def show_list(args: argparse.Namespace) -> int:
    """List the task families, the configs, or the runs."""
    from metarl import listing

    tables = {
        "families": listing.families,
        "configs": listing.configs,
        "runs": lambda: listing.runs(args.runs),
    }
    print_table(tables[args.what]())
    return 0


def print_table(table: Any) -> None:
    """Print a table: as wide as the terminal, or as wide as it needs where there is none."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
