"""The commands: call, print, return the exit code. Slow imports are in those that need them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from metarl.core.errors import StorageError, UserError, check
from metarl.core.parsing import printable

MOST_ROWS = 64  # of a film


def complain(error: object, code: int) -> int:
    """Print one line of error and return the exit code."""
    # What is not printable would steer the terminal; an environment's traceback has lines.
    lines = (printable(line) for line in str(error).splitlines() or [type(error).__name__])
    print("metarl: error: " + "\n".join(lines), file=sys.stderr)
    return code


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what a command on a run replaces in the run's config."""
    return {"device": args.device} if "device" in args else {}


def train(args: argparse.Namespace) -> int:
    """Meta-train a config into a run's folder, or go on with an interrupted run."""
    from metarl.cli.flags import config_of
    from metarl.rollout.failures import EpisodeDiverged
    from metarl.training.loop import Interrupted, default_directory, resume, start_or_resume
    from metarl.training.loop import train as start

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
    from metarl.agents.base import make_agent
    from metarl.runs.run import check_vacant

    make_agent(config)
    phases = config.inner_steps + 1
    steps = config.num_tasks * config.num_episodes * config.env.horizon * phases
    print(config.to_yaml(), end="")
    print(f"# {config.iterations} iterations of up to {steps:,} env steps, into {directory}")
    check_vacant(directory)
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Measure the return before and after adaptation on held-out tasks."""
    from metarl.evaluation.compare import evaluate_run
    from metarl.reporting.evaluation import (
        evaluation_notes,
        evaluation_table,
        evaluation_title,
        publish_evaluation,
    )
    from metarl.rollout.failures import EpisodeDiverged
    from metarl.runs.run import Run

    against = [name for name in args.against.split(",") if name]
    try:
        results, file = evaluate_run(
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
    run = Run.open(args.directory, **overrides_of(args))
    figure = publish_evaluation(run, file, results)
    print(evaluation_title(results))
    print_table(evaluation_table(results))
    for note in evaluation_notes(results):
        print(note)
    print(file)
    print(figure)
    return 0


def render(args: argparse.Namespace) -> int:
    """Film the same agent before and after each adaptation step, side by side."""
    from metarl.agents.base import make_agent
    from metarl.envs import RenderingUnavailable, TaskError
    from metarl.reporting.video.adaptation import adaptation_video
    from metarl.rollout.failures import EpisodeDiverged
    from metarl.runs.run import Run
    from metarl.training.tracking import start_tracker

    check(args.tasks <= MOST_ROWS, "--tasks", f"at most {MOST_ROWS}", args.tasks)
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
    from metarl.reporting.report import write_report

    for path in write_report(args.directories, args.out):
        print(path)
    return 0


def bench(args: argparse.Namespace) -> int:
    """Time one meta-iteration by its parts, and the physics limit beside it."""
    from metarl.cli.flags import config_of
    from metarl.reporting.benchmark import bench as measure
    from metarl.reporting.benchmark import bench_table, write_json

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
    from metarl.envs.external.meta_world_setup import setup as make

    make()
    return 0


def check_env(args: argparse.Namespace) -> int:
    """Check that a task family keeps the contract that training relies on."""
    from metarl.cli.flags import family_of
    from metarl.envs.contract import check_family
    from metarl.reporting.tables import checks, summary_line

    results = check_family(family_of(args))
    print_table(checks(results))
    print(summary_line(args.target, results))
    # Where everything was skipped, nothing is known.
    outcomes = {result.outcome for result in results}
    return 0 if "pass" in outcomes and "FAIL" not in outcomes else 1


def show_list(args: argparse.Namespace) -> int:
    """List the task families, the configs, or the runs."""
    from metarl.reporting import tables as listing

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
