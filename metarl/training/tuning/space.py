"""The search space of `metarl tune`: which keys of a config vary, and in which range.

Its file has the form of a Weights & Biases sweep, whose `parameters` are read, so that one file
serves both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.config_files import make_config, read_mapping
from metarl.config_upgrade import ALIASES
from metarl.core.errors import ConfigError, UserError, check_known, shown
from metarl.core.parsing import format_value, is_number

SEARCHED = ("agent.", "sampling.")
"""Beginnings of the keys that may vary. All others change what is measured, or how."""
RANGES = {
    "uniform": (False, False),
    "log_uniform_values": (False, True),
    "int_uniform": (True, False),
}
"""Names of distributions over a range, and whether they are whole and logarithmic."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `whole` ones; evenly, or in their logarithm."""

    low: float
    high: float
    whole: bool = False
    log: bool = False

    @property
    def probes(self) -> tuple[Any, ...]:
        """Values that show whether all values are valid."""
        # Bounds that are whole do not show whether a number between them is valid.
        between = not self.whole and isinstance(self.low, int) and isinstance(self.high, int)
        return self.low, self.high, *([self.low + 0.5] * between)

    def value_of(self, chosen: Any) -> Any:
        """Return the value of the config for a value chosen by the search."""
        return chosen


@dataclass(frozen=True)
class Choices:
    """One of several values. The search chooses among their texts where a value is a list."""

    values: tuple[Any, ...]

    @property
    def probes(self) -> tuple[Any, ...]:
        """Values that show whether all values are valid."""
        return self.values

    @property
    def names(self) -> tuple[Any, ...]:
        """The values as the search names them."""
        plain = (bool, int, float, str)
        return tuple(x if isinstance(x, plain) else format_value(x) for x in self.values)

    def value_of(self, chosen: Any) -> Any:
        """Return the value of the config for a value chosen by the search."""
        return self.values[self.names.index(chosen)]


SearchSpace = dict[str, Range | Choices]
"""What varies, by dotted key."""


def read_space(
    path: Path, values: Mapping[str, Any], source: str, overrides: Mapping[str, Any]
) -> SearchSpace:
    """Read the search space of a config from a YAML file.

    Args:
        path: the file: a mapping of keys, or of `parameters`, which are such a mapping.
        values: plain values of the config, with which every bound and every choice is tried.
        source: name of the config in error messages.
        overrides: values that replace those of the config.

    Raises:
        UserError: if the file cannot be read, or a key or a value is not valid; names the file and
            the key.
    """
    data = read_mapping(path)
    entries = data.get("parameters", data)
    if not isinstance(entries, Mapping) or not entries:
        raise UserError(f"{path}: expected keys of the config with a range or values each")
    space: SearchSpace = {}
    for name, entry in entries.items():
        key = ALIASES.get(str(name), str(name))
        if isinstance(entry, Mapping) and f"{key}." in SEARCHED:
            raise UserError(
                f"{path}: {name}: expected dotted keys, such as sampling.num_tasks, with a "
                "range or values each"
            )
        if not key.startswith(SEARCHED):
            raise UserError(
                f"{path}: {name}: is not searched; expected keys of the sections agent and "
                "sampling, since all others change what is measured (and a search over seeds "
                "chooses luck)"
            )
        if key in space:
            raise UserError(f"{path}: {name}: is given twice, by this name and another one")
        if key in {ALIASES.get(each, each) for each in overrides}:
            raise UserError(f"{path}: {name}: is also given as a flag; expected one of both")
        space[key] = read_entry(entry, f"{path}: {name}")
        for probe in space[key].probes:
            try:
                make_config(values, source, {**overrides, key: probe})
            except ConfigError as error:
                reason = str(error).partition(": ")[2]
                hint = whole_hint(space[key], reason)
                raise UserError(f"{path}: {name}: {reason}{hint}") from error
    return space


def whole_hint(varied: Range | Choices, reason: str) -> str:
    """Return how a range of whole numbers is written, if a `reason` is that a range has others; ''
    for other reasons."""
    if not isinstance(varied, Range) or varied.whole or "expected whole number" not in reason:
        return ""
    names = " or ".join(name for name, (whole, _) in RANGES.items() if whole)
    return f"; expected whole numbers as min and max, and the distribution {names} or none"


def read_entry(entry: Any, where: str) -> Range | Choices:
    """Return what an entry of the file says.

    Raises:
        UserError: if it is not valid; `where` is the beginning of the message.
    """
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: expected min and max, or values, got {shown(entry)}")
    for key in entry:
        check_known(str(key), ("distribution", "min", "max", "values"), f"{where}: unknown key")
    if "values" in entry:
        values = entry["values"]
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}: values: expected a list, got {shown(values)}")
        choices = Choices(tuple(values))
        if len(entry) > 1 or len(set(map(format_value, values))) < len(values):
            raise UserError(f"{where}: expected either different values, or min and max")
        return choices
    low, high = entry.get("min"), entry.get("max")
    if not (is_number(low) and is_number(high) and low < high):
        raise UserError(
            f"{where}: expected numbers with min < max, got {shown(low)} and {shown(high)}"
        )
    whole = isinstance(low, int) and isinstance(high, int)
    name = entry.get("distribution", "int_uniform" if whole else "uniform")
    check_known(str(name), RANGES, f"{where}: unknown distribution")
    whole_numbers, log = RANGES[name]
    if whole_numbers and not whole:
        raise UserError(f"{where}: int_uniform: expected whole numbers, got {low} and {high}")
    if log and not low > 0:
        raise UserError(f"{where}: log_uniform_values: expected min above 0, got {low}")
    return Range(low, high, whole_numbers, log)
