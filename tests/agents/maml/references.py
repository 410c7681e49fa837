"""References for the meta-objective: finite differences, and autograd on a second implementation.

The second implementation of the adaptation looks at one task at a time, without stacks.

Finite differences of `loss_and_kl` repeat the adaptation, so they need an inner gradient whose
change equals its automatic derivative. Meta-LSTM's gates, and everything with first_order, take
gradient and loss for constants: in the difference they keep the values of the old meta-parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from metarl.agents.maml.batch import TrainingBatch
from metarl.agents.maml.surrogates import Surrogate
from metarl.core.distributions import Distribution
from metarl.core.params import flatten, stack, unflatten
from metarl.core.returns import discounted_prefixes

SURROGATES = ("likelihood_ratio", "log_likelihood")
EPISODIC = ("dice", "loaded_dice")
TASK_PARAMETERS = ("all", "head", "context", "latent")
RULES = ("sgd", "meta_sgd", "lslr", "meta_lstm")


def adapted(problem, vector: Tensor) -> list[tuple[Distribution, Distribution, TrainingBatch]]:
    """Adapt to each task: its new and old policies at the data after, and these data. Of sequences
    this is so for each query, whose weight is that of its data."""
    params = unflatten(vector, problem.meta)
    found = []
    for microbatch in problem.singles():
        trajectory = problem.plain_trajectory(params, microbatch)
        for query in microbatch.queries:
            batch = query.batch
            new = problem.policy(stack(trajectory[query.step], 1), batch.obs)
            old = problem.policy(query.adapted, batch.obs)
            found.append((new, old, replace(batch, weight=query.weight * batch.weight)))
    return found


def assert_close(actual: Tensor, expected: Tensor, rel: float) -> None:
    """The difference is small against the whole vector."""
    assert float((actual - expected).norm() / expected.norm()) < rel


def dense(product: Callable[[Tensor], Tensor], size: int) -> Tensor:
    return torch.stack([product(row) for row in torch.eye(size, dtype=torch.float64)])


def with_magic_boxes(name: str, decay: float) -> Surrogate:
    """DiCE and loaded DiCE with the MagicBox operator of the papers, exp(x - stop_gradient(x))."""

    def box(x: Tensor) -> Tensor:
        return (x - x.detach()).exp().flatten(1)

    def surrogate(policy: Distribution, batch: TrainingBatch) -> Tensor:
        log_prob = batch.by_episode(policy.log_prob(batch.action))
        if name == "dice":
            so_far, here = box(log_prob.cumsum(-1)), box(log_prob)
            objective = so_far * batch.reward + (1 - here) * batch.value
        else:
            until = discounted_prefixes(log_prob, decay)
            objective = (box(until) - box(until - log_prob)) * batch.advantage
        return -(objective * batch.weight).sum(1)

    return surrogate


def slope(function: Callable[[Tensor], float], at: Tensor, direction: Tensor) -> float:
    """The derivative along a direction by central differences, of fourth order."""
    eps = 3e-5

    def difference(step: Tensor) -> float:
        return function(at + step) - function(at - step)

    step = eps * direction
    return (8 * difference(step) - difference(2 * step)) / (12 * eps)


def owner(name: str) -> str:
    """Whose a meta-parameter is: the policy's, or that of what adapts or of the rule."""
    return name.partition(":")[0] if ":" in name else "policy"


def directions(problem) -> dict[str, Tensor]:
    """For each owner of meta-parameters a random direction in their space, of length 1."""
    rng = np.random.default_rng(0)
    found = {}
    for wanted in {owner(name): None for name in problem.meta}:
        pieces = {
            name: torch.from_numpy(np.asarray(rng.standard_normal(value.shape)))
            * (owner(name) == wanted)
            for name, value in problem.meta.items()
        }
        found[wanted] = flatten(pieces) / flatten(pieces).norm()
    return found


def assert_slopes(
    problem, gradient: Tensor, function: Callable[[Tensor], float], at: Tensor | None = None
) -> None:
    """The gradient's product with each direction equals the difference, by the gradient's size in
    that direction's space."""
    at = problem.old if at is None else at
    for wanted, direction in directions(problem).items():
        size = float(gradient[direction != 0].norm())
        expected = slope(function, at, direction)
        assert abs(float(gradient @ direction) - expected) < 1e-6 * size + 1e-10, wanted
    idle = [name for name, x in unflatten(gradient, problem.meta).items() if x.norm() < 1e-5]
    assert not idle, "their gradients could not be wrong"


def assert_every_slope(problem) -> None:
    """Check the gradient of a problem's objective by differences of `loss_and_kl`, which adapts
    without any graph, in every coordinate."""
    objective = problem.objective()
    gradient = objective.gradient().gradient
    slopes = [
        slope(lambda v: objective.loss_and_kl(v)[0], problem.old, unit)
        for unit in torch.eye(len(problem.old), dtype=torch.float64)
    ]
    assert_close(gradient, torch.tensor(slopes, dtype=torch.float64), rel=1e-8)


class FrozenGradients:
    """A rule that is given, at each step, the gradient and loss of the first time."""

    def __init__(self, rule) -> None:
        self.rule, self.given = rule, {}

    def step(self, meta, fast_params, optimizer_state, gradient, loss, index):
        # The microbatches have different numbers of tasks.
        given = self.given.setdefault((len(loss), index), (gradient, loss.detach()))
        return self.rule.step(meta, fast_params, optimizer_state, *given, index)
