"""The command line: what may be written on it, and what becomes of errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from metarl.cli.commands import (
    bench,
    check_env,
    complain,
    evaluate,
    render,
    report,
    setup,
    show_list,
    train,
)
from metarl.cli.parser import Parser, add_flags_of, add_run_flags
from metarl.core.errors import UserError

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
        from metarl.envs import WorkerError

        if not isinstance(error, WorkerError):
            raise
        return complain(error, 1)


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
        help="go on with --out if it exists, up to --iterations, and do nothing if it is past them",
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
        default="k_step",
        metavar="NAME",
        help="k_step (default), few_episode, ood, robust or continual: see docs/evaluation.md",
    )
    command.add_argument("--split", default="test", help="train, validation, test (default) or ood")
    command.add_argument("--tasks", type=int, default=40, help="tasks of the split (default 40)")
    command.add_argument(
        "--episodes", type=int, default=20, help="per task and adaptation (default 20)"
    )
    command.add_argument("--steps", type=int, default=3, help="adaptations (default 3)")
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
        help="halving (default): half the step size after the first step; geometric: half of the "
        "last at every step; or constant",
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
