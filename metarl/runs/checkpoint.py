"""Checkpoints: written atomically, verified by a checksum, and read without running any code."""

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

FORMAT = 3  # the format of new checkpoints
OLDEST_FORMAT = 2  # the oldest readable format; format 3 adds numbers in `agent`


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after some iterations.

    Attributes:
        iteration: number of finished iterations.
        env_steps: number of environment steps of these iterations.
        best_return: return after adaptation of `best.pt`, undiscounted; -inf before the first one.
        agent: state of the agent (`MetaAgent.state_dict`): CPU tensors and finite numbers by name.

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
    """Return the last of several checkpoints, with learned parameters averaged over all of them.

    Parameters fluctuate around an optimum if meta-gradients are estimated from few tasks; their
    mean fluctuates less (Polyak and Juditsky 1992).

    Args:
        checkpoints: checkpoints of one run, in the order of their iterations.
        may_average: returns whether the tensor with a given name in `agent` is averaged. Integers,
            and all other tensors, such as the state of an optimiser, are of the last checkpoint.
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
    """A checkpoint is missing or truncated, or its content does not match its checksum."""


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises:
        StorageError: if the file cannot be written.
    """
    content = {"format": FORMAT, **asdict(checkpoint)}
    # Not directly to the file: torch hides the OSError of a failed write.
    packed = io.BytesIO()
    torch.save({**content, "checksum": checksum(content)}, packed)
    write_atomically(path, packed.getvalue())


def load(path: Path) -> Checkpoint:
    """Read a checkpoint of a format from `OLDEST_FORMAT` to `FORMAT`.

    Raises:
        DamagedCheckpoint: if the file is missing or damaged.
        UserError: if the checkpoint has a newer format.
    """
    if not path.is_file():
        raise DamagedCheckpoint(f"{path}: there is no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        stored = content.pop("checksum", None)
        whole = stored == checksum(content)
        version = content.pop("format")
    except Exception as error:  # torch raises many types of errors at damaged bytes
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
    """Return the SHA-256 of names, types, shapes and values, independent of the memory layout.

    The checksum must not change in later formats: it distinguishes a damaged file from a file of a
    newer format.

    Args:
        content: tensors, numbers, texts and nested mappings, by name.
    """
    digest = hashlib.sha256()
    for name, value in sorted(content.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name!r} {value.dtype} {list(value.shape)}\n".encode())
            elements = value.detach().cpu().contiguous().flatten()  # `view` needs an axis
            digest.update(elements.view(torch.uint8).numpy().tobytes())
        else:
            plain = checksum(value) if isinstance(value, Mapping) else repr(value)
            digest.update(f"{name!r} {type(value).__name__} {plain}\n".encode())
    return digest.hexdigest()
