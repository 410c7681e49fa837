"""Words that a shell completes for the arguments and flags of the commands."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from click.shell_completion import CompletionItem

Completer: TypeAlias = Callable[[Any, Any, str], list[CompletionItem]]


def complete_names(home: str, otherwise: str = "") -> Completer:
    """Complete the names in `module:attribute`, which is imported when the shell asks.

    Args:
        home: a collection of names, or a function that returns one.
        otherwise: `file` to complete paths where no name fits.
    """

    def complete(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
        names: Any = pkgutil.resolve_name(home)
        if callable(names):
            names = names()
        return starting(names, text, otherwise)

    return complete


def complete_run(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
    """Complete the folders of runs, by default of those in `runs`, or else any folder."""
    folder = Path(text.rpartition("/")[0] or ("/" if text.startswith("/") else "runs"))
    runs = (str(path.parent) for path in sorted(folder.glob("*/config.yaml")))
    return starting(runs, text, "dir")


def starting(names: Iterable[str], text: str, otherwise: str) -> list[CompletionItem]:
    """Return the names that start with a text; where none does, let the shell complete paths."""
    found = [CompletionItem(name) for name in names if name.startswith(text)]
    if found or not otherwise:
        return found
    return [CompletionItem(text, type=otherwise)]
