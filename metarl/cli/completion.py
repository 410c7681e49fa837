"""Words that a shell completes for the arguments and flags of the commands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from click.shell_completion import CompletionItem


def starting(names: Iterable[str], text: str, otherwise: str = "") -> list[CompletionItem]:
    """Return the names that start with a text, or else the paths of a kind, `file` or `dir`."""
    found = [CompletionItem(name) for name in names if name.startswith(text)]
    return found or ([CompletionItem(text, type=otherwise)] if otherwise else [])


def complete_config(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
    from metarl.config import config_names

    return starting(config_names(), text, "file")


def complete_family(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
    from metarl.envs import FAMILIES

    return starting(FAMILIES, text)


def complete_run(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
    folder = Path(text).parent if "/" in text else Path("runs")
    runs = (str(path.parent) for path in sorted(folder.glob("*/config.yaml")))
    return starting(runs, text, "dir")


def complete_protocol(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
    from metarl.evaluation.protocols import PROTOCOLS

    return starting(PROTOCOLS, text)


def complete_split(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
    from metarl.envs import SPLITS

    return starting(SPLITS, text)


def complete_schedule(ctx: Any, param: Any, text: str) -> list[CompletionItem]:
    from metarl.evaluation.evaluate import SCHEDULES

    return starting(SCHEDULES, text)
