"""Jacobians of graphs, as linear maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class LinearMap:
    """The Jacobian of some outputs with respect to some inputs, at the point of a graph.

    Both products run over graphs that were built once. The product with a tangent differentiates
    the pullback, which is linear in its cotangents, with respect to them.
    """

    def __init__(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        self._outputs, self._inputs = list(outputs), list(inputs)
        self._cotangents = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        self._pullback = torch.autograd.grad(
            self._outputs,
            self._inputs,
            self._cotangents,
            create_graph=True,
            materialize_grads=True,
        )

    def pushforward(self, tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return J @ tangents, shaped like the outputs."""
        return torch.autograd.grad(
            self._pullback,
            self._cotangents,
            tangents,
            retain_graph=True,
            materialize_grads=True,
        )

    def pullback(self, cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return J^T @ cotangents, shaped like the inputs."""
        return torch.autograd.grad(
            self._outputs, self._inputs, cotangents, retain_graph=True, materialize_grads=True
        )
