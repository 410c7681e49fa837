"""The inner loop: gradient steps on the variables of each task of a stack, from meta-parameters.

It knows no policies: a loss is any function of a model's stacked parameters. The tasks of a stack
do not touch each other, so the gradient of the sum of their losses is the stack of their gradients.

    model = torch.nn.Sequential(nn.Linear(2, 40), nn.ReLU(), nn.Linear(40, 1))
    forward = batched(model)
    inner = InnerLoop(rule=SGD(lr=0.01))
    meta = leaves(inner.init(parameters(model)))

    loss = lambda params: (forward(params, x) - y).square().mean((1, 2))  # (B,)
    task = inner.adapt(meta, [loss] * 5, num_tasks=len(x), differentiable=True)
    prediction = forward(inner.params(meta, task), new_x)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metarl.agents.maml.task_parameters import AllParameters, Context, Head, Latent, Space
from metarl.agents.maml.update_rules import SGD, LayerStepSizes, MetaLSTM, MetaSGD, Rule
from metarl.core.params import Params, leaves

__all__ = [
    "SGD",
    "AllParameters",
    "Context",
    "Head",
    "InnerLoop",
    "Latent",
    "LayerStepSizes",
    "Loss",
    "MetaLSTM",
    "MetaSGD",
    "Params",
    "TaskState",
    "batched",
    "leaves",
    "parameters",
]

Loss: TypeAlias = Callable[[Params], Tensor]
"""The losses (B,) of tasks at a model's stacked parameters."""


@dataclass(frozen=True)
class TaskState:
    """Where the adaptation to B tasks stands.

    Attributes:
        variables: what adapts, stacked (B, ...).
        memory: what the rule remembers, stacked (B, ...).
        steps: how many steps were taken.
    """

    variables: Params
    memory: Params = field(default_factory=dict)
    steps: int = 0

    @property
    def num_tasks(self) -> int:
        return len(next(iter(self.variables.values())))

    def of_tasks(self, indices: Tensor) -> TaskState:
        """Return the states of the tasks with these numbers."""
        variables, memory = (
            {name: value[indices] for name, value in each.items()}
            for each in (self.variables, self.memory)
        )
        return TaskState(variables, memory, self.steps)


class InnerLoop:
    """Adaptation: what adapts (a space), by which rule, and how far the meta-gradient sees it."""

    def __init__(
        self, rule: Rule, space: Space | None = None, *, first_order: bool = False
    ) -> None:
        """Put an inner loop together.

        Args:
            rule: how the variables follow from their gradient.
            space: what adapts; all parameters by default.
            first_order: whether meta-gradients take the inner gradients for constants.
        """
        self.rule = rule
        self.space = space or AllParameters()
        self.first_order = first_order

    def init(self, params: Params, rng: np.random.Generator | None = None) -> Params:
        """Return the meta-parameters: a model's parameters, and what space and rule add to them.

        Args:
            params: of the model, unstacked.
            rng: for the space's initial values; a fixed one by default.
        """
        meta = {**params, **self.space.init(params, rng or np.random.default_rng(0))}
        variables = {name: value[0] for name, value in self.space.start(meta, 1).items()}
        own = {**meta, **self.rule.init(variables)}
        return {name: value.detach().clone() for name, value in own.items()}

    def start(self, meta: Params, num_tasks: int) -> TaskState:
        """Return the state of tasks of which nothing has been seen."""
        return TaskState(self.space.start(meta, num_tasks))

    def params(self, meta: Params, task: TaskState) -> Params:
        """Return the model's parameters of each task, stacked (B, ...)."""
        return self.space.decode(meta, task.variables)

    def step(
        self,
        meta: Params,
        task: TaskState,
        loss: Loss,
        *,
        differentiable: bool = False,
        scale: float = 1.0,
    ) -> TaskState:
        """Take one step down each task's loss (Finn et al. 2017, equation 1).

        Args:
            meta: the meta-parameters, unstacked.
            task: the state of B tasks; unchanged.
            loss: of the stacked parameters.
            differentiable: keep the graph, so that the result can be differentiated with respect
                to the meta-parameters.
            scale: factor on the step.

        Raises:
            ValueError: if the loss is not one number per task.
        """
        with torch.enable_grad():
            variables = {
                # A context of zeros, say, is in no graph.
                name: v if differentiable and v.requires_grad else v.detach().requires_grad_()
                for name, v in task.variables.items()
            }
            losses = loss(self.space.decode(meta, variables))
            if losses.shape != (task.num_tasks,):
                raise ValueError(
                    f"a loss returns one number per task, ({task.num_tasks},), not "
                    f"{tuple(losses.shape)}: do not average over the tasks"
                )
            gradients = torch.autograd.grad(
                losses.sum(),
                list(variables.values()),
                create_graph=differentiable and not self.first_order,
                materialize_grads=True,
            )
        with torch.set_grad_enabled(differentiable):
            gradient = dict(zip(variables, gradients, strict=True))
            stepped, memory = self.rule.step(
                meta, variables, task.memory, gradient, losses, task.steps
            )
            if scale != 1:
                stepped = {n: v + scale * (stepped[n] - v) for n, v in variables.items()}
        return TaskState(stepped, memory, task.steps + 1)

    def adapt(
        self,
        meta: Params,
        losses: Sequence[Loss],
        num_tasks: int,
        *,
        differentiable: bool = False,
    ) -> TaskState:
        """Take one step per loss, from the start."""
        return self.stages(meta, losses, num_tasks, differentiable=differentiable)[-1]

    def stages(
        self,
        meta: Params,
        losses: Sequence[Loss],
        num_tasks: int,
        *,
        differentiable: bool = False,
    ) -> list[TaskState]:
        """Return the states before, between and after the steps, one more than there are losses."""
        stages = [self.start(meta, num_tasks)]
        for loss in losses:
            stages.append(self.step(meta, stages[-1], loss, differentiable=differentiable))
        return stages


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
