"""Which runs are one experiment, by the values of their configs; default folders of runs."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from metarl.config import Config, family_keys
from metarl.core.errors import UserError
from metarl.core.parsing import format_value, read_json
from metarl.core.schema_keys import by_path, plain
from metarl.envs import family_class, family_name
from metarl.envs.registry import unwrapped
from metarl.runs.origin import KEY, Origin

INCIDENTAL = ("threads", "device", "sampler", "tracking", "iterations")
"""Keys and sections that do not change what an experiment means, only where, how long and how
visibly it runs. A run that goes on may change them."""

ENVIRONMENT_KEYS = ("benchmark", "env_name", "env_id")
"""Keys of task families that choose the environments."""

BEGUN_WITH = "settings"
"""The key of the fixed values, as text, in the provenance of a run."""

MEASURING = ("evaluation",)
"""Sections that a run keeps, and that do not change what is learned, only what is measured."""


def fixed_values(config: Config) -> dict[str, Any]:
    """Return the values that a run keeps for good, by dotted path: all but `INCIDENTAL`."""
    values = config.to_dict()
    return by_path({name: values[name] for name in values if name not in INCIDENTAL})


def fixed_texts(config: Config) -> dict[str, str]:
    """Return the fixed values as text, by dotted path; those of an environment as far as they are
    of its tasks, not of where and how it runs."""
    tasks = by_path({"env": plain(unwrapped(config.env).task_settings())})
    return {path: format_value(value) for path, value in (fixed_values(config) | tasks).items()}


def check_unchanged(config: Config, directory: Path) -> None:
    """Check that the config in a run's folder has the fixed values that the run was begun with, if
    its provenance tells them: it may have been changed by hand.

    Raises:
        UserError: if one differs; names the file, the key and both values.
    """
    path = directory / "provenance.json"
    made = read_json(path) if path.exists() else None
    begun = made.get(BEGUN_WITH) if isinstance(made, dict) else None
    now = fixed_texts(config)
    for key, text in begun.items() if isinstance(begun, dict) else ():
        if (own := now.get(key, text)) != text:
            raise UserError(
                f"{directory / 'config.yaml'}: {key}: expected {text}, with which the run "
                f"was begun, got {own}; put it back, or begin another run"
            )


def settings(config: Config, origin: Origin | None = None) -> dict[str, Any]:
    """Return the values that make an experiment, by dotted path: the fixed values without the seed
    and `MEASURING`, and the experiment that a run began from if it was warm started. Runs with
    equal settings are seeds of one experiment."""
    left_out = ("seed", *MEASURING)
    values = {
        path: value
        for path, value in fixed_values(config).items()
        if path.partition(".")[0] not in left_out
    }
    return values if origin is None else {**values, KEY: origin.experiment}


def settings_digest(config: Config, origin: Origin | None = None) -> str:
    """Return eight hexadecimal digits that are equal for runs with equal `settings` alone."""
    text = json.dumps(settings(config, origin), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def group_name(config: Config, origin: Origin | None = None) -> str:
    """Return the name of the group of runs that are seeds of one experiment, for tracking:
    FAMILY/METHOD-DIGEST."""
    return f"{config.env.name}/{config.method}-{settings_digest(config, origin)}"


def default_directory(config: Config, source: str | None = None) -> Path:
    """Return the default folder of a run: runs/FAMILY-METHOD-seedN.

    Args:
        config: the config of the run.
        source: path or name of the config, whose last part replaces the method, since several files
            may have one label. `config.yaml`, the name of a run's own config, does not.

    A family whose settings choose the environments, such as Meta-World's, has these settings after
    its name where they are not the defaults: runs/metaworld-ML10-METHOD-seedN.
    """
    defaults = {key.path: key.default for key in family_keys(family_class(family_name(config.env)))}
    values = by_path({"env": config.to_dict()["env"]})
    paths = [f"env.{name}" for name in ENVIRONMENT_KEYS]
    chosen = [values[path] for path in paths if values.get(path) != defaults.get(path)]
    chosen = [Path(each).name if Path(each).is_absolute() else each for each in map(str, chosen)]
    stem = "" if source is None else Path(source).name.removesuffix(".yaml").removesuffix(".yml")
    label = config.method if stem in ("", "config") else stem
    name = "-".join([config.env.name, *chosen, label, f"seed{config.seed}"])
    # Replaces characters such as "/", which would lead out of the folder `runs`.
    return Path("runs") / re.sub(r"[^\w.+=,@-]", "-", name)
