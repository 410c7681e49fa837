"""What the commands' parsers have in common."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from metarl.core.errors import UserError, check_known, nearest


class Parser(argparse.ArgumentParser):
    """Refuses bad flags in one line, naming the nearest."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong:
            check_known(wrong[1], wrong[2].replace("'", "").split(", "), "unknown word")
        raise UserError(message)

    def refuse(self, unknown: str) -> NoReturn:
        """Refuse a word that no flag and no argument of this command takes."""
        near = nearest(unknown.partition("=")[0], self._option_string_actions)
        self.error(f"{unknown}: unknown flag or argument{near}; see {self.prog} --help")


def add_run_flags(command: argparse.ArgumentParser) -> None:
    """Add what all commands on a finished or running run take."""
    command.add_argument("directory", type=Path, metavar="RUN", help="the run's folder")
    command.add_argument(
        "--checkpoint",
        default="latest",
        metavar="NAME",
        help="latest (default), best, a number, or average: of the last quarter of those kept",
    )
    command.add_argument("--seed", type=int, default=0, help="of the episodes (default 0)")
    command.add_argument(
        "--device", default=argparse.SUPPRESS, help="cpu or cuda (default: the run's)"
    )


def add_flags_of(words: Sequence[str], command: argparse.ArgumentParser) -> None:
    """Add the flags of the config, or of the task family, that the words name.

    Only if they call this command: finding the flags takes a moment.
    """
    name = command.prog.split()[-1]
    if words[:1] == [name]:
        from metarl.cli.flags import add_config_flags, add_family_flags

        add = add_family_flags if name == "check-env" else add_config_flags
        add(command, words[1:])
