"""Jacobians of autograd graphs as linear maps: products with vectors, without the matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Jacobian:
    """The Jacobian J of output tensors with respect to input tensors, at one point of a graph.

    Both products reuse graphs that are built once. The Jacobian-vector product is the derivative
    of the vector-Jacobian product, which is linear in the cotangents, with respect to the
    cotangents (double backward).
    """

    def __init__(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        """Build the graph of the vector-Jacobian product.

        Args:
            outputs: tensors in the graph of `inputs`.
            inputs: tensors that require a gradient.
        """
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
        """Return J @ tangents, tensors shaped like the outputs, for `tangents` like the inputs."""
        return torch.autograd.grad(
            self._vjp,
            self._cotangents,
            tangents,
            retain_graph=True,
            materialize_grads=True,
        )

    def vjp(self, cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return J^T @ cotangents, tensors shaped like the inputs, for `cotangents` like the
        outputs."""
        return torch.autograd.grad(
            self._outputs, self._inputs, cotangents, retain_graph=True, materialize_grads=True
        )
