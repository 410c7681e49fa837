"""Adam on a flat vector of parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class VectorAdam:
    """Adam (Kingma and Ba 2015), as a function of a vector and its gradient.

    Its state is there from the beginning, so that a checkpoint always has the same tensors.
    """

    def __init__(self, vector: Tensor, lr: float) -> None:
        self._vector = torch.nn.Parameter(vector.detach().clone())
        self._adam = torch.optim.Adam([self._vector], lr=lr)
        zeros = torch.zeros_like(vector)
        self.load_state_dict({"step": torch.tensor(0.0), "exp_avg": zeros, "exp_avg_sq": zeros})

    def step(self, vector: Tensor, gradient: Tensor) -> Tensor:
        """Return the vector after a step."""
        self._vector.data = vector.detach().clone()
        self._vector.grad = gradient
        self._adam.step()
        return self._vector.detach().clone()

    def state_dict(self) -> dict[str, Tensor]:
        state = self._adam.state[self._vector]
        return {name: state[name].detach().cpu().clone() for name in MOMENTS}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        device = self._vector.device
        moments = {name: state[name].to(device, copy=True) for name in MOMENTS[1:]}
        # A step count on a GPU would have to be fetched at every step.
        self._adam.state[self._vector] = {"step": state["step"].cpu().clone(), **moments}
