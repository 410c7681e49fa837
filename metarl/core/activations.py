"""Nonlinearities of hidden layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


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
