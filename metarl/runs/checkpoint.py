"""Checkpoints of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarl.core.parsing import is_number
from metarl.runs.packed import DamagedFile, pack, unpack

FORMAT = 4  # the format of new checkpoints
OLDEST_FORMAT = 2
"""The oldest readable format. Format 3 adds numbers in `agent`, format 4 `sampler`."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after some iterations.

    Attributes:
        iteration: number of finished iterations.
        env_steps: number of environment steps of these iterations.
        best_return: score of `best.pt`, a return; -inf before the first one. See
            `metarl.training.iterations.Iterations`.
        agent: state of the agent (`MetaAgent.state_dict`): CPU tensors and finite numbers by name.
        sampler: state of the sampler of tasks (`TaskSampler.state_dict`), likewise.

    Raises:
        TypeError: if a field has another type.
    """

    iteration: int
    env_steps: int
    best_return: float
    agent: Mapping[str, Any]
    sampler: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in (("iteration", int), ("env_steps", int), ("best_return", float)):
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{name}: expected {kind.__name__}, got {value!r}")
        for name in ("agent", "sampler"):
            state = getattr(self, name)
            if not isinstance(state, dict) or not all(
                isinstance(value, Tensor) or is_number(value) for value in state.values()
            ):
                raise TypeError(f"{name}: expected tensors and finite numbers by name")


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


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises:
        StorageError: if the file cannot be written.
    """
    pack(path, {"format": FORMAT, **asdict(checkpoint)})


def load(path: Path) -> Checkpoint:
    """Read a checkpoint of a format from `OLDEST_FORMAT` to `FORMAT`.

    Raises:
        DamagedFile: if the file is missing or damaged.
        UserError: if the checkpoint has a newer format.
    """
    content = unpack(path, "checkpoint", (OLDEST_FORMAT, FORMAT))
    try:
        return Checkpoint(**content)
    except TypeError as error:
        raise DamagedFile(f"{path}: not a checkpoint of metarl ({error})") from error
