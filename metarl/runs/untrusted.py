"""Checks of untrusted run folders, which are made before any file of the folder is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError

FOLDERS = ("checkpoints", "evaluation", "replay", "report", "tensorboard", "videos")
"""The subfolders of a run's folder."""
CODE_SECTIONS = ("env", "agent", "tracking")
"""The sections of a config whose texts may name code."""


def check_links(directory: Path) -> None:
    """Check that no link in a run's folder leads out of it, since files would be written there, and
    that nothing in it is a pipe or a device, whose reading might never end.

    Raises:
        UserError: if a link leads out of the folder, or something is neither file nor folder; names
            it.
    """
    inside = directory.resolve()
    folders = [directory, *(directory / name for name in FOLDERS)]
    for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
        is_read = path.name != "wandb" and path.suffix != ".partial"
        if is_read and path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: is a pipe or a device; expected a file")
        if path.is_symlink() and not path.is_char_device():
            target = path.resolve()
            if not target.is_relative_to(inside):
                raise UserError(
                    f"{path}: is a link that leads out of the run's folder, to {target}; put the "
                    "thing itself there"
                )


def check_code(directory: Path, data: Mapping[str, Any]) -> None:
    """Check that a config names no code in the run's folder, which may be untrusted.

    All texts of the sections `CODE_SECTIONS` are checked, since any text may be interpreted as
    `package.module:Class`, as a `.py` file or as a Python interpreter.

    Args:
        directory: the run's folder.
        data: the plain values of the config, nested at most `MAX_DEPTH` deep (see `read_yaml`).

    Raises:
        UserError: if a text names code in the folder; names the key.
    """
    inside = directory.resolve()
    for section in CODE_SECTIONS:
        for key, text in texts(data.get(section), section):
            for place in code_places(text):
                # Without a colon no folder is code: a run may have the name of its agent's kind.
                if is_inside(place, inside) and (":" in text or not place.expanduser().is_dir()):
                    raise UserError(
                        f"{directory / 'config.yaml'}: {key}: names code in the run's own "
                        f"folder, {place.expanduser().resolve()}, which is not run; if it is "
                        "yours, move it elsewhere"
                    )


def texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield (path, text) for each text in nested values, with a path such as `env.kwargs.x`."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inside in value.items():
            yield from texts(inside, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for index, inside in enumerate(value):
            yield from texts(inside, f"{key}[{index}]")


def code_places(text: str) -> list[Path]:
    """Return the files and folders whose code would be executed if a text named code."""
    if not text or "\0" in text:
        return []
    name = text.rpartition(":")[0] or text
    module = name.partition(".")[0] if ":" in text and not name.endswith(".py") else ""
    # Python also finds modules in the current folder.
    modules = [Path(module), Path(f"{module}.py")] if module else []
    return [Path(name), *modules]


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path, which may start with `~`, exists and is in a folder."""
    try:
        path = path.expanduser()
        return path.exists() and path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # too long a name, an unknown user, or circular links
        return False
