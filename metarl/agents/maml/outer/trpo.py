"""Trust-region policy optimisation (Schulman et al. 2015) on a flat vector of parameters.

Nothing but the class at the end knows of tasks: the rest works on functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarl.agents.maml.meta_objective import MetaObjective
from metarl.core.errors import check
from metarl.core.timer import Timer
from metarl.rollout.failures import NotFinite


@dataclass(frozen=True)
class TRPOConfig:
    """The outer update: trust-region policy optimisation."""

    update: Literal["trpo"] = "trpo"
    """How the meta-parameters are updated."""
    max_kl: float = 0.01
    """Largest mean KL divergence from the old to the new adapted policies."""
    cg_steps: int = 10
    """Conjugate-gradient steps for the search direction."""
    cg_damping: float = 1e-5
    """Added to the diagonal of the Fisher matrix."""
    line_search_steps: int = 15
    """How many step sizes the line search tries."""
    line_search_shrink: float = 0.8
    """The factor from one step size to the next."""
    fisher_fraction: float = 0.0625
    """Share of the steps after adaptation that the Fisher-vector products use, one step in
    round(1 / share). The products only shape the direction: the gradient, and the line search's
    objective and KL, always use all steps."""
    jacobian_fraction: float = 0.5
    """Share of the steps before adaptation that the Fisher-vector products use. The Jacobian of the
    adaptation is noisier than the Fisher matrix: a smaller share costs some of each step."""

    def __post_init__(self) -> None:
        check(self.max_kl > 0, "max_kl", "more than 0", self.max_kl)
        check(self.cg_steps >= 1, "cg_steps", "at least 1", self.cg_steps)
        check(self.cg_damping >= 0, "cg_damping", "at least 0", self.cg_damping)
        check(
            self.line_search_steps >= 1, "line_search_steps", "at least 1", self.line_search_steps
        )
        shrink = self.line_search_shrink
        check(0 < shrink < 1, "line_search_shrink", "between 0 and 1", shrink)
        for name in ("fisher_fraction", "jacobian_fraction"):
            share = getattr(self, name)
            check(0 < share <= 1, name, "more than 0, at most 1", share)

    def make(self, vector: Tensor) -> TRPO:
        return TRPO(self)


@dataclass(frozen=True)
class LineSearch:
    """What a line search found.

    Attributes:
        step: what to add to the parameters, 0 if no step was accepted.
        accepted: whether a step was.
        tried: how many step sizes were tried.
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
    """Solve A x = target by conjugate gradients, given x -> A x with A positive definite.

    Stops after `steps`, or when the squared residual falls below `tolerance` times that of the
    start.
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    direction = target.clone()
    square = residual @ residual
    enough = tolerance * square
    for _ in range(steps):
        if square <= enough:
            break
        image = product(direction)
        size = square / (direction @ image)
        solution = solution + size * direction
        residual = residual - size * image
        next_square = residual @ residual
        direction = residual + (next_square / square) * direction
        square = next_square
    return solution


def full_step(gradient: Tensor, product: Callable[[Tensor], Tensor], config: TRPOConfig) -> Tensor:
    """Return the step to the border of the trust region, along -F^-1 gradient.

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
        return torch.zeros_like(gradient)  # there is no gradient
    return direction * torch.sqrt(2 * config.max_kl / curvature)


def line_search(
    evaluate: Callable[[Tensor], tuple[float, float]],
    loss: float,
    gradient: Tensor,
    step: Tensor,
    config: TRPOConfig,
) -> LineSearch:
    """Shrink a step until it improves the loss within the trust region.

    Args:
        evaluate: step -> (loss, KL divergence from the old policies) with all the data.
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
        new_loss, kl = evaluate(scale * step)
        if new_loss < loss and kl <= config.max_kl:
            return LineSearch(scale * step, True, tried, loss - new_loss, -scale * slope, kl)
    return LineSearch(nothing, False, config.line_search_steps, 0.0, -scale * slope, 0.0)


class TRPO:
    """Steps of MAML-TRPO (Finn et al. 2017, algorithm 3)."""

    def __init__(self, config: TRPOConfig) -> None:
        self.config = config

    def step(self, objective: MetaObjective, timer: Timer) -> tuple[Tensor, dict[str, float]]:
        config, old = self.config, objective.vector
        with timer("surrogate gradient"):
            found = objective.gradient()
        with timer("conjugate gradient"):
            product = objective.fisher(config.fisher_fraction, config.jacobian_fraction)
            step = full_step(found.gradient, product, config)
            del product  # and with it the graphs
        with timer("line search"):
            search = line_search(
                lambda step: objective.evaluate(old + step),
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
