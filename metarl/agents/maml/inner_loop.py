"""The inner loop: gradient steps on the fast parameters of each task, starting at meta-parameters.

The inner loop is independent of policies: a loss is any function of the stacked parameters of a
model. The loss of a task depends on the parameters of this task only, so the gradient of the sum of
all losses is the stack of the gradients of all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from metarl.agents.maml.inner_state import InnerState
from metarl.agents.maml.task_parameters import AllParameters, TaskParameters
from metarl.agents.maml.update_rules import UpdateRule
from metarl.core.errors import UserError, shown
from metarl.core.params import Params

Loss: TypeAlias = Callable[[Params], Tensor]
"""A function of the stacked parameters of a model, (B, ...), that returns the losses, (B,)."""


class InnerLoop:
    """Adaptation to tasks by gradient steps.

    Attributes:
        rule: the update rule.
        task_parameters: the parameters that adapt, and their mapping to model parameters.
        first_order: whether meta-gradients treat the inner gradients as constants.
    """

    def __init__(
        self,
        rule: UpdateRule,
        task_parameters: TaskParameters | None = None,
        *,
        first_order: bool = False,
    ) -> None:
        """Assemble an inner loop.

        Args:
            rule: the update rule.
            task_parameters: the parameters that adapt; all parameters by default.
            first_order: whether meta-gradients treat the inner gradients as constants (FOMAML, Finn
                et al. 2017, section 5.2).
        """
        self.rule = rule
        self.task_parameters = task_parameters or AllParameters()
        self.first_order = first_order

    def init(self, params: Params, rng: np.random.Generator | None = None) -> Params:
        """Return the initial meta-parameters, unstacked, copied.

        Args:
            params: the parameters of a model, unstacked.
            rng: draws the meta-parameters of the task parameters; a fixed seed by default.

        Returns:
            The parameters of the model, and the meta-parameters of the task parameters and of the
            update rule.

        Raises:
            UserError: if the task parameters name a parameter that the model does not have, a name
                does not tell parameters of the model from others, which have a colon, or the update
                rule returns no dict.
        """
        rng = rng or np.random.default_rng(0)
        own = self.task_parameters.init_meta(params, rng)
        meta = {**params, **own}
        fast_params = {n: value[0] for n, value in self.task_parameters.init(meta, 1).items()}
        learned = self.rule.init(fast_params)
        if not isinstance(learned, Mapping):
            raise UserError(f"{self._called('init')}: expected a dict, got {shown(learned)}")
        for name, value in learned.items():
            if not isinstance(value, Tensor):
                got = f"{name}: {shown(value)}"
                raise UserError(f"{self._called('init')}: expected tensors, got {got}")
        added = dict.fromkeys((*own, *learned), "a colon, as in lr:weight0")
        wrong = {name: "no colon" for name in params if ":" in name}
        wrong |= {name: expected for name, expected in added.items() if ":" not in name}
        for name, expected in wrong.items():
            raise UserError(f"the parameter {name}: expected {expected} in its name")
        meta = {**meta, **learned}
        return {name: value.detach().clone() for name, value in meta.items()}

    def init_state(self, meta: Params, num_tasks: int) -> InnerState:
        """Return the state of B tasks before adaptation."""
        return InnerState(self.task_parameters.init(meta, num_tasks))

    def to_model_params(self, meta: Params, state: InnerState) -> Params:
        """Return the model parameters of each task, stacked (B, ...)."""
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
        gradient: Params | None = None,
    ) -> InnerState:
        """Take one adaptation step for each task (Finn et al. 2017, algorithm 1, lines 5 and 6).

        Args:
            meta: the meta-parameters, unstacked.
            state: the state of B tasks; not changed.
            loss: the losses as a function of the stacked model parameters.
            rule_loss: the loss values given to the update rule, (B,); the values of `loss` by
                default.
            differentiable: whether to keep the graph, so that the result can be differentiated with
                respect to the meta-parameters.
            scale: factor on the step.
            gradient: constants that are taken for the gradients, stacked (B, ...), so that `loss`
                is not evaluated, and `rule_loss` is needed; see `gradients`.

        Returns:
            The state after the step.

        Raises:
            ValueError: if `loss` does not return one number for each task, (B,), or `gradient`
                comes without `rule_loss`.
            UserError: if the update rule does not return what `UpdateRule.step` says.
        """
        fast_params = _differentiable(state, differentiable)
        if gradient is None:
            losses, gradient = self._gradient(meta, fast_params, loss, differentiable)
            # `rule_loss`, with the rounding of a correction to the surrogate loss; earlier runs
            # have this rounding.
            rule_loss = losses if rule_loss is None else losses + (rule_loss - losses).detach()
        elif rule_loss is None:
            raise ValueError("a step with given gradients needs rule_loss")
        with torch.set_grad_enabled(differentiable):
            # Line 6: the adapted parameters
            result = self.rule.step(
                meta, fast_params, state.optimizer_state, gradient, rule_loss, state.step
            )
            stepped, optimizer_state = self._checked(result, fast_params, differentiable)
            if scale != 1:
                stepped = {n: v + scale * (stepped[n] - v) for n, v in fast_params.items()}
        return InnerState(stepped, optimizer_state, state.step + 1)

    def _gradient(
        self, meta: Params, fast_params: Params, loss: Loss, differentiable: bool
    ) -> tuple[Tensor, Params]:
        """Return the loss of each task, (B,), and its gradient, stacked (B, ...): line 5."""
        with torch.enable_grad():
            losses = loss(self.task_parameters.to_model_params(meta, fast_params))
            num_tasks = len(next(iter(fast_params.values())))
            if losses.shape != (num_tasks,):
                raise ValueError(
                    f"a loss returns one number per task, ({num_tasks},), not "
                    f"{tuple(losses.shape)}: do not average over the tasks"
                )
            gradients = torch.autograd.grad(
                losses.sum(),
                list(fast_params.values()),
                create_graph=differentiable and not self.first_order,
                materialize_grads=True,
            )
        return losses, dict(zip(fast_params, gradients, strict=True))

    def _called(self, method: str) -> str:
        return f"the update rule {type(self.rule).__name__}: {method}"

    def _checked(
        self, result: Any, fast_params: Params, differentiable: bool
    ) -> tuple[Params, Params]:
        """Return what a step of the update rule returned.

        Args:
            result: what it returned.
            fast_params: the fast parameters before the step, stacked.
            differentiable: whether the result has to depend on them.

        Raises:
            UserError: if it is no pair of dicts, the first of which has the names and shapes of
                `fast_params`; or has no derivatives where these are needed.
        """
        step = self._called("step")
        pair = isinstance(result, tuple | list) and len(result) == 2
        if not (pair and all(isinstance(each, Mapping) for each in result)):
            expected = "the new fast parameters and the new optimiser state, two dicts"
            raise UserError(f"{step}: expected {expected}, got {shown(result)}")
        stepped, optimizer_state = result
        if stepped.keys() != fast_params.keys():
            expected, got = (", ".join(sorted(each)) for each in (fast_params, stepped))
            raise UserError(
                f"{step}: expected new values of {expected}, got those of {got or 'none'}"
            )
        for name, value in fast_params.items():
            if (found := stepped[name].shape) != value.shape:
                shapes = f"{tuple(value.shape)}, where the first number is that of tasks, got"
                raise UserError(f"{step}: expected {name} of shape {shapes} {tuple(found)}")
        if differentiable and not any(value.requires_grad for value in stepped.values()):
            raise UserError(f"{step}: expected results with derivatives, got detached ones")
        return stepped, optimizer_state

    def adapt(
        self,
        meta: Params,
        losses: Sequence[Loss],
        num_tasks: int,
        *,
        differentiable: bool = False,
    ) -> InnerState:
        """Return the state after one step for each loss, starting at the meta-parameters.

        Args:
            meta, differentiable: as in `step`.
            losses: the losses of the steps.
            num_tasks: B.

        Raises:
            ValueError: as `step`.
        """
        return self.trajectory(meta, losses, num_tasks, differentiable=differentiable)[-1]

    def gradients(
        self,
        meta: Params,
        losses: Sequence[Loss],
        num_tasks: int,
        *,
        rule_losses: Sequence[Tensor],
    ) -> list[Params]:
        """Return the gradients of all steps of a `trajectory`, each stacked (B, ...), as constants.

        Args:
            meta, losses, num_tasks, rule_losses: as in `trajectory`.

        Raises:
            ValueError: as `step`.
        """
        state, found = self.init_state(meta, num_tasks), []
        for loss, rule_loss in zip(losses, rule_losses, strict=True):
            fast_params = _differentiable(state, keep_graph=False)
            _, gradient = self._gradient(meta, fast_params, loss, differentiable=False)
            state = self.step(meta, state, loss, rule_loss=rule_loss, gradient=gradient)
            found.append(gradient)
        return found

    def trajectory(
        self,
        meta: Params,
        losses: Sequence[Loss],
        num_tasks: int,
        *,
        rule_losses: Sequence[Tensor | None] | None = None,
        differentiable: bool = False,
        gradients: Sequence[Params] = (),
    ) -> list[InnerState]:
        """Return the states before, between and after the steps.

        Args:
            meta, differentiable: as in `step`.
            losses: the losses of the K steps.
            num_tasks: B.
            rule_losses: the `rule_loss` of each step.
            gradients: the `gradient` of each step; by default those of the losses.

        Returns:
            K + 1 states.

        Raises:
            ValueError: as `step`.
        """
        states, none = [self.init_state(meta, num_tasks)], [None] * len(losses)
        steps = zip(losses, rule_losses or none, gradients or none, strict=True)
        for loss, rule_loss, gradient in steps:
            states.append(
                self.step(
                    meta,
                    states[-1],
                    loss,
                    rule_loss=rule_loss,
                    differentiable=differentiable,
                    gradient=gradient,
                )
            )
        return states


def _differentiable(state: InnerState, keep_graph: bool) -> Params:
    """Return the fast parameters of a state, by which a loss can be differentiated: in their graph
    if it is kept and they have one, which constants such as a context of zeros have not."""
    return {
        name: v if keep_graph and v.requires_grad else v.detach().requires_grad_()
        for name, v in state.fast_params.items()
    }
