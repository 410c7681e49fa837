"""A gated recurrent unit (GRU, Cho et al. 2014) over sequences, with its own derivatives for CPUs.

The equations, their parameters and the order of the gates (reset, update, new) are those of
`torch.nn.GRU`. On a CPU, torch records a dozen operations for each step and differentiates them
one by one; here a step takes one matrix product and few element-wise operations in each direction,
most of them NumPy's, whose tanh is faster than torch's. It has first derivatives only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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
        differentiable = any(ctx.needs_input_grad)
        kept = steps if differentiable else 1  # steps of which the parts are kept
        hidden = projected.new_empty(steps + 1, count, size)
        # Reset gate, update gate, and the recurrent part of the new state, which is `new`
        parts, new = projected.new_empty(kept, count, 3 * size), start.new_empty(kept, count, size)
        hidden[0] = start
        gates = parts[..., : 2 * size].unbind()
        x, w, b = (each.detach().numpy() for each in (projected, weight, bias))
        h, p, candidate = (each.numpy() for each in (hidden, parts, new))
        for t in range(steps):
            k, before, after = t % kept, h[t], h[t + 1]
            product, state = p[k], candidate[k]
            np.matmul(before, w, out=product)
            product += b
            product[:, : 2 * size] += x[t, :, : 2 * size]
            gates[k].sigmoid_()
            np.multiply(product[:, :size], product[:, 2 * size :], out=state)
            state += x[t, :, 2 * size :]
            np.tanh(state, out=state)
            np.subtract(before, state, out=after)
            after *= product[:, size : 2 * size]
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
        hidden, parts, new, weight = (each.detach().numpy() for each in ctx.saved_tensors)
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
        flat = grads.reshape(steps, count, 3 * size)  # a view
        carried, direct = np.zeros_like(new[0]), np.empty_like(new[0])
        transposed = np.ascontiguousarray(weight.T)
        for t in range(steps - 1, -1, -1):
            carried += given[t]
            grads[t] *= carried[:, None]
            by_new[t] *= carried
            np.multiply(carried, update[t], out=direct)
            np.matmul(flat[t], transposed, out=carried)
            carried += direct
        rows = flat.reshape(-1, 3 * size)
        weight_grad, bias_grad = before.reshape(-1, size).T @ rows, rows.sum(axis=0)
        # The input of the new state is not multiplied by the reset gate.
        flat[..., 2 * size :] = by_new
        found = flat, carried, weight_grad, bias_grad
        return tuple(torch.from_numpy(each) for each in found)  # pyright: ignore
