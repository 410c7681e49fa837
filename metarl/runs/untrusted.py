"""Checks of run folders that may come from anybody, made before any of their files is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError

FOLDERS = ("checkpoints", "evaluation", "report", "videos")
"""The folders within a run's folder."""
CODE_SECTIONS = ("env", "agent")
"""The sections of a config whose texts may name code."""


def check_links(directory: Path) -> None:
    """Refuse links in a run's folder that lead out of it: files would be written there.

    Raises:
        UserError: naming the link.
    """
    inside = directory.resolve()
    folders = [directory, *(directory / name for name in FOLDERS)]
    for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
        if path.is_symlink() and not path.is_char_device():
            target = path.resolve()
            if not target.is_relative_to(inside):
                raise UserError(
                    f"{path}: is a link that leads out of the run's folder, to {target}; put the "
                    "thing itself there"
                )


def check_code(directory: Path, data: Mapping[str, Any]) -> None:
    """Refuse a config that names code in the run's own folder, which may come from anybody.

    Every text of the sections `CODE_SECTIONS` is checked, as any of them may be taken for a
    `package.module:Class`, a `.py` file or an interpreter.

    Args:
        directory: the run's folder.
        data: the config's plain values, nested at most `MAX_DEPTH` deep (see `read_yaml`).

    Raises:
        UserError: naming the key.
    """
    inside = directory.resolve()
    for section in CODE_SECTIONS:
        for key, text in texts(data.get(section), section):
            for place in code_places(text):
                if is_inside(place, inside):
                    raise UserError(
                        f"{directory / 'config.yaml'}: {key}: names code in the run's own "
                        f"folder, {place.expanduser().resolve()}, which is not run; if it is "
                        "yours, move it elsewhere"
                    )


def texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the texts in nested values, each with the path of its key, such as `env.kwargs.x`."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inside in value.items():
            yield from texts(inside, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for index, inside in enumerate(value):
            yield from texts(inside, f"{key}[{index}]")


def code_places(text: str) -> list[Path]:
    """Return the files and folders that would be run if a config's text named code."""
    if not text or "\0" in text:
        return []
    name = text.rpartition(":")[0] or text
    module = name.partition(".")[0] if ":" in text and not name.endswith(".py") else ""
    # Modules are also looked for in the current folder.
    modules = [Path(module), Path(f"{module}.py")] if module else []
    return [Path(name), *modules]


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path, which may begin with `~`, exists and leads into a folder."""
    try:
        path = path.expanduser()
        return path.exists() and path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a name that is too long, an unknown user, links in a circle
        return False
