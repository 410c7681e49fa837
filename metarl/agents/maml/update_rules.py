"""Update rules: how the fast parameters of a task follow from their gradient.

All begin as plain gradient descent with the step size `lr`. What a rule learns is meta-parameters,
whose names have a colon.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from metarl.core.params import Params


class UpdateRule(Protocol):
    """An update rule."""

    def init(self, fast_params: Params) -> Params:
        """Return the rule's own meta-parameters, for the fast parameters of one task, unstacked."""
        ...

    def step(
        self,
        meta: Params,
        fast_params: Params,
        optimizer_state: Params,
        gradient: Params,
        loss: Tensor,
        index: int,
    ) -> tuple[Params, Params]:
        """Take one step.

        Args:
            meta: the meta-parameters, unstacked.
            fast_params: of B tasks, stacked (B, ...).
            optimizer_state: as returned by the step before, {} at the first.
            gradient: of each task's loss with respect to its fast parameters.
            loss: (B,).
            index: number of steps taken before.

        Returns:
            The new fast parameters, and the rule's optimizer state.
        """
        ...


class SGD:
    """Gradient descent with a fixed step size, or one that grows with the task's loss.

        x' = x - (lr + loss_scaled_lr * loss) * gradient

    is a step down lr * loss + loss_scaled_lr * loss^2 / 2; the meta-gradient takes the loss for a
    constant.
    The gradient of a distance, as in a reward of -|velocity - goal|, is as large near the goal as
    far from it; that of its square tells how far. No step leads uphill.
    """

    def __init__(self, lr: float, loss_scaled_lr: float = 0.0) -> None:
        self.lr, self.loss_scaled_lr = lr, loss_scaled_lr

    def init(self, fast_params: Params) -> Params:
        return {}

    def step(
        self, meta, fast_params, optimizer_state, gradient, loss, index
    ) -> tuple[Params, Params]:
        if not self.loss_scaled_lr:
            return {name: v - self.lr * gradient[name] for name, v in fast_params.items()}, {}
        size = (self.lr + self.loss_scaled_lr * loss.detach()).clamp(min=0)
        return {n: v - per_task(size, v) * gradient[n] for n, v in fast_params.items()}, {}


class MetaSGD:
    """A learned step size for each number of the fast parameters (Meta-SGD, Li et al. 2017,
    equation 2)."""

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def init(self, fast_params: Params) -> Params:
        return {f"lr:{name}": torch.full_like(v, self.lr) for name, v in fast_params.items()}

    def step(
        self, meta, fast_params, optimizer_state, gradient, loss, index
    ) -> tuple[Params, Params]:
        return {n: v - meta[f"lr:{n}"] * gradient[n] for n, v in fast_params.items()}, {}


class PerLayerPerStepLR:
    """A learned step size for each tensor of the fast parameters at each step (LSLR of MAML++,
    Antoniou et al. 2019, section 4).

    Steps beyond `num_steps` use the step size of the last one.
    """

    def __init__(self, lr: float, num_steps: int) -> None:
        self.lr, self.num_steps = lr, num_steps

    def init(self, fast_params: Params) -> Params:
        return {
            f"lr:{name}": v.new_full((self.num_steps, *(1 for _ in v.shape)), self.lr)
            for name, v in fast_params.items()
        }

    def step(
        self, meta, fast_params, optimizer_state, gradient, loss, index
    ) -> tuple[Params, Params]:
        row = min(index, self.num_steps - 1)
        return {n: v - meta[f"lr:{n}"][row] * gradient[n] for n, v in fast_params.items()}, {}


def per_task(value: Tensor, param: Tensor) -> Tensor:
    """Shape one number per task, (B,), for broadcasting against a stacked parameter, (B, ...)."""
    return value.view(-1, *(1 for _ in param.shape[1:]))


FORGET_BIAS = 4.0  # the forget gate starts near its upper end, where little is forgotten
PREPROCESS = 10.0  # p of Andrychowicz et al. 2016, appendix A


class MetaLSTM:
    """A learned rule with gates, the same for every number x of the fast parameters (Ravi and
    Larochelle 2017, equation 2):

        x' = f * x - i * gradient,
        i = sigmoid(w_i . [gradient, loss, x, i of the step before] + b_i), and f alike.

    Gradient and loss enter the gates preprocessed, as two numbers each, and as constants: no
    meta-gradient passes through them there. The paper puts an ordinary LSTM before the gates; here
    the gates see the inputs themselves. Weights are 0 at first: then i = lr and f = 1.
    """

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def init(self, fast_params: Params) -> Params:
        like = next(iter(fast_params.values()))
        logit = math.log(self.lr / (1 - self.lr))
        return {
            "gates:input.weight": like.new_zeros(6),
            "gates:input.bias": like.new_full((), logit),
            "gates:forget.weight": like.new_zeros(6),
            "gates:forget.bias": like.new_full((), FORGET_BIAS),
        }

    def step(
        self, meta, fast_params, optimizer_state, gradient, loss, index
    ) -> tuple[Params, Params]:
        one = torch.sigmoid(torch.tensor(FORGET_BIAS, dtype=loss.dtype, device=loss.device))
        stepped: Params = {}
        gates: Params = {}
        for name, v in fast_params.items():
            own = [*preprocess(gradient[name].detach()), v]
            shared = preprocess(per_task(loss.detach(), v))

            def gate(kind: str, before: Tensor | float, own=own, shared=shared) -> Tensor:
                weight = meta[f"gates:{kind}.weight"]
                terms = zip(weight, [*own, *shared, before], strict=True)
                return torch.sigmoid(sum(w * x for w, x in terms) + meta[f"gates:{kind}.bias"])

            i = gate("input", optimizer_state.get(f"input.{name}", self.lr))
            f = gate("forget", optimizer_state.get(f"forget.{name}", 1.0)) / one
            stepped[name] = f * v - i * gradient[name]
            gates |= {f"input.{name}": i, f"forget.{name}": f}
        return stepped, gates


def preprocess(x: Tensor) -> tuple[Tensor, Tensor]:
    """Make magnitude and sign of numbers of all sizes inputs of about 1 (Andrychowicz et al. 2016).

    (log|x| / p, sign x) where |x| >= e^-p, and (-1, e^p x) below.
    """
    large = x.abs() >= math.exp(-PREPROCESS)
    magnitude = x.abs().clamp(min=math.exp(-PREPROCESS)).log() / PREPROCESS
    return magnitude, torch.where(large, x.sign(), math.exp(PREPROCESS) * x)
