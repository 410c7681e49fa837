"""An update rule of your own: gradient descent with momentum, whose strength is learned.

metarl train point_nav/maml_trpo --agent.inner.rule examples.momentum:Momentum --inner-steps 2
"""

from __future__ import annotations

from torch import Tensor

from metarl.core.params import Params


class Momentum:
    """x' = x - lr * m with m = gradient + strength * m of the last step; strength is 0 at first."""

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def init(self, fast_params: Params) -> Params:
        """Return the rule's meta-parameters: one strength for each tensor."""
        return {f"momentum:{name}": value.new_zeros(()) for name, value in fast_params.items()}

    def step(
        self,
        meta: Params,
        fast_params: Params,
        optimizer_state: Params,
        gradient: Params,
        loss: Tensor,
        index: int,
    ) -> tuple[Params, Params]:
        """Take one step; the optimiser state is m."""
        momentum = {
            name: gradient[name] + meta[f"momentum:{name}"] * optimizer_state[name]
            if optimizer_state
            else gradient[name]
            for name in fast_params
        }
        stepped = {name: value - self.lr * momentum[name] for name, value in fast_params.items()}
        return stepped, momentum
