"""The argument of `metarl check-env`: a task family, or a config that names one."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.cli.flags import RunTarget, flag_of
from metarl.core.errors import ConfigError
from metarl.core.schema_keys import Key

if TYPE_CHECKING:
    from metarl.envs import TaskFamily


class FamilyTarget(RunTarget):
    """The argument of a command is a task family, or a config whose section `env` names one."""

    sections = "env."

    @functools.cached_property
    def is_config(self) -> bool:
        """Whether the argument is a config, by path or by name, and not a family."""
        from metarl.config_files import config_names
        from metarl.envs import FAMILIES

        name = self.name or ""
        if name in FAMILIES:
            return False
        path = Path(name)
        if path.is_file() or path.suffix in (".yaml", ".yml") or name in config_names():
            return True
        return "/" in name and ":" not in name

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        """The values of the section `env`, without overrides."""
        from metarl.config_files import read_config

        if not self.is_config:
            return {"family": self.name}
        values = read_config(self.name or "").get("env")
        values = {"family": values} if isinstance(values, str) else values
        return {**values} if isinstance(values, Mapping) else {}

    def keys(self) -> list[Key]:
        """List the fields of the family; none if the family does not exist."""
        from metarl.config import family_keys
        from metarl.envs import family_class, family_name

        with contextlib.suppress(ValueError):
            if self.is_config:
                family = self.make({})
                return family_keys(family_class(family_name(family)), family)
            return family_keys(family_class(self.name or ""))
        return []

    def make(self, overrides: Mapping[str, Any]) -> TaskFamily:
        """Return the family with overrides by dotted key.

        Raises:
            ConfigError: if the family or the config does not exist, or the value of a field is
                invalid; names the flag, or the config and its key.
        """
        from metarl.config import make_family
        from metarl.config_values import replaced

        if "env.family" in overrides:
            raise ConfigError("--env.family: unknown flag: TARGET names the family")
        source, values = self.name or "", self.data
        for path, value in overrides.items():
            keys = path.removeprefix("env.").split(".")
            values = replaced(values, keys, value, source, "env.")
        try:
            return make_family(values)
        except ConfigError as error:
            path, _, reason = str(error).partition(": ")
            if any(key == f"env.{path}" or path.startswith(f"{key[4:]}.") for key in overrides):
                raise ConfigError(f"{flag_of(f'env.{path}')}: {reason}") from None
            if self.is_config:
                raise ConfigError(f"{source}: env.{error}") from None
            flag = "" if path == "family" else f"{flag_of(f'env.{path}')}: "
            raise ConfigError(f"{flag}{reason}") from None
