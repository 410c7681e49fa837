"""Run folders that may come from anybody: what is refused before anything of them is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError

FOLDERS = ("checkpoints", "evaluation", "report", "videos")
"""The folders within a run's."""
CODE = (("env", "family"), ("env", "env_id"), ("env", "python"), ("inner", "rule"))
"""Keys of a config that may name code."""


def check_links(directory: Path) -> None:
    """Refuse links in a run's folder that lead out of it: what is written would go there.

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
    """Refuse a config that names code in the run's own folder: a stranger may have put it there.

    Raises:
        UserError: naming the key.
    """
    inside = directory.resolve()

    def refuse(section: str, key: str) -> None:
        values = data.get(section)
        value = values.get(key) if isinstance(values, Mapping) else None
        if not isinstance(value, str) or "\0" in value:
            return
        name = value.rpartition(":")[0] or value
        module = name.partition(".")[0] if ":" in value and not name.endswith(".py") else ""
        places = [Path(name).expanduser()]
        # Modules are also looked for in the current folder.
        places += [Path(module), Path(f"{module}.py")] if module else []
        for place in places:
            if place.exists() and place.resolve().is_relative_to(inside):
                raise UserError(
                    f"{directory / 'config.yaml'}: {section}.{key}: names code in the run's own "
                    f"folder, {place.resolve()}, which is not run; if it is yours, move it "
                    "elsewhere"
                )

    for section, key in CODE:
        refuse(section, key)
