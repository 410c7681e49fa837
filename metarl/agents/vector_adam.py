"""Adam on a vector of parameters, the gradients it is given, and its part of an agent's state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam

from metarl.agents.base import AgentState
from metarl.core.params import Params, as_views
from metarl.rollout.failures import NotFinite

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class VectorAdam:
    """Adam (Kingma and Ba 2015, algorithm 1), as a function of a vector and its gradient.

    The state is created at construction, so that all checkpoints have the same tensors. This calls
    the function of torch's optimiser: its class would import torch's compiler, which takes seconds
    at the start of every command.
    """

    def __init__(self, vector: Tensor, lr: float) -> None:
        """Set up for vectors like `vector`, (P,), with step size `lr`."""
        zeros = torch.zeros_like(vector)
        self._lr, self._device = lr, vector.device
        self.load_state_dict({"step": torch.tensor(0.0), "exp_avg": zeros, "exp_avg_sq": zeros})

    @property
    def num_steps(self) -> int:
        """Return the number of steps so far."""
        return int(self._state["step"])

    @torch.no_grad()
    def step(self, vector: Tensor, gradient: Tensor, lr: float | None = None) -> Tensor:
        """Return the vector, (P,), after one step with its gradient, (P,).

        Args:
            vector: the vector.
            gradient: the gradient.
            lr: the step size from now on; None leaves it as it is.
        """
        if lr is not None:
            self._lr = lr
        new = vector.detach().clone()
        mean, square, step = (self._state[name] for name in ("exp_avg", "exp_avg_sq", "step"))
        adam(
            [new],
            [gradient],
            [mean],
            [square],
            [],
            [step],
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=min(self._lr, 1e37),  # torch divides it by 0.1, and refuses what is not finite then
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        return new

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.cpu().clone() for name, value in self._state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        # The step count stays on the CPU: on a GPU, every step would synchronise to read it.
        devices = {
            name: torch.device("cpu") if name == "step" else self._device for name in MOMENTS
        }
        self._state = {name: state[name].to(devices[name], copy=True) for name in MOMENTS}


def clipped(gradient: Tensor, max_norm: float) -> tuple[Tensor, Tensor]:
    """Return a gradient, (P,), scaled down to a norm if its own is larger, and its own norm, ();
    without numbers if its own is not finite."""
    norm = gradient.norm()
    return gradient * (max_norm / norm).clamp(max=1.0), norm


def mean_norm(norms: Sequence[Tensor], what: str) -> float:
    """Return the mean of the norms, each (), of the gradients of all steps of an update.

    They are checked here together: the CPU would wait for a GPU at each check.

    Args:
        norms: the norms.
        what: name of the gradient in the error message.

    Raises:
        NotFinite: if a norm is not finite.
    """
    mean = float(torch.stack([*norms]).mean())
    if not math.isfinite(mean):
        raise NotFinite(what)
    return mean


class Optimiser(Protocol):
    """One optimiser, or several that are stored together."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


def optimised_state(params: str, adam: str, values: Params, optimiser: Optimiser) -> AgentState:
    """Return parameters, named `PARAMS.name`, and the state of their optimiser, `ADAM.name`, as a
    copy on the CPU."""
    state: AgentState = {f"{params}.{name}": value.cpu().clone() for name, value in values.items()}
    return state | {f"{adam}.{name}": value for name, value in optimiser.state_dict().items()}


def load_optimised(
    params: str,
    adam: str,
    state: Mapping[str, Tensor | float | int],
    like: Params,
    optimiser: Optimiser,
) -> Params:
    """Return a copy of the parameters in a state of `optimised_state`, and load the optimiser.

    Args:
        params, adam: beginnings of the names.
        state: the state.
        like: parameters with the names and the device of those returned.
        optimiser: the optimiser.
    """
    tensors = {name: torch.as_tensor(value) for name, value in state.items()}
    names = optimiser.state_dict()
    optimiser.load_state_dict({name: tensors[f"{adam}.{name}"] for name in names})
    found = {name: tensors[f"{params}.{name}"].to(old.device) for name, old in like.items()}
    return as_views(found)
