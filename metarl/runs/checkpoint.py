"""Checkpoints: written whole or not at all, read without running anything, and checked."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.parsing import brief, is_number
from metarl.runs.atomic_io import write_atomically

FORMAT = 2
CHECKED_SINCE = 2  # the first format with a checksum


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
    agent: Mapping[str, Any]

    def __post_init__(self) -> None:
        kinds = {"iteration": int, "env_steps": int, "best_return": float, "agent": dict}
        for name, kind in kinds.items():
            if type(getattr(self, name)) not in (kind, np.float64 if kind is float else kind):
                raise TypeError(f"{name} is no {kind.__name__}")
        if not all(isinstance(x, Tensor) or is_number(x) for x in self.agent.values()):
            raise TypeError("agent holds other things than tensors and numbers")


def average(states: Sequence[Checkpoint], may_average: Callable[[str], bool]) -> Checkpoint:
    """Return the last of some checkpoints of a run, with the mean of what all have learned.

    A meta-gradient from a few tasks makes the parameters bounce around what they are after; their
    mean does less so (Polyak and Juditsky 1992).

    Args:
        states: the checkpoints, the last one last.
        may_average: whether the tensor of a name in `agent` is averaged. All else, such as the
            state of an optimiser, is that of the last checkpoint.
    """
    last = states[-1]
    agent = {
        name: torch.stack([state.agent[name] for state in states]).mean(0)
        if isinstance(value, Tensor) and value.is_floating_point() and may_average(name)
        else value
        for name, value in last.agent.items()
    }
    return replace(last, agent=agent)


class DamagedCheckpoint(UserError):
    """A checkpoint is missing, cut short, or not what was once written."""


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        StorageError: if it cannot be written.
    """
    content = {"format": FORMAT, **asdict(checkpoint)}
    # Not straight to the file: torch hides what the operating system says of a failed write.
    packed = io.BytesIO()
    torch.save({**content, "checksum": checksum(content)}, packed)
    write_atomically(path, packed.getvalue())


def load(path: Path) -> Checkpoint:
    """Read a checkpoint of this format or an older one.

    Raises:
        DamagedCheckpoint: if it is missing, or not whole.
        UserError: if it is not a checkpoint, or of a newer format.
    """
    if not path.is_file():
        raise DamagedCheckpoint(f"{path}: there is no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        stored = content.pop("checksum", None)
        version = content["format"]
        whole = stored == checksum(content) if stored or version >= CHECKED_SINCE else True
    except Exception as error:  # damaged bytes make torch raise almost anything
        raise DamagedCheckpoint(
            f"{path}: not a whole checkpoint of metarl, perhaps cut short ({brief(error)})"
        ) from error
    if not whole:
        raise DamagedCheckpoint(f"{path}: damaged, its content does not match its checksum")
    try:
        if version > FORMAT:
            raise UserError(
                f"{path}: written by a newer metarl: format {version}, "
                f"this one reads up to {FORMAT}"
            )
        for each in range(version, FORMAT):
            content = MIGRATIONS[each](content)
        del content["format"]
        return _checked(Checkpoint(**content))
    except (TypeError, KeyError) as error:
        raise DamagedCheckpoint(f"{path}: not a checkpoint of metarl ({error})") from error


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Format 2 added the checksum, which `load` has dealt with."""
    return content


MIGRATIONS = {1: _from_1}
"""What makes the content of a format that of the next one."""


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    """Refuse, with a TypeError, fields of other types than those declared."""
    for name, kind in (("iteration", int), ("env_steps", int), ("best_return", float)):
        value = getattr(checkpoint, name)
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected {kind.__name__}, got {value!r}")
    agent = checkpoint.agent
    if not isinstance(agent, dict):
        raise TypeError("agent: expected tensors and numbers by name")
    return checkpoint


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of names, types, shapes and values, whatever way they are stored.

    Later formats keep to it, so that damage is told apart from a format that is too new.

    Args:
        content: tensors, plain numbers and texts, and mappings of such, by name.
    """
    digest = hashlib.sha256()
    for name, value in sorted(content.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name!r} {value.dtype} {list(value.shape)}\n".encode())
            flat = value.detach().cpu().contiguous().flatten()  # at least one axis: view needs it
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        else:
            plain = checksum(value) if isinstance(value, Mapping) else repr(value)
            digest.update(f"{name!r} {type(value).__name__} {plain}\n".encode())
    return digest.hexdigest()
