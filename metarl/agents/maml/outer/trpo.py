"""Trust-region policy optimisation (Schulman et al. 2015) on a flat vector of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from metarl.agents.base import Metrics
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.core.schema import Section
from metarl.core.timer import Timer
from metarl.rollout.failures import NotFinite


class TRPOConfig(Section):
    """The outer update: trust-region policy optimisation."""

    update: Literal["trpo"] = "trpo"
    """How the meta-parameters are updated."""
    max_kl: Annotated[float, Field(gt=0)] = 0.01
    """Largest mean KL divergence from the old to the new adapted policies."""
    cg_steps: Annotated[int, Field(ge=1)] = 10
    """Conjugate-gradient steps for the search direction."""
    cg_damping: Annotated[float, Field(ge=0)] = 1e-5
    """Added to the diagonal of the Fisher matrix."""
    line_search_steps: Annotated[int, Field(ge=1)] = 15
    """Largest number of step sizes that the line search tries."""
    line_search_shrink: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """The factor from one step size to the next."""
    fisher_fraction: Annotated[float, Field(gt=0, le=1)] = 0.0625
    """Share of the steps after adaptation that the Fisher-vector products use, one step in
    round(1 / share). The products only shape the direction: the gradient, and the line search's
    objective and KL, always use all steps."""
    jacobian_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the steps before adaptation that the Fisher-vector products use. The Jacobian of the
    adaptation is noisier than the Fisher matrix: a smaller share costs some of each step."""

    max_update_kl: ClassVar[float] = 1.0

    def make(self, vector: Tensor) -> TRPO:
        return TRPO(self)


@dataclass(frozen=True)
class LineSearch:
    """The result of a line search.

    Attributes:
        step: to add to the parameters, (P,); 0 if no step was accepted.
        accepted: whether a step was accepted.
        tried: number of step sizes tried.
        improvement: the actual improvement of the objective.
        expected: the improvement that the gradient predicted for the accepted (or last) step.
        kl: KL divergence of the accepted step.
    """

    step: Tensor
    accepted: bool
    tried: int
    improvement: float
    expected: float
    kl: float


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, steps: int, tolerance: float = 1e-10
) -> Tensor:
    """Solve A x = target by conjugate gradients (Hestenes and Stiefel 1952, section 3).

    Args:
        product: p -> A p, (P,) both, with A positive definite.
        target: (P,).
        steps: largest number of products.
        tolerance: stop when the squared residual is below this share of that of x = 0.
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    direction = target.clone()
    residual_norm_sq = residual @ residual
    tolerance_sq = tolerance * residual_norm_sq
    for _ in range(steps):
        if residual_norm_sq <= tolerance_sq:
            break
        Ap = product(direction)
        alpha = residual_norm_sq / (direction @ Ap)
        solution = solution + alpha * direction
        residual = residual - alpha * Ap
        next_norm_sq = residual @ residual
        direction = residual + (next_norm_sq / residual_norm_sq) * direction
        residual_norm_sq = next_norm_sq
    return solution


def trust_region_step(
    gradient: Tensor, product: Callable[[Tensor], Tensor], config: TRPOConfig
) -> Tensor:
    """Return the step to the border of the trust region, along -F^-1 gradient, (P,).

    Its length solves 1/2 s F s = max_kl (Schulman et al. 2015, appendix C).

    Raises:
        NotFinite: if the direction is not.
    """

    def damped(vector: Tensor) -> Tensor:
        return product(vector) + config.cg_damping * vector

    direction = conjugate_gradient(damped, -gradient, config.cg_steps)
    curvature = direction @ damped(direction)
    if not torch.isfinite(curvature):
        raise NotFinite("the search direction")
    if not curvature > 0:
        return torch.zeros_like(gradient)  # the gradient is 0
    return direction * torch.sqrt(2 * config.max_kl / curvature)


def line_search(
    loss_and_kl: Callable[[Tensor], tuple[float, float]],
    loss: float,
    gradient: Tensor,
    step: Tensor,
    config: TRPOConfig,
) -> LineSearch:
    """Shrink a step until it improves the loss within the trust region.

    Args:
        loss_and_kl: step -> (loss, KL divergence from the old policies) with all the data.
        loss: the loss without a step.
        gradient: of the loss.
        step: the longest step to try.
        config: the trust region, and how to shrink.
    """
    slope = float(gradient @ step)
    nothing = torch.zeros_like(step)
    if not slope < 0:
        return LineSearch(nothing, False, 0, 0.0, 0.0, 0.0)
    scale = 1.0
    for tried in range(1, config.line_search_steps + 1):
        scale = config.line_search_shrink ** (tried - 1)
        new_loss, kl = loss_and_kl(scale * step)
        if new_loss < loss and kl <= config.max_kl:
            return LineSearch(scale * step, True, tried, loss - new_loss, -scale * slope, kl)
    return LineSearch(nothing, False, config.line_search_steps, 0.0, -scale * slope, 0.0)


class TRPO:
    """Steps of MAML-TRPO (Finn et al. 2017, algorithm 3, line 10)."""

    def __init__(self, config: TRPOConfig) -> None:
        self.config = config

    def step(self, objective: MetaObjective, timer: Timer) -> tuple[Tensor, Metrics]:
        config, old = self.config, objective.vector
        with timer("surrogate gradient"):
            found = objective.gradient()
        with timer("conjugate gradient"):
            product = objective.fisher_vector_product(
                config.fisher_fraction, config.jacobian_fraction
            )
            step = trust_region_step(found.gradient, product, config)
            del product  # which holds the graphs
        with timer("line search"):
            search = line_search(
                lambda step: objective.loss_and_kl(old + step),
                found.loss,
                found.gradient,
                step,
                config,
            )
        return old + search.step, {
            "outer_kl": search.kl,
            "improvement": search.improvement,
            "expected_improvement": search.expected,
            "line_search_steps": search.tried,
            "line_search_rejected": float(not search.accepted),
            "gradient_norm": float(found.gradient.norm()),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing is kept from one step to the next."""
