"""The parser of a command: click with stricter flags and error messages of one line."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
from click.core import ParameterSource

from metarl.core.errors import UserError, check_known, nearest, nearest_path, shown
from metarl.core.parsing import printable, read_numbers

HINTS = "metarl.cli.hints"
"""In the context of a command that was given an unknown flag: flags that can be meant by it, beside
those of its help text."""


class Choice(click.Choice):
    """One of several words; the error at an unknown word gives the nearest word."""

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        check_known(value, self.choices, "unknown word")
        return value


class Numbers(click.Option):
    """A flag whose value is some numbers, in one word or several: `--task 1 2`, `--task 1,2`."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        found = super().type_cast_value(ctx, value)
        what = "the numbers of one task, such as 0.5" if self.multiple else "numbers, such as 3"
        for text in (found or ()) if self.multiple else [found]:
            if not are_numbers(text):
                raise UserError(f"{self.opts[0]}: expected {what} or 1,2, got {shown(text)}")
        return found


class Command(click.Command):
    """A command with stricter flags than those of click, and flags of the class `Numbers`."""

    allow_extra_args = True  # `parse_args` raises an error that names them

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        args = join_numbers(args, options)
        valued = {flag for each in options if not each.is_flag for flag in each.opts}
        for word, value in itertools.pairwise(args):
            if word in valued and value.startswith("--") and not ctx.resilient_parsing:
                raise UserError(f"{word}: expected a value, got {value}")
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            raise click.NoSuchOption(rest[0], ctx=ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        check_rendering_library()
        try:
            return super().invoke(ctx)
        except UserError as error:  # of an argument of Python, which a flag has given
            name, colon, reason = str(error).partition(": ")
            name = name.removeprefix("num_")  # the flag of num_episodes is --episodes
            if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
                raise
            flag = next(each.opts[0] for each in self.get_params(ctx) if each.name == name)
            raise UserError(f"{flag}{colon}{reason}") from error


def join_numbers(args: Sequence[str], params: Iterable[click.Parameter]) -> list[str]:
    """Return `args` with `--task 1 2` as `--task '1 2'`, since options of click take a fixed number
    of words.

    Args:
        args: the arguments of a command.
        params: its parameters, of which those of class `Numbers` are joined.
    """
    flags = {flag for param in params if isinstance(param, Numbers) for flag in param.opts}
    joined: list[str] = []
    is_open = False  # whether numbers belong to the last word
    for word, previous in zip(args, ["", *args], strict=False):
        if is_open and not word.startswith("--") and are_numbers(word):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
            name, equals, _ = word.partition("=")
            is_open = previous in flags or (bool(equals) and name in flags)
    return joined


def are_numbers(word: str) -> bool:
    """Return whether a word is numbers, such as `1`, or `[1,` as a part of a list."""
    try:
        return bool(read_numbers(word))
    except ValueError:
        return False


def check_rendering_library() -> None:
    """Check that MuJoCo can be imported, which fails if MUJOCO_GL names a missing library.

    Raises:
        UserError: if the library is missing; names the variable and the package with the library.
    """
    try:
        import mujoco  # noqa: F401
    except (ImportError, AttributeError, RuntimeError, ctypes.ArgumentError) as error:
        # A signal while the library is initialised arrives as the cause of an error of the import.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, SystemExit | KeyboardInterrupt):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        backend = os.environ.get("MUJOCO_GL", "")
        if not backend:
            raise
        raise UserError(
            f"MUJOCO_GL={backend}: MuJoCo cannot load that OpenGL library ({error}); unset "
            "MUJOCO_GL, or install it (Debian and Ubuntu: libegl1, libopengl0 and libgl1-mesa-dri "
            "for egl, libosmesa6 for osmesa)"
        ) from error


def usage_message(error: click.ClickException) -> str:
    """Return an error of click as one line: the flag, the expected value and the nearest name."""
    ctx: Any = getattr(error, "ctx", None)
    hint = f"; see {ctx.command_path} --help" if ctx else ""
    match error:
        case click.NoSuchOption(ctx=click.Context() as ctx):
            params = ctx.command.get_params(ctx)
            flags = [flag for param in params for flag in param.opts if flag.startswith("--")]
            names = [flag[2:] for flag in (*flags, *ctx.meta.get(HINTS, []))]
            near = nearest_path(error.option_name.lstrip("-"), names).replace(": ", ": --")
            near = near.replace(", ", ", --")
            text = f"{error.option_name}: unknown flag or argument{near}"
        case click.exceptions.NoSuchCommand():
            near = nearest(error.command_name, error.possibilities or [])
            text = f"{error.command_name}: unknown command{near}"
        case click.BadOptionUsage() if "requires" in error.message:
            text = f"{error.option_name}: expected a value"
        case click.MissingParameter(param=click.Parameter() as param):
            name = param.opts[0] if isinstance(param, click.Option) else param.name.upper()
            text = f"the following arguments are required: {name}"
            if isinstance(param.type, click.Choice) and not isinstance(param, click.Option):
                text = f"expected one of {', '.join(param.type.choices)}"
        case click.BadParameter(param=click.Parameter() as param):
            text = f"{param.opts[0]}: {error.message.rstrip('.')}"
        case _:
            text = error.message.rstrip(".")
    return " ".join(text.split()) + hint


def print_error(error: object, code: int) -> int:
    """Print an error on stderr and return the exit code."""
    # Without control characters, which could control the terminal. The traceback of an environment
    # has several lines.
    lines = (printable(line) for line in str(error).splitlines() or [type(error).__name__])
    print("metarl: error: " + "\n".join(lines), file=sys.stderr)
    return code
