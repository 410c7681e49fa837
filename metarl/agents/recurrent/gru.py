"""A gated recurrent unit (GRU, Cho et al. 2014) over sequences, with its own derivatives for CPUs.

The equations, their parameters and the order of the gates (reset, update, new) are those of
`torch.nn.GRU`. On a CPU, torch records a dozen operations for each step and differentiates them
one by one; here a step takes one matrix product and few element-wise operations in each direction.
Both are NumPy's: on AMD's CPUs with AVX-512 its products of few rows take half of torch's time, and
its tanh takes a tenth anywhere. It has first derivatives only.
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
    @np.errstate(over="ignore", invalid="ignore")  # gradients that are not finite are refused
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
        hidden = projected.new_empty(steps + 1, count, size)
        # What the gates are taken of, and the recurrent part of the new state, without their
        # products with the hidden state; then the gates, and that part; and the new state
        parts, new = torch.empty_like(projected), projected.new_empty(steps, count, size)
        hidden[0] = start
        bias, weight = bias.detach(), weight.detach()
        torch.add(projected[..., :both], bias[:both], out=parts[..., :both])
        parts[..., both:] = bias[both:]
        x, h, p, w = (each.detach().numpy() for each in (projected, hidden, parts, weight))
        product = np.empty((count, 3 * size), p.dtype)
        # The arrays of each step, cut beforehand, as each cut takes a tenth of an operation
        by_step = zip(
            h[:-1],
            h[1:],
            x[..., both:],
            p,
            parts[..., :both].unbind(),
            p[..., :size],
            p[..., size:both],
            p[..., both:],
            new.numpy(),
            strict=True,
        )
        for before, after, x_new, part, gates, reset, update, recurrent, state in by_step:
            np.matmul(before, w, out=product)
            part += product
            gates.sigmoid_()
            np.multiply(reset, recurrent, out=state)
            state += x_new
            np.tanh(state, out=state)
            np.subtract(before, state, out=after)
            after *= update
            after += state
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(hidden, parts, new, weight)
        return hidden[1:]

    @staticmethod
    @once_differentiable
    @np.errstate(over="ignore", invalid="ignore")  # gradients that are not finite are refused
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
        flat = grads.reshape(steps, count, 3 * size)  # a view
        carried, direct = np.zeros((2, count, size), new.dtype)
        backwards = np.ascontiguousarray(weight.numpy().T)
        by_step = flat, grads, by_new, update, given
        last_first = (each[::-1] for each in by_step)
        for grad, grad_parts, grad_new, kept_share, upward in zip(*last_first, strict=True):
            carried += upward
            grad_parts *= carried[:, None]
            grad_new *= carried
            np.multiply(carried, kept_share, out=direct)
            np.matmul(grad, backwards, out=carried)
            carried += direct
        rows = flat.reshape(steps * count, 3 * size)
        weight_grad = before.reshape(len(rows), size).T @ rows
        bias_grad = rows.sum(0)
        # The input of the new state is not multiplied by the reset gate.
        grads[:, :, 2] = by_new
        tensor = torch.from_numpy
        return tensor(flat), tensor(carried), tensor(weight_grad), tensor(bias_grad)
