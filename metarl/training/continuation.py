"""Which values of a run's config may change when it goes on: `metarl.runs.identity.INCIDENTAL`.

The run's config then has the new values, so that a later continuation goes on alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarl.config import Config
from metarl.config_files import flag
from metarl.config_upgrade import ALIASES
from metarl.core.errors import ConfigError, UserError
from metarl.core.parsing import format_value, quoted, shell_path
from metarl.core.schema_keys import plain
from metarl.runs.identity import fixed_values
from metarl.runs.run import Run

ABSENT = "no such key"


def open_to_continue(begun: Run, overrides: Mapping[str, Any]) -> Run:
    """Return a run with values that replace values of its config.

    Args:
        begun: the run, with the config in its folder.
        overrides: the new values, by dotted key.

    Raises:
        ConfigError: if a key or a value is invalid, or is of a key that a run keeps; names the key
            as a flag, the run's own value, and the command for another run.
        UserError: as `check_same_run`, if a whole section differs.
    """
    kept = fixed_values(begun.config)
    for name, value in overrides.items():
        own = kept.get(ALIASES.get(name, name), value)
        if plain(value) != plain(own):
            config = shell_path(begun.directory / "config.yaml")
            raise ConfigError(
                f"{flag(name)}: {begun.directory} was begun with {format_value(own)}, which it "
                f"keeps; for another run: metarl train {config} {flag(name)} "
                f"{quoted(format_value(value))} --out DIR"
            )
    run = Run.open(begun.directory, **overrides)
    check_same_run(begun, run.config)  # an override may be a whole section
    return run


def check_same_run(begun: Run, wanted: Config) -> None:
    """Check that a run may go on with a config: that they have the same fixed values.

    Raises:
        UserError: if a value differs; names the first key and both values.
    """
    kept, values = fixed_values(begun.config), fixed_values(wanted)
    for path in sorted(kept.keys() | values.keys()):
        own, other = kept.get(path, ABSENT), values.get(path, ABSENT)
        if own != other:
            repeated = f", or repeat {flag(path)} {quoted(format_value(own))}"
            raise UserError(
                f"{begun.directory}: was begun with {path} = {format_value(own)}, not "
                f"{format_value(other)}; choose another folder with --out"
                f"{'' if own == ABSENT else repeated}"
            )
