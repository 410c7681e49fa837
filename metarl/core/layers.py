"""Layers of multilayer perceptrons (MLPs): matrix product, nonlinearity and initial weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metarl.core.errors import check

FEW_COLUMNS = 16  # narrower weight matrices are padded to this width on a CPU
MIN_ROWS = 2000
"""Products of matrices with fewer rows are left to torch, which takes less time for each call,
above all where second derivatives are needed."""
MIN_PRODUCTS = 2_000_000
"""Multiplications of a product from which on oneDNN is faster where they are not."""
MAX_WEIGHTS = 10**7
"""Number of weights that the layers of an agent have at most, or those of one of its models."""


def check_num_weights(parts: Mapping[str, tuple[int, Any]]) -> None:
    """Check that layers do not have more weights than `MAX_WEIGHTS` together.

    Args:
        parts: the number of weights and the configured sizes, by the key of the sizes.

    Raises:
        ConfigError: if they have; names the key with the most weights.
    """
    key = max(parts, key=lambda each: parts[each][0])
    fits = sum(number for number, _ in parts.values()) <= MAX_WEIGHTS
    check(fits, key, f"layers of at most {MAX_WEIGHTS:,} weights together", parts[key][1])


def linear(
    x: Tensor, weight: Tensor, bias: Tensor, *, relu: bool = False, min_rows: int = MIN_ROWS
) -> Tensor:
    """Return x @ weight + bias, (B, N, out), of stacked layers, or its positive part.

    Args:
        x: (B, N, in).
        weight: (B, in, out).
        bias: (B, 1, out).
        relu: whether negative values become 0.
        min_rows: smallest N at which oneDNN multiplies, on a CPU.
    """
    on_cpu, out = x.device.type == "cpu", weight.shape[-1]
    if may_use_onednn(x) and x.shape[1] >= min_rows:
        return OneDNNLayer.apply(x, weight, bias, relu)
    if on_cpu and out < FEW_COLUMNS:
        # The matrix products of CPUs take five times longer for 6 columns than for 16.
        padding = (0, FEW_COLUMNS - out)
        y = torch.baddbmm(F.pad(bias, padding), x, F.pad(weight, padding))[..., :out]
    else:
        y = torch.baddbmm(bias, x, weight)
    return torch.relu(y) if relu else y


def dense(x: Tensor, weight: Tensor, bias: Tensor, *, relu: bool = False) -> Tensor:
    """Return x @ weight + bias, (n, out), or its positive part: `linear` where the gradient is not
    differentiated again, for which oneDNN pays from fewer rows on.

    Args:
        x: (n, in).
        weight: (in, out).
        bias: (out,).
        relu: whether negative values become 0.
    """
    if weight.shape[1] < FEW_COLUMNS:
        # The matrix products of CPUs, those of the derivatives too, take a third of the time for
        # 6 rows that they take for 6 columns.
        y = (weight.T.contiguous() @ x.T + bias[:, None]).T
        return torch.relu(y) if relu else y
    few = len(x) if len(x) * weight.numel() >= MIN_PRODUCTS else MIN_ROWS
    return linear(x[None], weight[None], bias[None, None], relu=relu, min_rows=few)[0]


@functools.cache
def has_onednn() -> bool:
    """Return whether torch has oneDNN's product of dense float32 matrices."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def may_use_onednn(x: Tensor) -> bool:
    """Return whether oneDNN can multiply a tensor: float32, on a CPU."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and has_onednn()


def onednn_product(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    """Return x @ weight + bias, or its positive part, of stacked float32 matrices on a CPU.

    torch's own products are MKL's, which leaves half of the speed of an AMD CPU with AVX-512
    unused (docs/performance_history.md).

    Args:
        x: (B, n, in).
        weight: (B, in, out).
        bias: (B, 1, out); 0 by default.
        relu: whether negative values become 0.
    """
    call, activation = torch.ops.mkldnn._linear_pointwise.default, "relu" if relu else "none"
    biases = [None] * len(x) if bias is None else bias[:, 0]
    # A transposed x is copied. If x^T has fewer columns, this is the smaller copy.
    if x.stride(-1) != 1 and bias is None and weight.shape[-1] < x.shape[-2]:
        return onednn_product(weight.mT, x.mT).mT
    each = zip(x, weight, biases, strict=True)
    products = [call(a, w.T, b, activation, [], "") for a, w, b in each]
    return products[0][None] if len(products) == 1 else torch.stack(products)


class OneDNNLayer(torch.autograd.Function):
    """`onednn_product` with derivatives of all orders."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y = onednn_product(x, weight, bias, relu=relu)
        ctx.save_for_backward(x, weight, y if relu else None)
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, y = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        if y is not None:
            # Detached: the slope is constant almost everywhere, so its derivative is not computed.
            upstream = torch.ops.aten.threshold_backward(upstream, y.detach(), 0)
        by_x = by_weight = None
        if needs_x:
            # In the memory layout of x, so that sums of gradients are fast
            rows = x.stride(-1) == 1
            by_x = times(upstream, weight.mT) if rows else times(weight, upstream.mT).mT
        if needs_weight:
            by_weight = times(x.mT, upstream)
        return by_x, by_weight, upstream.sum(1, keepdim=True) if needs_bias else None, None


def times(x: Tensor, weight: Tensor) -> Tensor:
    """Return x @ weight by `onednn_product`, in the autograd graph if there is one."""
    if not torch.is_grad_enabled():
        return onednn_product(x, weight)
    return OneDNNLayer.apply(x, weight, None, False)


def tanh(x: Tensor) -> Tensor:
    """Return tanh(x), with derivatives of all orders."""
    return NumPyTanh.apply(x) if x.device.type == "cpu" else torch.tanh(x)


class NumPyTanh(torch.autograd.Function):
    """tanh on a CPU by NumPy, which takes a tenth of torch's time (docs/performance_history.md)."""

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
