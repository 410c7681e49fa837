"""Parameters as dicts of tensors, alone or as stacks: a leading axis B with one entry per task."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Params: TypeAlias = dict[str, Tensor]


def leaves(params: Params) -> Params:
    """Return the same parameters as leaves of new graphs, to differentiate with respect to."""
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def stack(params: Params, num_tasks: int) -> Params:
    """Repeat parameters for each task: (...) -> (B, ...). No copy is made."""
    return {name: value.expand(num_tasks, *value.shape) for name, value in params.items()}


def concatenate(tensors: Iterable[Tensor]) -> Tensor:
    """Put the elements of tensors into one vector, (P,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def flatten(params: Params) -> Tensor:
    """Put parameters into one vector, (P,)."""
    return concatenate(params.values())


def unflatten(vector: Tensor, like: Params) -> Params:
    """Cut a vector, (P,), into the shapes of `like`."""
    pieces = vector.split([value.numel() for value in like.values()])
    return {
        name: piece.view_as(value)
        for (name, value), piece in zip(like.items(), pieces, strict=True)
    }


def total(tensors: Sequence[Tensor]) -> Tensor:
    """Add tensors up in their order, so that the rounding is always the same."""
    return functools.reduce(torch.add, tensors)
