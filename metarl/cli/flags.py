"""The keys of a config, and the fields of a task family, as command-line flags."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any

from metarl.config import Config, build_family, config_keys, family_keys, load_config
from metarl.core.errors import ConfigError, UserError, shown
from metarl.core.parsing import format_value, read_yaml
from metarl.core.schema import Key, type_name
from metarl.envs import TaskFamily, family_class

OPEN = ("env.", "outer.")
"""Sections whose keys depend on a choice."""

FAMILY = Key("env.family", str, MISSING, "")  # no flag where the family is the command's argument


def add_config_flags(command: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Add a flag for every key of a config, with the fields' docstrings as help.

    The keys of `env` and `outer` are those of the config among the words, and whatever else the
    words call so: another choice has other keys, and the config's own check refuses wrong ones.
    """
    keys = config_keys(named_config(words))
    keys += others_called(words, OPEN, keys)
    add_key_flags(command, "config", "values that replace those of the file", keys)


def add_family_flags(command: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Add a flag for every field of the task family among the words.

    Whatever else they call so is taken too, for `family_of` to refuse.
    """
    keys = family_keys(named_family(words))
    keys += others_called(words, ("env.",), [*keys, FAMILY])
    add_key_flags(command, "family", "values that replace the family's defaults", keys)


def others_called(
    words: Sequence[str], sections: tuple[str, ...], keys: Sequence[Key]
) -> list[Key]:
    """Return as keys of these sections what the words call so and is not among the keys."""
    called = (word[2:].partition("=")[0].replace("-", "_") for word in words)
    others = {path for path in called if path.startswith(sections)} - {key.path for key in keys}
    return [Key(path, str, MISSING, "") for path in sorted(others)]


def add_key_flags(
    command: argparse.ArgumentParser, title: str, description: str, keys: Sequence[Key]
) -> None:
    """Add a group of flags, one for each key."""
    group = command.add_argument_group(title, description)
    for key in keys:
        default = "" if key.default is MISSING else f" (default {format_value(key.default)})"
        flags = {f"--{key.path.replace('_', '-')}", f"--{key.path}"}
        group.add_argument(
            *sorted(flags),
            dest=key.path,
            default=argparse.SUPPRESS,
            metavar="VALUE",
            help=f"{key.doc} {type_name(key.type).capitalize()}{default}.".replace("%", "%%"),
        )


def named_config(words: Sequence[str]) -> Config | None:
    """Return the first config among the words, None without one that is valid."""
    for word in words:
        with contextlib.suppress(ConfigError):
            return load_config(word)
    return None


def named_family(words: Sequence[str]) -> type[TaskFamily] | None:
    """Return the first task family among the words, None without one."""
    for word in words:
        with contextlib.suppress(ValueError):
            return family_class(word)
    return None


def config_of(args: argparse.Namespace) -> Config:
    """Return the config that a command line asks for."""
    overrides = given_values(args, OPEN, config_keys(named_config([args.config])))
    return load_config(args.config, **overrides)


def family_of(args: argparse.Namespace) -> TaskFamily:
    """Return the task family that a command line asks for, by its `target`.

    Raises:
        ConfigError: if there is none, or a field's value is wrong.
    """
    values = given_values(args, ("env.",), family_keys(named_family([args.target])))
    try:
        return build_family({"family": args.target, **{k[4:]: v for k, v in values.items()}})
    except ConfigError as error:
        path, _, reason = str(error).partition(": ")
        name = "" if path == FAMILY.path else f"--{path.replace('_', '-')}: "
        raise ConfigError(f"{name}{reason}") from None


def given_values(
    args: argparse.Namespace, sections: tuple[str, ...], keys: Sequence[Key]
) -> dict[str, Any]:
    """Return the values, by path, that a command line gives to the keys and in these sections.

    Raises:
        ConfigError: if a value is not readable.
    """
    known = {key.path: key for key in keys}
    values = {}
    for path, text in vars(args).items():
        if path not in known and not path.startswith(sections):
            continue
        try:
            is_text = path in known and known[path].type is str
            values[path] = text if is_text else read_yaml(text, f"--{path}")
        except UserError as error:
            raise ConfigError(f"--{path}: not readable: {shown(text)}") from error
    return values
