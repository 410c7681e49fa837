"""The entry point of `metarl`: run a command, and turn errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from metarl.cli.commands import cli
from metarl.cli.parser import print_error, usage_message
from metarl.core.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 2 for wrong input, 1 for failed work.

    Raises:
        SystemExit: after the completions that a shell asks for, and where stdout is a closed pipe.
    """
    try:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # where a user's own task family may be
        return cli.main(argv, "metarl", standalone_mode=False)
    except click.ClickException as error:
        return print_error(usage_message(error), 2)
    except UserError as error:
        return print_error(error, 2)
    except click.Abort:  # Ctrl-C
        return 130
    except OSError as error:
        return print_error(error, 1)
    except MemoryError:
        return print_error("out of memory; choose fewer tasks, episodes or steps at once", 1)
    except RuntimeError as error:
        from metarl.envs import WorkerError

        if not isinstance(error, WorkerError):
            raise
        return print_error(error, 1)
