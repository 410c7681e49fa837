"""Configs by path or by name, with overrides from Python or the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gymnasium

from metarl.config import Config, config_keys
from metarl.config_upgrade import ALIASES, renamed_key, upgrade
from metarl.config_values import merged, own_values, paths_above, replaced, value_at
from metarl.core.errors import ConfigError, UserError, check, nearest, nearest_path, shown
from metarl.core.parsing import error_summary, read_yaml
from metarl.envs import locate

PACKAGE = Path(__file__).parent
RUN_CONFIG = "config.yaml"  # in the folder of a run, beside its provenance
SWEEPS = "sweeps"  # the folder of Weights & Biases sweeps in the folder of configs
MEASURED = "measured.json"  # cost and return of some configs (examples/reproduce/measured.py)


def load_config(
    source: str | os.PathLike[str] | Config | Mapping[str, Any],
    /,
    base: str | os.PathLike[str] | Config | None = None,
    **overrides: Any,
) -> Config:
    """Read a config by path or by name, such as `half_cheetah_vel/maml_trpo`; or make one of plain
    values.

    Args:
        source: a YAML file, the name of a config of the package, a config itself, or values by key:
            nested, as in YAML, or with dotted keys such as "agent.inner.lr".
        base: a config, by path or by name or itself, in which values by key replace those given,
            and a section of another kind, such as the agent, is replaced as a whole; None for the
            defaults.
        overrides: values that replace values of the file, by key. A key of a section is given as
            `**{"agent.inner.lr": 0.2}`; the keys in `ALIASES` have short names. A section given
            as a whole keeps the values that it does not name.

    Raises:
        ConfigError: if the config does not exist, is not valid YAML, or has an invalid key or
            value; gives the file or the key, the expected value, and the nearest valid name.
    """
    if not isinstance(source, Mapping):
        if base is not None:
            name = "itself" if isinstance(source, Config) else source
            raise ConfigError(f"base: goes with values by key, got the config {name}")
        if isinstance(source, Config):
            return make_config(source.to_dict(), "config", overrides)
        expected = "the name of a config, a file, or values by key"
        check(isinstance(source, str | os.PathLike), "source", expected, source)
        return make_config(read_config(source), str(source), overrides)
    data: dict[str, Any] = {}
    known = base is None or isinstance(base, str | os.PathLike | Config)
    check(known, "base", "a config, its name, a file, or None", base)
    if base is not None:
        data = base.to_dict() if isinstance(base, Config) else read_config(base)
    paths: dict[Any, list[str]] = {
        name: ALIASES.get(name, name).split(".") if isinstance(name, str) else [name]
        for name in source
    }
    values: dict[str, Any] = {}
    for name in sorted(source, key=lambda name: len(paths[name])):  # a section before its keys
        value = source[name]
        if paths[name] == ["env"] and isinstance(value, str):  # a family with its defaults
            value = {"family": value}
            data.pop("env", None)
        values = replaced(values, paths[name], value, "config")
    return make_config(merged(data, values), "config", overrides)


def make_config(
    data: Mapping[str, Any],
    source: str,
    overrides: Mapping[str, Any],
    config_class: type[Config] = Config,
) -> Config:
    """Make a config from plain values and overrides.

    Args:
        data: nested values, as read from YAML.
        source: name of the config in error messages.
        overrides: values that replace values of `data`, by dotted key.
        config_class: the class of the config.

    Raises:
        ConfigError: if a key or a value is invalid; names the source and the key.
    """
    check_keys(data, source)
    if "base" in data:
        raise ConfigError(
            f"{source}: base: a file has none; change values of a config by flags, or in Python "
            "by metarl.load_config(values, base=...)"
        )
    given: dict[str, str] = {}  # names of the overrides by path
    values: Any = data
    if isinstance(family := data.get("env"), str):  # by name, with its defaults
        values = {**data, "env": {"family": family}}
    for name, value in overrides.items():
        if name not in ALIASES and (new := renamed_key(name)):
            raise ConfigError(f"{flag(name)}: has moved to {flag(new)}")
        path = ALIASES.get(name, name)
        given[path] = name
        for key, each in own_values(path, value, values):
            values = replaced(values, key.split("."), each, source)
    try:
        return config_class(**values)
    except ConfigError as error:
        message = str(error)
        path, _, reason = message.partition(": ")
        known = {key.path.replace(".", "_"): key.path for key in config_keys()}
        if known.get(path, path) != path:  # in Python: agent_inner_lr=0.1
            reason = f"unknown key (nearest: {known[path]})"
        elif reason.startswith("unknown key") and "(" not in reason:  # without a hint
            reason += nearest_path(path, known.values())
        for above in (path, *paths_above(path)):  # the flag may hold the list or the section
            if above in given:
                rest = path.removeprefix(above).replace(".", ": ", 1)
                raise ConfigError(f"{flag(given[above])}{rest}: {reason}") from None
        inside = [name for key, name in given.items() if key.startswith(f"{path}.")]
        if reason.startswith("unknown key") and inside and value_at(data, path) is None:
            raise ConfigError(f"{flag(inside[0])}: {reason}") from None  # the file has no such one
        if path.startswith("env.") and reason.startswith("unknown key") and "env.family" in given:
            chosen = values["env"]["family"]
            message = f"{flag(given['env.family'])}: {chosen} has no key {path}, which {source} has"
            raise ConfigError(message) from None
        raise ConfigError(f"{source}: {path}: {reason}") from None


def check_cluster_keys(
    config: Config, data: Mapping[str, Any], source: str, overrides: Iterable[str]
) -> None:
    """Check that the keys of a cluster have an influence, those of overrides and of a config's
    file. A file for a cluster may be used without it, by an override of `sampler.kind`.

    Args:
        config: the config with the overrides.
        data: the plain values of its file.
        source: name of the file in error messages.
        overrides: the paths of the keys that are overridden.

    Raises:
        ConfigError: if one has none.
    """
    config.sampler.check_used(overrides)
    inside = data.get("sampler") or {}
    if inside.get("kind", "local") == "local":
        config.sampler.check_used([f"sampler.{key}" for key in inside], source)


def check_keys(data: Mapping[Any, Any], source: str, prefix: str = "") -> None:
    """Check that all keys of a config are text, and that none is a key of an earlier version.

    Raises:
        ConfigError: if a key is not valid; names the key, and the new name of a renamed key.
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


