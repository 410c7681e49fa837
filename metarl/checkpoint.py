"""Checkpoints: written whole or not at all, read without running anything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from metarl.checks import UserError

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A run as it stood after some iterations.

    Attributes:
        iteration: how many iterations were done.
        env_steps: how many environment steps they took.
        best_return: the return after adaptation that `best.pt` was saved for.
        agent: what the agent has learned, on the CPU (`MetaAgent.state_dict`).
    """

    iteration: int
    env_steps: int
    best_return: float
    agent: dict[str, Tensor]

    def __post_init__(self) -> None:
        kinds = {"iteration": int, "env_steps": int, "best_return": float, "agent": dict}
        for name, kind in kinds.items():
            if type(getattr(self, name)) not in (kind, np.float64 if kind is float else kind):
                raise TypeError(f"{name} is no {kind.__name__}")
        if not all(isinstance(value, Tensor) for value in self.agent.values()):
            raise TypeError("agent holds other things than tensors")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file so that, whatever happens, either the old or the new one is there, whole."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.unlink(missing_ok=True)  # it may be a link to anywhere
    with temporary.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic_file(path) as file:
        file.write(content)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all."""
    with atomic_file(path) as file:
        torch.save({"format": FORMAT, **asdict(checkpoint)}, file)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        UserError: if it is missing, damaged, or of a format that is not known here.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a whole checkpoint, perhaps cut short ({reason})") from error
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(f"{path}: not a checkpoint of metarl")
    if content.pop("format") != FORMAT:
        raise UserError(f"{path}: expected checkpoint format {FORMAT}; written by another version?")
    try:
        return Checkpoint(**content)
    except TypeError as error:
        raise UserError(f"{path}: not a checkpoint of metarl ({error})") from error
