"""The agents that come with metarl: `pretrained/NAME` in place of the folder of a run."""

from __future__ import annotations

import os
from pathlib import Path

from metarl.core.errors import UserError, nearest

FOLDER = Path(__file__).parents[1] / "pretrained"
PREFIX = "pretrained/"


def pretrained_names() -> dict[str, Path]:
    """Return the folders of the agents that come with metarl, by name."""
    folders = sorted(path.parent for path in FOLDER.glob("*/config.yaml"))
    return {f"{PREFIX}{folder.name}": folder for folder in folders}


def run_folder(name: str | os.PathLike[str]) -> Path:
    """Return the folder of a run that is given by its path, or by the name of an agent that comes
    with metarl. A run's folder of that path has precedence.

    Raises:
        UserError: if an agent's name is unknown; gives the nearest one.
    """
    path, text = Path(name), Path(name).as_posix()
    if not text.startswith(PREFIX) or (path / "config.yaml").is_file():
        return path
    known = pretrained_names()
    if text not in known:
        raise UserError(f"{text}: no such agent{nearest(text, known)}; see metarl list pretrained")
    return known[text]


def is_pretrained(folder: Path) -> bool:
    """Return whether a run's folder is that of an agent that comes with metarl."""
    return folder.resolve().parent == FOLDER.resolve()


def output_folder(folder: Path) -> Path:
    """Return the folder for results of a run: its own, or a folder in `runs` where its own belongs
    to the installation."""
    return Path("runs", "pretrained", folder.name) if is_pretrained(folder) else folder
