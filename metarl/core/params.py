"""Parameters as dicts of tensors, unstacked (...) or stacked over tasks (B, ...).

P is the number of elements of all unstacked parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Params: TypeAlias = dict[str, Tensor]


def leaves(params: Params) -> Params:
    """Return the parameters as leaves of a new autograd graph, with `requires_grad`."""
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def stack(params: Params, num_tasks: int) -> Params:
    """Repeat parameters for each of B tasks, (...) -> (B, ...), as views without a copy."""
    return {name: value.expand(num_tasks, *value.shape) for name, value in params.items()}


def join_params(parts: Sequence[Params]) -> Params:
    """Return stacked parameters of several groups of tasks, (b, ...) each, as one, (B, ...)."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def concatenate(tensors: Iterable[Tensor]) -> Tensor:
    """Return the elements of all tensors as one vector, (P,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def flatten(params: Params) -> Tensor:
    """Return all parameters as one vector, (P,), in the order of the dict."""
    return concatenate(params.values())


def unflatten(vector: Tensor, like: Params) -> Params:
    """Return a vector, (P,), as parameters with the names and shapes of `like`; see `flatten`."""
    pieces = vector.split([value.numel() for value in like.values()])
    return {
        name: piece.view_as(value)
        for (name, value), piece in zip(like.items(), pieces, strict=True)
    }


def as_views(params: Params) -> Params:
    """Return a copy of parameters as views of one vector, as the step of an optimiser leaves them.

    Products of few rows are rounded by the place of their arguments in memory. So the parameters of
    a new agent, and of a loaded one, have to lie as those of a training that was never stopped.
    """
    return unflatten(flatten(params), params)


def flat_gradient(loss: Tensor, params: Params) -> Tensor:
    """Return the gradient of a loss, (), with respect to the leaves of its graph, (P,); 0 for those
    without influence."""
    return concatenate(torch.autograd.grad(loss, list(params.values()), materialize_grads=True))


def total(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape, added in order, so that the rounding is fixed."""
    return functools.reduce(torch.add, tensors)
