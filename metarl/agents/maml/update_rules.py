"""Update rules: the step of the inner loop from fast parameters and their gradient.

All rules are initially gradient descent with step size `lr`. The learned parameters of a rule are
meta-parameters, whose names contain a colon.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from metarl.core.errors import check
from metarl.core.params import Params


class UpdateRule(Protocol):
    """The update rule of the inner loop."""

    def init(self, fast_params: Params) -> Params:
        """Return the meta-parameters of the rule, for unstacked fast parameters (...)."""
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
            fast_params: the fast parameters of B tasks, stacked (B, ...).
            optimizer_state: the optimiser state after the previous step; {} at the first step.
            gradient: the gradient of the losses with respect to the fast parameters, (B, ...).
            loss: the losses of the tasks, (B,).
            index: number of earlier steps.

        Returns:
            The new fast parameters and the new optimiser state, stacked (B, ...).
        """
        ...


class SGD:
    """Gradient descent with a fixed step size, or with a step size that increases with the loss.

        x' = x - (lr + loss_scaled_lr * loss) * gradient

    With `loss_scaled_lr` 0 this is the inner step of MAML (Finn et al. 2017, algorithm 1, line 6).
    Otherwise it is a gradient step on lr * loss + loss_scaled_lr * loss^2 / 2, where the
    meta-gradient treats the factor as a constant. The gradient of a distance, as in the reward
    -|velocity - goal|, does not depend on the distance; the gradient of the squared distance is
    proportional to it. Step sizes are never negative.
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
        size = (self.lr + self.loss_scaled_lr * loss.detach()).clamp(min=0)  # (B,)
        return {n: v - per_task(size, v) * gradient[n] for n, v in fast_params.items()}, {}


class MetaSGD:
    """A learned step size for each element of the fast parameters (Meta-SGD, Li et al. 2017,
    equation 2): x' = x - alpha * gradient, elementwise."""

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def init(self, fast_params: Params) -> Params:
        return {f"lr:{name}": torch.full_like(v, self.lr) for name, v in fast_params.items()}

    def step(
        self, meta, fast_params, optimizer_state, gradient, loss, index
    ) -> tuple[Params, Params]:
        return {n: v - meta[f"lr:{n}"] * gradient[n] for n, v in fast_params.items()}, {}


class PerLayerPerStepLR:
    """A learned step size for each tensor of the fast parameters and each step (LSLR of MAML++,
    Antoniou et al. 2019, section 4): x' = x - alpha[step] * gradient.

    Steps after the first `num_steps` use the step sizes of step `num_steps`.
    """

    def __init__(self, lr: float, num_steps: int) -> None:
        check(num_steps > 0, "num_steps", "at least 1", num_steps)
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
    """Return one number per task, (B,), as (B, 1, ...), to broadcast with `param` (B, ...)."""
    return value.view(-1, *(1 for _ in param.shape[1:]))


FORGET_BIAS = 4.0  # initial logit of the forget gate, which is then close to 1
PREPROCESS = 10.0  # p of Andrychowicz et al. 2016, appendix A


class MetaLSTM:
    """A learned rule with gates that all elements x of the fast parameters share (Meta-LSTM, Ravi
    and Larochelle 2017, equation 2, with the candidate value -gradient):

        x' = f * x - i * gradient,
        i = sigmoid(w_i . [gradient, loss, x, previous i] + b_i),
        f = sigmoid(w_f . [gradient, loss, x, previous f] + b_f) / sigmoid(FORGET_BIAS).

    Gradient and loss are preprocessed to two inputs each. As inputs of the gates they are constants
    for the meta-gradient (the gradient independence assumption of the paper). The paper has an LSTM
    layer between inputs and gates, which is left out here. Initially all weights are 0, and
    therefore i = lr and f = 1.
    """

    def __init__(self, lr: float) -> None:
        check(0 < lr < 1, "lr", "between 0 and 1, as it is the value of a gate", lr)
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
        initial_f = torch.sigmoid(loss.new_full((), FORGET_BIAS))
        stepped: Params = {}
        gates: Params = {}
        for name, v in fast_params.items():
            by_element = [*preprocess(gradient[name].detach()), v]  # (B, ...) each
            by_task = preprocess(per_task(loss.detach(), v))  # (B, 1, ...) each

            def gate(
                kind: str, previous: Tensor | float, by_element=by_element, by_task=by_task
            ) -> Tensor:
                weight = meta[f"gates:{kind}.weight"]
                terms = zip(weight, [*by_element, *by_task, previous], strict=True)
                return torch.sigmoid(sum(w * x for w, x in terms) + meta[f"gates:{kind}.bias"])

            i = gate("input", optimizer_state.get(f"input.{name}", self.lr))
            f = gate("forget", optimizer_state.get(f"forget.{name}", 1.0)) / initial_f
            # Equation 2: c_t = f_t * c_{t-1} + i_t * (-gradient)
            stepped[name] = f * v - i * gradient[name]
            gates |= {f"input.{name}": i, f"forget.{name}": f}
        return stepped, gates


def preprocess(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return magnitude and sign of x as two inputs in about [-1, 1], shaped like x (Andrychowicz et
    al. 2016, appendix A): (log|x| / p, sign x) if |x| >= e^-p, else (-1, e^p x)."""
    large = x.abs() >= math.exp(-PREPROCESS)
    magnitude = x.abs().clamp(min=math.exp(-PREPROCESS)).log() / PREPROCESS
    return magnitude, torch.where(large, x.sign(), math.exp(PREPROCESS) * x)
