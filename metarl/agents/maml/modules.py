"""Modules of torch as functions of stacked parameters, which the inner loop adapts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarl.core.params import Params


def parameters(module: nn.Module) -> Params:
    """Return the parameters of a module by name, for `InnerLoop.init`.

    Parameters without `requires_grad` are included. To exclude parameters from adaptation, use
    `metarl.agents.maml.task_parameters.Head`.
    """
    return {name: value.detach() for name, value in module.named_parameters()}


def batched(module: nn.Module) -> Callable[..., Tensor]:
    """Return a module as a function of stacked parameters and of inputs with a task axis, (B, ...).

    The parameters of the module itself are not used. The module must not change its buffers: batch
    normalisation needs `track_running_stats=False`. `nn.LSTM` and `nn.GRU` are not supported by
    `torch.vmap`. Attention is computed without fused kernels, which have no second derivatives.
    """

    def call(params: Params, *inputs: Tensor) -> Tensor:
        return functional_call(module, params, inputs)

    stacked = vmap(call, randomness="different")

    def batched_call(params: Params, *inputs: Tensor) -> Tensor:
        with differentiable_attention():
            return stacked(params, *inputs)

    return batched_call


@contextlib.contextmanager
def differentiable_attention() -> Iterator[None]:
    """Compute attention by operations that have second derivatives and batching rules.

    The fused kernels of `scaled_dot_product_attention` have none, nor has the fast path that
    `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` take in evaluation mode. Both settings
    are global in torch.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