def read_config(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the plain values of a config by path or by name.

    The path of an environment's file in it counts from the folder of the config. The config of a
    run's folder means what it meant when the run was made, in any version.

    Raises:
        ConfigError: if there is no such config, or it is not a YAML mapping.
    """
    path = find_config(name)
    data = read_values(path)
    if path.name == RUN_CONFIG and (path.parent / "provenance.json").is_file():
        data = upgrade(data)
    env = data.get("env")
    if isinstance(env, dict) and isinstance(env.get("env_id"), str):
        data["env"] = {**env, "env_id": locate(env["env_id"], path.parent)}
    return data


def read_values(path: Path) -> dict[str, Any]:
    """Read the plain values of a config's file as they are; the method is its name by default.

    Raises:
        ConfigError: as `read_mapping`.
    """
    return {"method": path.stem, **read_mapping(path)}


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys with values.

    Raises:
        ConfigError: if the file cannot be read, or is not a YAML mapping.
    """
    try:
        data = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable YAML file: {error_summary(error)}") from error
    except UserError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        found = "an empty file" if data is None else shown(data)
        raise ConfigError(f"{path}: expected keys with values, got {found}")
    return data


def find_config(name: str | os.PathLike[str]) -> Path:
    """Return the file of a config that is given by path or by name.

    Raises:
        ConfigError: if there is no such config; gives the nearest name.
    """
    path = Path(name)
    if path.is_file():
        return path
    if (path / RUN_CONFIG).is_file():
        raise ConfigError(f"{name}: is a run, not a config; its config is {path / RUN_CONFIG}")
    known = config_names()
    short = str(name).removesuffix(".yaml").removeprefix("configs/")
    if short in known:
        return known[short]
    own = [each for each in known if each.startswith(f"{short}/")]
    first = [each for each in (f"{short}/demo", f"{short}/maml_trpo") if each in own] or own[:1]
    more = f" and {len(own) - len(first)} more" if len(own) > len(first) else ""
    near = f" (of this family: {', '.join(first)}{more})" if own else nearest(short, known)
    if short in gymnasium.registry:
        near = "; an environment of Gymnasium needs one with family: gymnasium and env_id"
    raise ConfigError(f"{name}: no such config{near}; see metarl list configs")


def config_folder() -> Path:
    """Return the folder of the configs of the package."""
    # Inside the package in an installed wheel, and next to it in a repository.
    folders = (PACKAGE / "configs", PACKAGE.parent / "configs")
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def config_names() -> dict[str, Path]:
    """Return the files of the configs of the package, by name."""
    folder = config_folder()
    files = [path for path in sorted(folder.glob("*/*.yaml")) if path.parent.name != SWEEPS]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
