"""A gated recurrent unit (GRU, Cho et al. 2014) over sequences, with its own derivatives for CPUs.

The equations, their parameters and the order of the gates (reset, update, new) are those of
`torch.nn.GRU`. On a CPU, torch records a dozen operations for each step and differentiates them
one by one; here a step takes one matrix product and few element-wise operations in each direction,
most of them NumPy's, whose tanh is faster than torch's. It has first derivatives only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.core.layers import transposed_product

FEW_ROWS = 16
"""Number of sequences up to which torch's matrix product takes less time than NumPy's."""


class GRUSequence(torch.autograd.Function):
    """The hidden states of a GRU after each step of a sequence.

    T is the number of steps, n the number of sequences, H the size of the hidden state.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, projected: Tensor, start: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Return the hidden states, (T, n, H).

        Args:
            ctx: the context of autograd.
            projected: inputs times the input weights, plus the input bias, (T, n, 3 H).
            start: hidden states before the first step, (n, H).
            weight: recurrent weights, (H, 3 H).
            bias: recurrent bias, (3 H,).
        """
        steps, count, size = len(projected), *start.shape
        both = 2 * size  # of the gates
        differentiable = any(ctx.needs_input_grad)
        kept = steps if differentiable else 1  # steps of which the parts are kept
        hidden = projected.new_empty(steps + 1, count, size)
        # Reset gate, update gate, and the recurrent part of the new state, which is `new`
        parts, new = projected.new_empty(kept, count, 3 * size), start.new_empty(kept, count, size)
        hidden[0] = start
        bias, weight = bias.detach(), weight.detach()
        x, h, p = (each.detach().numpy() for each in (projected, hidden, parts))
        # The arrays of each step, cut beforehand, as each cut takes a tenth of an operation
        products = Products(weight, count)
        offset = products.of(bias)
        by_step = zip(
            products.each(hidden[:-1]), h[:-1], h[1:], x[..., :both], x[..., both:], strict=True
        )
        by_part = zip(
            products.each(parts),
            parts[..., :both].unbind(),
            p[..., :both],
            p[..., :size],
            p[..., size:both],
            p[..., both:],
            new.numpy(),
            strict=True,
        )
        for step, part in zip(by_step, itertools.cycle(by_part), strict=False):
            hidden_before, before, after, x_gates, x_new = step
            found, sigmoids, gates, reset, update, recurrent, state = part
            products.write(offset, hidden_before, found)
            gates += x_gates
            sigmoids.sigmoid_()
            np.multiply(reset, recurrent, out=state)
            state += x_new
            np.tanh(state, out=state)
            np.subtract(before, state, out=after)
            after *= update
            after += state
        if differentiable:
            ctx.save_for_backward(hidden, parts, new, weight)
        return hidden[1:]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, upstream: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the derivatives with respect to the arguments of `forward`.

        Args:
            ctx: the context of autograd.
            upstream: derivatives with respect to the hidden states, (T, n, H).
        """
        *saved, weight = ctx.saved_tensors
        hidden, parts, new = (each.detach().numpy() for each in saved)
        given, (steps, count, size) = upstream.numpy(), new.shape
        before, (reset, update, recurrent) = hidden[:-1], np.split(parts, 3, axis=-1)
        # Derivatives of the hidden state after a step, (T, n, H): with respect to what tanh and the
        # sigmoids are taken of, and the recurrent part of the new state
        by_new, kept = 1 - new * new, 1 - update
        by_new *= kept
        grads = np.empty((steps, count, 3, size), new.dtype)
        by_reset, by_update, by_recurrent = np.moveaxis(grads, 2, 0)
        np.multiply(by_new, reset, out=by_recurrent)
        np.subtract(1, reset, out=by_reset)
        by_reset *= recurrent
        by_reset *= by_recurrent
        np.subtract(hidden[1:], new, out=by_update)
        by_update *= kept
        # They become those of the loss, from the last step to the first.
        flat = torch.from_numpy(grads.reshape(steps, count, 3 * size))  # a view
        through, past = upstream.new_zeros(2, count, size).unbind()
        carried, direct = through.numpy(), past.numpy()
        products = Products(weight.T.contiguous(), count)
        offset, result = products.of(past), products.of(through)
        by_step = products.each(flat), grads, by_new, update, given
        last_first = (each[::-1] for each in by_step)
        for grad, grad_parts, grad_new, kept_share, upward in zip(*last_first, strict=True):
            carried += upward
            grad_parts *= carried[:, None]
            grad_new *= carried
            np.multiply(carried, kept_share, out=direct)
            products.write(offset, grad, result)
        rows = flat.flatten(0, 1)
        weight_grad = transposed_product(torch.from_numpy(before).flatten(0, 1), rows)
        bias_grad = rows.sum(0)
        # The input of the new state is not multiplied by the reset gate.
        grads[:, :, 2] = by_new
        return flat, through, weight_grad, bias_grad


class Products:
    """Products of n rows with a weight matrix, plus an offset: torch's for few rows, otherwise
    NumPy's. Its matrices are torch's tensors or NumPy's arrays accordingly."""

    def __init__(self, weight: Tensor, num_rows: int) -> None:
        self._by_torch = num_rows <= FEW_ROWS
        self._weight = self.of(weight)

    def of(self, matrix: Tensor) -> Any:
        """Return a tensor as `write` takes it, on the same memory."""
        return matrix if self._by_torch else matrix.numpy()

    def each(self, matrices: Tensor) -> Sequence[Any]:
        """Return the matrices of a tensor of three axes as `write` takes them."""
        return matrices.unbind() if self._by_torch else matrices.numpy()  # pyright: ignore

    def write(self, offset: Any, rows: Any, out: Any) -> None:
        """Write rows @ weight + offset into `out`."""
        if self._by_torch:
            torch.addmm(offset, rows, self._weight, out=out)
        else:
            np.matmul(rows, self._weight, out=out)
            out += offset
