"""Trust-region policy optimisation (TRPO, Schulman et al. 2015) of the meta-parameters, a vector
(P,)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from metarl.agents.base import Metrics
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.core.schema import Section
from metarl.core.timer import Timer
from metarl.rollout.failures import NotFinite

Product: TypeAlias = Callable[[Tensor], Tensor]
"""The product of a matrix (P, P) and a vector, as a function of the vector (P,)."""


class TRPOConfig(Section):
    """The outer update: trust-region policy optimisation."""

    update: Literal["trpo"] = "trpo"
    """The kind of outer update."""
    max_kl: Annotated[float, Field(gt=0)] = 0.01
    """Largest mean KL divergence from the old to the new adapted policies, in nats."""
    cg_steps: Annotated[int, Field(ge=1)] = 4
    """Number of conjugate-gradient steps for the search direction, a Fisher-vector product each.
    More steps fit the noise of the meta-batch. Without a preconditioner, 10 are needed."""
    cg_damping: Annotated[float, Field(ge=0)] = 1e-5
    """Constant added to the diagonal of the Fisher matrix."""
    preconditioner: Literal["none", "kfac"] = "kfac"
    """Approximate inverse of the Fisher matrix with which conjugate gradients begin: none, or
    Kronecker factors of the layers of the adapted policies (K-FAC, Martens and Grosse 2015)."""
    preconditioner_damping: Annotated[float, Field(gt=0)] = 1.0
    """Constant added to the diagonal of the approximate Fisher matrix. Directions of less
    curvature are noise of the meta-batch mostly."""
    line_search_steps: Annotated[int, Field(ge=1)] = 15
    """Number of step sizes of the line search."""
    line_search_shrink: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Factor from one step size of the line search to the next."""
    fisher_fraction: Annotated[float, Field(ge=1e-6, le=1)] = 0.0625
    """Fraction of the steps after adaptation that Fisher-vector products use, every round(1 /
    fraction)-th step, or after a few more where these would be at few times of an episode. The
    products influence the direction only; the gradient, and the objective and the KL divergence of
    the line search, always use all steps."""
    jacobian_fraction: Annotated[float, Field(ge=1e-6, le=1)] = 0.125
    """Fraction of the steps before adaptation that Fisher-vector products use. The Jacobian of the
    adaptation is noisier than the Fisher matrix, so small meta-batches need a larger fraction."""

    max_update_kl: ClassVar[float] = 1.0

    def make(self, vector: Tensor) -> TRPO:
        """Make the outer update, which has no state."""
        return TRPO(self)


@dataclass(frozen=True)
class LineSearch:
    """The result of a line search.

    Attributes:
        step: the step of the parameters, (P,); 0 if no step was accepted.
        accepted: whether a step was accepted.
        tried: number of step sizes tried.
        improvement: decrease of the loss by the accepted step; 0 without one.
        expected: decrease of the loss that the gradient predicts for the accepted (or last) step.
        kl: KL divergence of the accepted step, in nats; 0 without one.
    """

    step: Tensor
    accepted: bool
    tried: int
    improvement: float
    expected: float
    kl: float


def conjugate_gradient(
    product: Product,
    target: Tensor,
    steps: int,
    tolerance: float = 1e-10,
    precondition: Product | None = None,
) -> tuple[Tensor, Tensor]:
    """Solve A x = target by conjugate gradients (Hestenes and Stiefel 1952, section 3, equations
    3:1), preconditioned if wanted (Concus, Golub and O'Leary 1976, section 2).

    Args:
        product: the function p -> A p, from (P,) to (P,), with A positive definite.
        target: right-hand side, (P,).
        steps: largest number of products.
        tolerance: the iteration stops when the squared norm of the residual, in the metric of the
            preconditioner, is at most this fraction of the squared norm of `target`.
        precondition: the function r -> M r, from (P,) to (P,), with M positive definite and about
            the inverse of A; the identity by default.

    Returns:
        The approximate solution x, (P,); and x^T A x, without a further product.
    """
    precondition = precondition or (lambda residual: residual)
    solution = torch.zeros_like(target)
    residual = target.clone()  # r_0 = k - A x_0, x_0 = 0 (3:1a)
    direction = precondition(residual)  # p_0 = M r_0 (3:1a)
    residual_norm_sq = residual @ direction  # (r_i, M r_i)
    curvature = torch.zeros_like(residual_norm_sq)
    tolerance_sq = tolerance * residual_norm_sq
    for _ in range(steps):
        if residual_norm_sq <= tolerance_sq:
            break
        Ap = product(direction)
        pAp = direction @ Ap
        alpha = residual_norm_sq / pAp  # a_i = |r_i|^2 / (p_i, A p_i) (3:1b)
        solution = solution + alpha * direction  # x_{i+1} = x_i + a_i p_i (3:1c)
        curvature = curvature + alpha**2 * pAp  # the p_i are conjugate: (x, A x) = sum of these
        residual = residual - alpha * Ap  # r_{i+1} = r_i - a_i A p_i (3:1d)
        preconditioned = precondition(residual)
        next_norm_sq = residual @ preconditioned
        # b_i = |r_{i+1}|^2 / |r_i|^2 (3:1e), p_{i+1} = M r_{i+1} + b_i p_i (3:1f)
        direction = preconditioned + (next_norm_sq / residual_norm_sq) * direction
        residual_norm_sq = next_norm_sq
    return solution, curvature


