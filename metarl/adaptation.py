"""The inner loop: policy-gradient steps on stacks of parameters, one entry per task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from metarl.checks import check
from metarl.experience import Experience
from metarl.objectives import INNER_SURROGATES
from metarl.policies import GaussianMLP, Params, leaves


@dataclass(frozen=True)
class InnerConfig:
    """The inner loop: how a task's parameters follow from the meta-parameters and its episodes."""

    lr: float = 0.1
    """Step size of the gradient steps."""
    surrogate: Literal["likelihood_ratio", "log_likelihood"] = "likelihood_ratio"
    """The loss whose gradient adapts. `log_likelihood` is that of the first implementations; it
    loses the credit of the pre-adaptation policy when the meta-gradient passes through it."""
    first_order: bool = False
    """Whether the meta-gradient treats the inner gradients as constants (FOMAML)."""

    def __post_init__(self) -> None:
        check(self.lr > 0, "lr", "more than 0", self.lr)


def stack(params: Params, num_tasks: int) -> Params:
    """Repeat meta-parameters for each task: (...) -> (B, ...). No copy is made."""
    return {name: value.expand(num_tasks, *value.shape) for name, value in params.items()}


def sgd_step(
    policy: GaussianMLP,
    params: Params,
    experience: Experience,
    config: InnerConfig,
    lr: float,
    differentiable: bool = False,
) -> Params:
    """Take one gradient step per task: phi' = phi - lr * grad L(phi) (Finn et al. 2017, eq. 1).

    The tasks of the stack do not touch each other: the gradient of the sum of their losses is the
    stack of their gradients.

    Args:
        policy: the policy.
        params: stacked, (B, ...).
        experience: of B tasks, played by `params`.
        config: surrogate and order.
        lr: the step size.
        differentiable: keep the graph, so that the result can be differentiated with respect to
            `params`.
    """
    second_order = differentiable and not config.first_order
    with torch.enable_grad():
        if not differentiable:
            params = leaves(params)
        loss = INNER_SURROGATES[config.surrogate](policy(params, experience.obs), experience)
        gradients = torch.autograd.grad(
            loss.sum(), list(params.values()), create_graph=second_order
        )
        stepped = {
            name: value - lr * gradient
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }
    return stepped if differentiable else {name: v.detach() for name, v in stepped.items()}


def adapt(
    policy: GaussianMLP,
    params: Params,
    experiences: Sequence[Experience],
    config: InnerConfig,
    differentiable: bool = False,
) -> Params:
    """Take one step per experience, starting from a stack of meta-parameters."""
    for experience in experiences:
        params = sgd_step(policy, params, experience, config, config.lr, differentiable)
    return params
