"""Packages: the learned weights of a run with its config, to be given away.

A package is a folder that is read like a run's folder, without logs, checkpoints and optimisers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from metarl.agents.warm_start import is_parameter
from metarl.config import Config
from metarl.config_sections import TrackingConfig
from metarl.core.errors import UserError, shown
from metarl.core.parsing import error_summary
from metarl.core.schema_keys import by_path
from metarl.envs.external.gymnasium_family import is_included
from metarl.rollout.sampler_config import SamplerConfig
from metarl.runs.atomic_io import write_atomically
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.packed import DamagedFile, checksum

WEIGHTS = "model.safetensors"
KEY = "metarl"
"""The key of the facts about the weights, as JSON, among the texts of the file."""
FORMAT = 1
"""The format of new packages, and the newest one that is read."""


def packaged_config(config: Config) -> Config:
    """Return the config of a run without what belongs to the machine that trained it."""
    return config.replace(
        device="cpu", threads=0, sampler=SamplerConfig(), tracking=TrackingConfig(trackers=())
    )


def own_code(config: Config) -> list[str]:
    """Return the names of the code of one's own that a config needs, package.module:Class or
    file.py:Class: a task family, an environment, a kind of agent, an update rule."""
    values = map(str, by_path(config.to_dict()).values())
    names = (name for name in values if re.fullmatch(r"(.*\.py|[\w.]+):[^\W\d][\w.]*", name))
    return [name for name in names if not is_included(name)]


def write_weights(path: Path, config: Config, state: Checkpoint) -> None:
    """Write the weights of a checkpoint: those that a warm start would take, or, for an agent that
    names none, its whole state.

    Raises:
        StorageError: if the file cannot be written.
    """
    names = [name for name in state.agent if is_parameter(config.agent, name)] or [*state.agent]
    tensors = {name: torch.as_tensor(state.agent[name]).contiguous() for name in names}
    facts = {
        "format": FORMAT,
        "iteration": state.iteration,
        "env_steps": state.env_steps,
        "checksum": checksum(tensors),
    }
    # One text: several would be written in an order of chance.
    write_atomically(path, save(tensors, {KEY: json.dumps(facts)}))


def read_weights(path: Path, config: Config) -> Checkpoint:
    """Return the weights of a package as a checkpoint, with the optimiser of a new agent.

    Args:
        path: the file.
        config: the config of the package.

    Raises:
        DamagedFile: if the file is damaged.
        UserError: if it has a newer format.
    """
    tensors, facts = read_tensors(path)
    if facts.get("checksum") != checksum(tensors):
        raise DamagedFile(f"{path}: damaged, its content does not match its checksum")
    version, iteration, env_steps = (
        whole_number(facts, name, path) for name in ("format", "iteration", "env_steps")
    )
    if version > FORMAT:
        raise UserError(
            f"{path}: written by a newer metarl: format {version}, this one reads up to {FORMAT}"
        )
    own = config.replace(device="cpu").untrained_state()
    for name in own:
        if name not in tensors and is_parameter(config.agent, name):
            raise DamagedFile(f"{path}: lacks {name}, a parameter of the agent of its config")
    return Checkpoint(iteration, env_steps, float("-inf"), {**own, **tensors})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the tensors of a package by name, and the facts about them by key.

    Raises:
        DamagedFile: if the file cannot be read.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names: Any = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            facts = json.loads((file.metadata() or {}).get(KEY, "{}"))
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise DamagedFile(f"{path}: not whole weights ({error_summary(error)})") from error
    return tensors, facts if isinstance(facts, dict) else {}


def whole_number(facts: Mapping[str, Any], name: str, path: Path) -> int:
    """Return a number among the facts about weights.

    Raises:
        DamagedFile: if it is missing, negative, or no whole number.
    """
    value = facts.get(name)
    if type(value) is not int or not 0 <= value < 10**18:
        raise DamagedFile(f"{path}: {name}: expected a whole number, got {shown(value)}")
    return value