def trust_region_step(
    gradient: Tensor,
    product: Product,
    config: TRPOConfig,
    precondition: Product | None = None,
) -> Tensor:
    """Return the step s along -F^-1 gradient to the boundary of the trust region, (P,).

    The length of s solves 1/2 s^T F s = max_kl (Schulman et al. 2015, appendix C).

    Args:
        gradient: the gradient of the loss, (P,).
        product: the function v -> F v, from (P,) to (P,), with the Fisher matrix F.
        config: the settings.
        precondition: as in `conjugate_gradient`.

    Raises:
        NotFinite: if the direction is not finite.
    """

    def damped(vector: Tensor) -> Tensor:
        return product(vector) + config.cg_damping * vector

    direction, curvature = conjugate_gradient(
        damped, -gradient, config.cg_steps, precondition=precondition
    )
    if not torch.isfinite(curvature):
        raise NotFinite("the search direction")
    if not curvature > 0:
        return torch.zeros_like(gradient)  # the gradient is 0
    # beta = sqrt(2 delta / s^T A s) (Schulman et al. 2015, appendix C)
    return direction * torch.sqrt(2 * config.max_kl / curvature)


def line_search(
    loss_and_kl: Callable[[Tensor], tuple[float, float]],
    loss: float,
    gradient: Tensor,
    step: Tensor,
    config: TRPOConfig,
) -> LineSearch:
    """Shrink a step until it decreases the loss and is in the trust region (Schulman et al. 2015,
    appendix C).

    The step is multiplied by powers of `line_search_shrink`. Powers at which the KL divergence
    would still be too large, if it were of second order in the step, are not tried.

    Args:
        loss_and_kl: the function from a step, (P,), to the loss and the KL divergence from the old
            policies, both on all data.
        loss: the loss without a step.
        gradient: the gradient of the loss, (P,).
        step: the first step to try, (P,).
        config: the settings.
    """
    slope = float(gradient @ step)
    nothing = torch.zeros_like(step)
    if not slope < 0:
        return LineSearch(nothing, False, 0, 0.0, 0.0, 0.0)
    shrink, last = config.line_search_shrink, config.line_search_steps - 1
    power = tried = 0
    while True:
        scale = shrink**power
        new_loss, kl = loss_and_kl(scale * step)
        tried += 1
        if new_loss < loss and kl <= config.max_kl:
            return LineSearch(scale * step, True, tried, loss - new_loss, -scale * slope, kl)
        if power == last:
            return LineSearch(nothing, False, tried, 0.0, -scale * slope, 0.0)
        # The further power by which `kl` falls to `max_kl`
        excess = kl / config.max_kl if math.isfinite(kl) else 1.0
        further = math.ceil(-math.log(max(excess, 1.0)) / (2 * math.log(shrink)))
        power = min(power + max(further, 1), last)


class TRPO:
    """The outer update of MAML-TRPO (Finn et al. 2017, algorithm 3, line 10)."""

    def __init__(self, config: TRPOConfig) -> None:
        self.config = config

    def step(
        self, objective: MetaObjective, rng: np.random.Generator, timer: Timer
    ) -> tuple[Tensor, Metrics]:
        config, old = self.config, objective.vector
        with timer("surrogate gradient"):
            found = objective.gradient()
        precondition = None
        if config.preconditioner == "kfac":
            with timer("preconditioner"):
                precondition = objective.kfac_preconditioner(config.preconditioner_damping)
        with timer("conjugate gradient"):
            product = objective.fisher_vector_product(
                config.fisher_fraction, config.jacobian_fraction
            )
            step = trust_region_step(found.gradient, product, config, precondition)
            del product  # frees its graphs
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
        """Load nothing, since the update has no state."""
