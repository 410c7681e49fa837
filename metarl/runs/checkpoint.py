"""Checkpoints: written whole or not at all, read without running any of their content, checked."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.parsing import error_summary, is_number
from metarl.runs.atomic_io import write_atomically

FORMAT = 3
OLDEST_FORMAT = 2  # format 3 adds numbers in `agent`


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after some iterations.

    Attributes:
        iteration: number of iterations that are done.
        env_steps: number of environment steps that they took.
        best_return: the return after adaptation at which `best.pt` was saved.
        agent: the agent's state (`MetaAgent.state_dict`): CPU tensors and finite numbers by name.

    Raises:
        TypeError: if a field has another type.
    """

    iteration: int
    env_steps: int
    best_return: float
    agent: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name, kind in (("iteration", int), ("env_steps", int), ("best_return", float)):
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{name}: expected {kind.__name__}, got {value!r}")
        if not isinstance(self.agent, dict) or not all(
            isinstance(value, Tensor) or is_number(value) for value in self.agent.values()
        ):
            raise TypeError("agent: expected tensors and finite numbers by name")


def average(checkpoints: Sequence[Checkpoint], may_average: Callable[[str], bool]) -> Checkpoint:
    """Return the last of some checkpoints of a run, with learned parameters averaged over all.

    A meta-gradient that is estimated from few tasks makes the parameters fluctuate around an
    optimum; their mean fluctuates less (Polyak and Juditsky 1992).

    Args:
        checkpoints: of one run, the last one last.
        may_average: whether the floating-point tensor of a name in `agent` is averaged. All other
            content is that of the last checkpoint; an optimiser's state must not be averaged.
    """
    last = checkpoints[-1]
    agent = {
        name: torch.stack([each.agent[name] for each in checkpoints]).mean(0)
        if isinstance(value, Tensor) and value.is_floating_point() and may_average(name)
        else value
        for name, value in last.agent.items()
    }
    return replace(last, agent=agent)


class DamagedCheckpoint(UserError):
    """A checkpoint is missing, cut short, or differs from the one that was written."""


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        StorageError: if it cannot be written.
    """
    content = {"format": FORMAT, **asdict(checkpoint)}
    # Not straight to the file: torch hides the operating system's error of a failed write.
    packed = io.BytesIO()
    torch.save({**content, "checksum": checksum(content)}, packed)
    write_atomically(path, packed.getvalue())


def load(path: Path) -> Checkpoint:
    """Read a checkpoint of a format from `OLDEST_FORMAT` to `FORMAT`.

    Raises:
        DamagedCheckpoint: if it is missing, or not whole.
        UserError: if it is of a newer format.
    """
    if not path.is_file():
        raise DamagedCheckpoint(f"{path}: there is no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        stored = content.pop("checksum", None)
        whole = stored == checksum(content)
        version = content.pop("format")
    except Exception as error:  # damaged bytes make torch raise almost anything
        raise DamagedCheckpoint(
            f"{path}: not a whole checkpoint of metarl, perhaps cut short ({error_summary(error)})"
        ) from error
    if stored is None:
        raise DamagedCheckpoint(
            f"{path}: not a checkpoint of a format that is read ({OLDEST_FORMAT} to {FORMAT}): "
            "it has no checksum"
        )
    if not whole:
        raise DamagedCheckpoint(f"{path}: damaged, its content does not match its checksum")
    try:
        if version > FORMAT:
            raise UserError(
                f"{path}: written by a newer metarl: format {version}, "
                f"this one reads up to {FORMAT}"
            )
        if version < OLDEST_FORMAT:
            raise TypeError(f"format {version}, expected at least {OLDEST_FORMAT}")
        return Checkpoint(**content)
    except TypeError as error:
        raise DamagedCheckpoint(f"{path}: not a checkpoint of metarl ({error})") from error


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of names, types, shapes and values, independent of their memory layout.

    It must stay the same in later formats: it tells a damaged file from a format that is too new.

    Args:
        content: tensors, numbers, texts, and mappings of them, by name.
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
