"""Configs by path or by name, with values replaced from Python or the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.config import Config
from metarl.config_upgrade import renamed_key
from metarl.core.errors import ConfigError, UserError, nearest, shown
from metarl.core.parsing import read_yaml
from metarl.core.schema import Section
from metarl.core.schema_keys import plain

PACKAGE = Path(__file__).parent
SWEEPS = "sweeps"  # the folder of Weights & Biases' sweeps, among those of the configs

ALIASES = {
    "num_tasks": "sampling.num_tasks",
    "num_episodes": "sampling.num_episodes",
    "inner_steps": "sampling.adaptation_steps",
}
"""Short names of keys, for flags (`--num-tasks`) and for overrides in Python."""


def load_config(name: str | os.PathLike[str], /, **overrides: Any) -> Config:
    """Read a config by path or by name, such as `half_cheetah_vel/maml_trpo`.

    Args:
        name: a YAML file, or the name of a config that comes with the package.
        overrides: values that replace those of the file, by key. A key of a section is given as
            `**{"agent.inner.lr": 0.2}`; the keys of `ALIASES` have short names.

    Raises:
        ConfigError: naming the file or the key, what was expected, and the nearest valid value.
    """
    return make_config(read_config(name), str(name), overrides)


def make_config(data: Mapping[str, Any], source: str, overrides: Mapping[str, Any]) -> Config:
    """Check the plain values of a config, with some replaced.

    Args:
        data: nested, as read from YAML.
        source: the config's name in errors.
        overrides: values by dotted key.

    Raises:
        ConfigError: naming the source and the key.
    """
    check_keys(data, source)
    given: dict[str, str] = {}  # by path, the name under which it was overridden
    values: Any = data
    for name, value in overrides.items():
        if name not in ALIASES and (new := renamed_key(name)):
            raise ConfigError(f"{flag(name)}: has moved to {flag(new)}")
        path = ALIASES.get(name, name)
        given[path] = name
        values = replaced(values, path.split("."), value, source)
    try:
        return Config(**values)
    except ConfigError as error:
        path, _, reason = str(error).partition(": ")
        if path in given:
            raise ConfigError(f"{flag(given[path])}: {reason}") from None
        raise ConfigError(f"{source}: {error}") from None


def check_keys(data: Mapping[Any, Any], source: str, prefix: str = "") -> None:
    """Refuse keys that are not text, or that an earlier version had.

    Raises:
        ConfigError: naming the key, and its new name.
    """
    for key, value in data.items():
        if not isinstance(key, str):
            raise ConfigError(f"{source}: {prefix}{shown(key)}: expected a key that is text")
        if isinstance(value, Mapping) and f"{prefix}{key}" != "env":
            check_keys(value, source, f"{prefix}{key}.")
        if new := renamed_key(prefix + key):
            raise ConfigError(f"{source}: {prefix}{key}: has moved to {new}")


def flag(path: str) -> str:
    """Return the command-line flag of a key."""
    return f"--{path.replace('_', '-')}"


def replaced(
    data: Mapping[str, Any], path: list[str], value: Any, source: str, above: str = ""
) -> dict[str, Any]:
    """Return nested values with one of them replaced.

    Raises:
        ConfigError: if there is something else than keys and values on the path.
    """
    key, *rest = path
    if not rest:
        return {**data, key: value}
    inside = data.get(key)
    inside = {} if inside is None else inside
    if isinstance(inside, Section):
        inside = plain(inside)
    if not isinstance(inside, Mapping):
        raise ConfigError(f"{source}: {above}{key}: expected keys with values, got {shown(inside)}")
    return {**data, key: replaced(inside, rest, value, source, f"{above}{key}.")}


def read_config(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the plain values of a config by path or by name.

    Raises:
        ConfigError: if there is none, or it is not YAML with keys and values.
    """
    path = find_config(name)
    try:
        data = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable YAML file: {error}") from error
    except UserError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{path}: expected keys with values, got {shown(data)}")
    return {"method": path.stem, **data}


def find_config(name: str | os.PathLike[str]) -> Path:
    """Return the file of a config given by path or by name."""
    path = Path(name)
    if path.is_file():
        return path
    known = config_names()
    short = str(name).removesuffix(".yaml").removeprefix("configs/")
    if short in known:
        return known[short]
    raise ConfigError(f"{name}: no such config{nearest(short, known)}; see metarl list configs")


def config_names() -> dict[str, Path]:
    """Return the configs that come with the package, by name."""
    # An installed wheel holds them inside the package, a clone beside it.
    folders = (PACKAGE / "configs", PACKAGE.parent / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), folders[-1])
    files = [path for path in sorted(folder.glob("*/*.yaml")) if path.parent.name != SWEEPS]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
