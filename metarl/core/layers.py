"""Layers of multilayer perceptrons (MLPs): matrix product, nonlinearity and initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FEW_COLUMNS = 16  # narrower weight matrices are padded to this width on a CPU


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x @ weight + bias, (B, N, out), of stacked layers.

    Args:
        x: (B, N, in).
        weight: (B, in, out).
        bias: (B, 1, out).
    """
    out = weight.shape[-1]
    if x.device.type == "cpu" and out < FEW_COLUMNS:
        # The matrix products of CPUs take five times longer for 6 columns than for 16.
        padding = (0, FEW_COLUMNS - out)
        wide = torch.baddbmm(F.pad(bias, padding), x, F.pad(weight, padding))
        return wide[..., :out]
    return torch.baddbmm(bias, x, weight)


def tanh(x: Tensor) -> Tensor:
    """Return tanh(x), with derivatives of all orders."""
    return NumPyTanh.apply(x) if x.device.type == "cpu" else torch.tanh(x)


class NumPyTanh(torch.autograd.Function):
    """tanh on a CPU by NumPy, which takes a tenth of torch's time (docs/performance.md)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y = torch.empty_like(x)
        np.tanh(x.detach().numpy(), out=y.numpy())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(upstream, y)  # differentiable itself


def glorot(rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
    """Draw a uniform weight matrix, (fan_in, fan_out) (Glorot and Bengio 2010, equation 16)."""
    bound = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, (fan_in, fan_out))


def orthogonal(rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
    """Draw a matrix, (fan_in, fan_out), uniformly among the semi-orthogonal matrices (Saxe et al.
    2014): its columns are orthonormal, or its rows where fan_in < fan_out."""
    tall = rng.standard_normal((max(fan_in, fan_out), min(fan_in, fan_out)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))  # without the signs, q is not uniformly distributed
    return q if fan_in >= fan_out else q.T


INITIALISATIONS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "glorot": glorot,
    "orthogonal": orthogonal,
}
