"""Shell completion of arguments and flags."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from click.shell_completion import CompletionItem

Completer: TypeAlias = Callable[[Any, Any, str], list[CompletionItem]]


def complete_names(home: str, otherwise: str = "") -> Completer:
    """Return a completer of names.

    Args:
        home: `module:attribute` of a collection of names, or of a function that returns names. The
            module is imported at the first completion.
        otherwise: `file` completes paths if no name matches; '' completes nothing else.
    """

    def complete(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
        names: Any = pkgutil.resolve_name(home)
        if callable(names):
            names = names()
        return starting(names, text, otherwise)

    return complete


def complete_family(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
    """Complete names of task families; if none matches, names or files of configs."""
    families = complete_names("metarl.envs:FAMILIES")(ctx, param, text)
    return families or complete_names("metarl.config_files:config_names", "file")(ctx, param, text)


def complete_run(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
    """Complete folders of runs, by default in the folder `runs`, and names of the agents that come
    with metarl; if none matches, any folder."""
    from metarl.runs.pretrained import pretrained_names

    folder = Path(text.rpartition("/")[0] or ("/" if text.startswith("/") else "runs"))
    runs = (str(path.parent) for path in sorted(folder.glob("*/config.yaml")))
    return starting([*runs, *pretrained_names()], text, "dir")


def starting(names: Iterable[str], text: str, otherwise: str) -> list[CompletionItem]:
    """Return completions by the names that start with a text, or by paths if there are none."""
    found = [CompletionItem(name) for name in names if name.startswith(text)]
    if found or not otherwise:
        return found
    return [CompletionItem(text, type=otherwise)]
