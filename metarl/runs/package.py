"""Packages: the learned weights of a run with its config, to be given away.

A package is a folder that is read like a run's folder, without logs, checkpoints and optimisers.
"""

from __future__ import annotations

import json
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
from metarl.core.errors import UserError
from metarl.core.parsing import error_summary
from metarl.rollout.sampler_config import SamplerConfig
from metarl.runs.atomic_io import write_atomically
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.packed import DamagedFile, checksum

WEIGHTS = "model.safetensors"
FORMAT = 1
"""The format of new packages, and the newest one that is read."""


def packaged_config(config: Config) -> Config:
    """Return the config of a run without what belongs to the machine that trained it."""
    return config.replace(
        device="cpu", threads=0, sampler=SamplerConfig(), tracking=TrackingConfig(trackers=())
    )


def write_weights(path: Path, config: Config, state: Checkpoint) -> None:
    """Write the weights of a checkpoint: those that a warm start would take, or, for an agent that
    names none, its whole state.

    Raises:
        StorageError: if the file cannot be written.
    """
    names = [name for name in state.agent if is_parameter(config.agent, name)] or [*state.agent]
    tensors = {name: torch.as_tensor(state.agent[name]).contiguous() for name in names}
    numbers = {"iteration": state.iteration, "env_steps": state.env_steps}
    texts = {name: str(number) for name, number in numbers.items()}
    marked = {"format": "pt", "metarl_format": str(FORMAT), "checksum": checksum(tensors)}
    write_atomically(path, save(tensors, {**marked, **texts}))


def read_weights(path: Path, config: Config) -> Checkpoint:
    """Return the weights of a package as a checkpoint, with the optimiser of a new agent.

    Args:
        path: the file.
        config: the config of the package.

    Raises:
        DamagedFile: if the file is damaged.
        UserError: if it has a newer format.
    """
    tensors, texts = read_tensors(path)
    if texts.get("checksum") != checksum(tensors):
        raise DamagedFile(f"{path}: damaged, its content does not match its checksum")
    version = number(texts, "metarl_format", path)
    if version > FORMAT:
        raise UserError(
            f"{path}: written by a newer metarl: format {version}, this one reads up to {FORMAT}"
        )
    own = config.replace(device="cpu").untrained_state()
    for name in own:
        if name not in tensors and is_parameter(config.agent, name):
            raise DamagedFile(f"{path}: lacks {name}, a parameter of the agent of its config")
    iteration, env_steps = (number(texts, name, path) for name in ("iteration", "env_steps"))
    return Checkpoint(iteration, env_steps, float("-inf"), {**own, **tensors})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return the tensors of a file of safetensors by name, and its texts by key.

    Raises:
        DamagedFile: if the file cannot be read.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names: Any = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise DamagedFile(f"{path}: not whole weights ({error_summary(error)})") from error


def number(texts: Mapping[str, str], name: str, path: Path) -> int:
    """Return a number of at most 18 digits among the texts of a file.

    Raises:
        DamagedFile: if it is missing, or no such number.
    """
    text = texts.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise DamagedFile(f"{path}: {name}: expected a whole number, got {json.dumps(text[:40])}")
    return int(text)
