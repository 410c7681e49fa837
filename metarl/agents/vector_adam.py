"""Adam on a vector of parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class VectorAdam:
    """Adam (Kingma and Ba 2015, algorithm 1), as a function of a vector and its gradient.

    The state is created at construction, so that all checkpoints have the same tensors.
    """

    def __init__(self, vector: Tensor, lr: float) -> None:
        """Set up for vectors like `vector`, (P,), with step size `lr`."""
        self._vector = torch.nn.Parameter(vector.detach().clone())
        self._adam = torch.optim.Adam([self._vector], lr=lr)
        zeros = torch.zeros_like(vector)
        self.load_state_dict({"step": torch.tensor(0.0), "exp_avg": zeros, "exp_avg_sq": zeros})

    def step(self, vector: Tensor, gradient: Tensor, lr: float | None = None) -> Tensor:
        """Return the vector, (P,), after one step with its gradient, (P,).

        Args:
            vector: the vector.
            gradient: the gradient.
            lr: the step size from now on; None leaves it as it is.
        """
        if lr is not None:
            self._adam.param_groups[0]["lr"] = lr
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
        # The step count stays on the CPU: on a GPU, every step would synchronise to read it.
        self._adam.state[self._vector] = {"step": state["step"].cpu().clone(), **moments}
