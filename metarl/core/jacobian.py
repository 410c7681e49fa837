"""Jacobians of graphs, as linear maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Jacobian:
    """The Jacobian of outputs with respect to inputs, at one point of a graph.

    Both products run over graphs that are built once. The Jacobian-vector product differentiates
    the vector-Jacobian product, which is linear in its cotangents, with respect to them.
    """

    def __init__(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        self._outputs, self._inputs = list(outputs), list(inputs)
        self._cotangents = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        self._vjp = torch.autograd.grad(
            self._outputs,
            self._inputs,
            self._cotangents,
            create_graph=True,
            materialize_grads=True,
        )

    def jvp(self, tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return J @ tangents, shaped like the outputs."""
        return torch.autograd.grad(
            self._vjp,
            self._cotangents,
            tangents,
            retain_graph=True,
            materialize_grads=True,
        )

    def vjp(self, cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return J^T @ cotangents, shaped like the inputs."""
        return torch.autograd.grad(
            self._outputs, self._inputs, cotangents, retain_graph=True, materialize_grads=True
        )
