"""The keys of a config as command-line flags."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any

import yaml

from metarl.checks import ConfigError
from metarl.config import Config, config_keys, load_config
from metarl.schema import Key, type_name

OPEN = ("env.", "outer.")
"""Sections whose keys depend on a choice."""


def add_config_flags(command: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Add a flag for every key of a config, with the fields' docstrings as help.

    The keys of `env` and `outer` are those of the config among the words, and whatever else the
    words call so: another choice has other keys, and the config's own check refuses wrong ones.
    """
    keys = config_keys(named_config(words))
    called = (word[2:].partition("=")[0].replace("-", "_") for word in words)
    others = {path for path in called if path.startswith(OPEN)} - {key.path for key in keys}
    keys += [Key(path, str, MISSING, "") for path in sorted(others)]
    group = command.add_argument_group("config", "values that replace those of the file")
    for key in keys:
        default = "" if key.default is MISSING else f" (default {plain_text(key.default)})"
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


def plain_text(value: Any) -> str:
    """Write a default as a user would."""
    if isinstance(value, tuple):
        return str(list(value))
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def config_of(args: argparse.Namespace) -> Config:
    """Return the config that a command line asks for."""
    keys = {key.path: key for key in config_keys(named_config([args.config]))}
    overrides = {}
    for path, text in vars(args).items():
        if path not in keys and not path.startswith(OPEN):
            continue
        try:
            is_text = path in keys and keys[path].type is str
            overrides[path] = text if is_text else yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--{path}: not readable: {text!r}") from error
    return load_config(args.config, **overrides)
