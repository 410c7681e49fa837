"""The inner loop: gradient steps on the fast parameters of each task, from meta-parameters.

It knows no policies: a loss is any function of a model's stacked parameters. The tasks of a stack
do not touch each other, so the gradient of the sum of their losses is the stack of their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metarl.agents.maml.task_parameters import (
    AllParameters,
    TaskParameters,
)
from metarl.agents.maml.update_rules import UpdateRule
from metarl.core.params import Params

Loss: TypeAlias = Callable[[Params], Tensor]
"""The losses (B,) of tasks at a model's stacked parameters."""


@dataclass(frozen=True)
class InnerState:
    """The state of the adaptation to B tasks.

    Attributes:
        fast_params: the parameters that adapt, stacked (B, ...).
        optimizer_state: of the update rule, stacked (B, ...).
        step: number of steps taken.
    """

    fast_params: Params
    optimizer_state: Params = field(default_factory=dict)
    step: int = 0

    @property
    def num_tasks(self) -> int:
        return len(next(iter(self.fast_params.values())))

    def of_tasks(self, indices: Tensor) -> InnerState:
        """Return the states of the tasks with these numbers, (n,)."""
        fast_params, optimizer_state = (
            {name: value[indices] for name, value in params.items()}
            for params in (self.fast_params, self.optimizer_state)
        )
        return InnerState(fast_params, optimizer_state, self.step)


class InnerLoop:
    """Adaptation: which parameters adapt, by which rule, and how far the meta-gradient sees it."""

    def __init__(
        self,
        rule: UpdateRule,
        task_parameters: TaskParameters | None = None,
        *,
        first_order: bool = False,
    ) -> None:
        """Put an inner loop together.

        Args:
            rule: how the fast parameters follow from their gradient.
            task_parameters: which parameters adapt; all of them by default.
            first_order: whether meta-gradients treat the inner gradients as constants.
        """
        self.rule = rule
        self.task_parameters = task_parameters or AllParameters()
        self.first_order = first_order

    def init(self, params: Params, rng: np.random.Generator | None = None) -> Params:
        """Return the meta-parameters: a model's, and those of the task parameters and the rule.

        Args:
            params: of the model, unstacked.
            rng: for the initial values of the task parameters; a fixed one by default.
        """
        rng = rng or np.random.default_rng(0)
        meta = {**params, **self.task_parameters.init_meta(params, rng)}
        fast_params = {n: value[0] for n, value in self.task_parameters.init(meta, 1).items()}
        meta = {**meta, **self.rule.init(fast_params)}
        return {name: value.detach().clone() for name, value in meta.items()}

    def init_state(self, meta: Params, num_tasks: int) -> InnerState:
        """Return the state of B tasks before adaptation."""
        return InnerState(self.task_parameters.init(meta, num_tasks))

    def to_model_params(self, meta: Params, state: InnerState) -> Params:
        """Return the model's parameters of each task, stacked (B, ...)."""
        return self.task_parameters.to_model_params(meta, state.fast_params)

    def step(
        self,
        meta: Params,
        state: InnerState,
        loss: Loss,
        *,
        rule_loss: Tensor | None = None,
        differentiable: bool = False,
        scale: float = 1.0,
    ) -> InnerState:
        """Take one step down each task's loss (Finn et al. 2017, algorithm 1, line 6).

        Args:
            meta: the meta-parameters, unstacked.
            state: of B tasks; unchanged.
            loss: of the stacked parameters.
            rule_loss: the loss values given to the update rule, (B,); those of `loss` by default.
            differentiable: keep the graph, so that the result can be differentiated with respect
                to the meta-parameters.
            scale: factor on the step.

        Raises:
            ValueError: if the loss is not one number per task.
        """
        with torch.enable_grad():
            fast_params = {
                # A context of zeros, say, is in no graph.
                name: v if differentiable and v.requires_grad else v.detach().requires_grad_()
                for name, v in state.fast_params.items()
            }
            losses = loss(self.task_parameters.to_model_params(meta, fast_params))
            if losses.shape != (state.num_tasks,):
                raise ValueError(
                    f"a loss returns one number per task, ({state.num_tasks},), not "
                    f"{tuple(losses.shape)}: do not average over the tasks"
                )
            gradients = torch.autograd.grad(
                losses.sum(),
                list(fast_params.values()),
                create_graph=differentiable and not self.first_order,
                materialize_grads=True,
            )
        with torch.set_grad_enabled(differentiable):
            gradient = dict(zip(fast_params, gradients, strict=True))
            stepped, optimizer_state = self.rule.step(
                meta,
                fast_params,
                state.optimizer_state,
                gradient,
                # Rounded as a correction of the surrogate's loss, as it always was.
                losses if rule_loss is None else losses + (rule_loss - losses).detach(),
                state.step,
            )
            if scale != 1:
                stepped = {n: v + scale * (stepped[n] - v) for n, v in fast_params.items()}
        return InnerState(stepped, optimizer_state, state.step + 1)

    def adapt(
        self,
        meta: Params,
        losses: Sequence[Loss],
        num_tasks: int,
        *,
        differentiable: bool = False,
    ) -> InnerState:
        """Take one step per loss, from the meta-parameters."""
        return self.trajectory(meta, losses, num_tasks, differentiable=differentiable)[-1]

    def trajectory(
        self,
        meta: Params,
        losses: Sequence[Loss],
        num_tasks: int,
        *,
        rule_losses: Sequence[Tensor | None] | None = None,
        differentiable: bool = False,
    ) -> list[InnerState]:
        """Return the states before, between and after the steps, one more than there are losses."""
        states = [self.init_state(meta, num_tasks)]
        for loss, rule_loss in zip(losses, rule_losses or [None] * len(losses), strict=True):
            states.append(
                self.step(
                    meta, states[-1], loss, rule_loss=rule_loss, differentiable=differentiable
                )
            )
        return states


def parameters(module: nn.Module) -> Params:
    """Return a module's parameters by name, as `InnerLoop.init` takes them.

    Those without `requires_grad` are among them: to keep some fixed, let only a `Head` adapt.
    """
    return {name: value.detach() for name, value in module.named_parameters()}


def batched(module: nn.Module) -> Callable[..., Tensor]:
    """Return a module as a function of stacked parameters and of inputs with a task axis, (B, ...).

    The module's own parameters are not used. Buffers must not change when the module is called:
    give batch normalisation `track_running_stats=False`. `nn.LSTM` and `nn.GRU` cannot be batched.
    """

    def call(params: Params, *inputs: Tensor) -> Tensor:
        return functional_call(module, params, inputs)

    return vmap(call, randomness="different")
