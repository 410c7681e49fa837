"""Which runs are one experiment: by what their configs hold, not by a label."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from metarl.config import Config
from metarl.core.schema_keys import by_path

INCIDENTAL = ("threads", "device", "tracking", "iterations")
"""Keys and sections that do not change what an experiment means, only where, how long and how
visibly it runs."""


def settings(config: Config) -> dict[str, Any]:
    """Return the values that make an experiment, by dotted path: all but the seed and those of
    `INCIDENTAL`. Runs with equal settings are seeds of one experiment."""
    values = {name: value for name, value in config.to_dict().items() if name not in INCIDENTAL}
    del values["seed"]
    return by_path(values)


def settings_digest(config: Config) -> str:
    """Return eight hexadecimal digits that are equal for configs with equal `settings` alone."""
    text = json.dumps(settings(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def group_name(config: Config) -> str:
    """Return the name of the group of runs that are seeds of one experiment, for tracking:
    FAMILY/METHOD-DIGEST."""
    return f"{config.env.name}/{config.method}-{settings_digest(config)}"
