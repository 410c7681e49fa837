"""The estimators of metarl, on enumerated or on played data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from examples.estimators.data import (
    DataSets,
    complete_batch,
    played_batch,
)
from examples.estimators.exact import Baseline, Problem, exact_gradient, mean_reward
from metarl.agents.maml.batch import TrainingBatch
from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.microbatch import MetaMicrobatch, Query
from metarl.agents.maml.surrogates import Surrogate, inner_surrogate, likelihood_ratio
from metarl.agents.maml.update_rules import SGD
from metarl.core.distributions import Distribution
from metarl.core.parallel import MicrobatchPool
from metarl.core.params import Params
from metarl.core.timer import Timer
from metarl.rollout.collect import collect


@dataclass(frozen=True)
class Estimator:
    """A direction to estimate the meta-gradient.

    Attributes:
        name: in the report.
        surrogate: of the inner loop, as configs name it.
        decay: of `loaded_dice`.
        first_order: whether the inner gradient is taken for a constant.
        emaml: whether the term of E-MAML is added.
    """

    name: str
    surrogate: str
    decay: float = 1.0
    first_order: bool = False
    emaml: bool = False

    def gradient(
        self,
        problem: Problem,
        microbatch: MetaMicrobatch,
        outer: Surrogate = likelihood_ratio,
        num_episodes: int = 0,
    ) -> Tensor:
        """Return the project's meta-gradient of a meta-batch, (P,), of J, not of the loss.

        Args:
            problem: the problem.
            microbatch: the meta-batch.
            outer: the surrogate after adaptation.
            num_episodes: E of the data that adapted, for E-MAML's term. It averages ∇ log p(D) over
                E T steps, while the return weight is a return, T times J.
        """
        objective = MetaObjective(
            problem.policy,
            InnerLoop(SGD(problem.lr), first_order=self.first_order),
            inner_surrogate(self.surrogate, self.decay),
            problem.meta,
            [microbatch],
            MicrobatchPool(1),
            emaml_weight=float(num_episodes) if self.emaml else 0.0,
        )
        return -objective.gradient(outer=outer).gradient


ESTIMATORS = (
    Estimator("first order (FOMAML)", "likelihood_ratio", first_order=True),
    Estimator("log_likelihood", "log_likelihood"),
    Estimator("likelihood_ratio (default)", "likelihood_ratio"),
    Estimator("loaded_dice, decay 0", "loaded_dice", decay=0.0),
    Estimator("loaded_dice, decay 0.5", "loaded_dice", decay=0.5),
    Estimator("loaded_dice, decay 0.9", "loaded_dice", decay=0.9),
    Estimator("loaded_dice, decay 1", "loaded_dice", decay=1.0),
    Estimator("dice", "dice"),
    Estimator("log_likelihood + emaml_weight (E-MAML)", "log_likelihood", emaml=True),
)
FIRST_ORDER, LOG_LIKELIHOOD, LIKELIHOOD_RATIO, *_, DICE, E_MAML = ESTIMATORS


def adapt(
    problem: Problem,
    support: TrainingBatch,
    make_query: Callable[[Params], TrainingBatch],
    return_weight: Callable[[TrainingBatch], Tensor] | None = None,
) -> MetaMicrobatch:
    """Adapt to each task by one step, with the query batch of the adapted parameters.

    With discount 1 the step is the same for all surrogates.

    Args:
        problem: the problem.
        support: the batch to adapt from, of B tasks.
        make_query: the query batch of adapted parameters, stacked (B, ...).
        return_weight: the return weights, (B,), of a query batch; 0 by default.
    """
    num_tasks, inner = len(support.obs), InnerLoop(SGD(problem.lr))
    state = inner.adapt(
        problem.meta,
        [lambda params: likelihood_ratio(problem.policy(params, support.obs), support)],
        num_tasks,
    )
    adapted = inner.to_model_params(problem.meta, state)
    query = make_query(adapted)
    weights = torch.zeros(num_tasks, dtype=torch.float64)
    if return_weight is not None:
        weights = return_weight(query)
    return MetaMicrobatch((support,), state, (Query(1, adapted, query),), weights)


def limit_microbatch(problem: Problem, baseline: Baseline | None) -> MetaMicrobatch:
    """Return one task with all trajectories before and after adaptation."""
    support = complete_batch(problem, problem.stacked(problem.vector), baseline)
    return adapt(problem, support, lambda params: complete_batch(problem, params, baseline))


def limit_gradient(
    problem: Problem, estimator: Estimator, baseline: Baseline | None = None
) -> Tensor:
    """Return what the mean of an estimator becomes with infinitely many episodes, (P,).

    E-MAML's term is a covariance over data sets and cannot be had from all trajectories at once,
    but its mean is ∇V_E, which becomes ∇V.
    """
    if estimator.emaml:
        return exact_gradient(problem)
    return estimator.gradient(problem, limit_microbatch(problem, baseline))


def limit_bias(problem: Problem, estimator: Estimator, baseline: Baseline) -> float:
    """Return the relative bias on infinitely many episodes."""
    return relative_bias(limit_gradient(problem, estimator, baseline), exact_gradient(problem))


def mean_gradient(sets: DataSets, estimator: Estimator, baseline: bool = True) -> Tensor:
    """Return the exact mean of an estimator over all data sets before adaptation, (P,).

    What is played after adaptation is all trajectories.
    """
    problem = sets.problem
    share = sets.probability(problem.vector) * len(sets.index)  # the objective divides by B

    def weighted(policy: Distribution, batch: TrainingBatch) -> Tensor:
        return share * likelihood_ratio(policy, batch)

    params = problem.stacked(problem.vector, len(sets.index))
    support = played_batch(problem, params, sets.episodes, baseline)
    microbatch = adapt(problem, support, lambda params: complete_batch(problem, params))
    returns = mean_reward(problem, microbatch.adapted) * problem.family.horizon
    microbatch = replace(microbatch, return_weight=share * returns)
    return estimator.gradient(problem, microbatch, weighted, sets.index.shape[1])


def play(
    problem: Problem,
    params: Params,
    num_episodes: int,
    rng: np.random.Generator,
    baseline: bool = True,
) -> TrainingBatch:
    """Play episodes of the task by each of a stack of policies."""
    tasks = np.repeat(problem.task[None], len(params["weight0"]), axis=0)
    env = problem.family.make_batch(len(tasks) * num_episodes)
    # All episodes draw from one generator, one after the other.
    rngs = [rng] * env.num_episodes
    episodes = collect(env, problem.policy.actor(params), tasks, rngs, Timer())
    return played_batch(problem, params, episodes, baseline)


def sampled_microbatch(
    problem: Problem,
    num_tasks: int,
    num_episodes: int,
    rng: np.random.Generator,
    baseline: bool = True,
) -> MetaMicrobatch:
    """Play a meta-batch of `num_tasks` times the same task, adapt, and play again."""

    def return_weight(batch: TrainingBatch) -> Tensor:
        """The mean return, less that of the other tasks: such a baseline leaves no bias."""
        returns = batch.reward.sum(1) / num_episodes  # (B,)
        return (returns - returns.mean()) * num_tasks / max(num_tasks - 1, 1)

    support = play(problem, problem.stacked(problem.vector, num_tasks), num_episodes, rng, baseline)
    return adapt(
        problem,
        support,
        lambda params: play(problem, params, num_episodes, rng, baseline),
        return_weight,
    )


@dataclass(frozen=True)
class Sample:
    """Estimates of a gradient, each the mean over a meta-batch of `num_tasks`: (n, P)."""

    gradients: Tensor
    num_tasks: int

    @property
    def mean(self) -> Tensor:
        return self.gradients.mean(0)

    @property
    def noise(self) -> float:
        """The root mean square distance of `mean` from the true mean."""
        return float((self.gradients.var(0).sum() / len(self.gradients)).sqrt())

    @property
    def task_std(self) -> float:
        """The same of the estimate from a single task."""
        return self.noise * math.sqrt(len(self.gradients) * self.num_tasks)


def sample(
    problem: Problem,
    estimators: Sequence[Estimator],
    num_batches: int,
    num_tasks: int,
    num_episodes: int,
    rng: np.random.Generator,
    baseline: bool = True,
) -> list[Sample]:
    """Let all estimators see the same meta-batches."""
    gradients: list[list[Tensor]] = [[] for _ in estimators]
    for _ in range(num_batches):
        microbatch = sampled_microbatch(problem, num_tasks, num_episodes, rng, baseline)
        for found, estimator in zip(gradients, estimators, strict=True):
            found.append(estimator.gradient(problem, microbatch, num_episodes=num_episodes))
    return [Sample(torch.stack(found), num_tasks) for found in gradients]


def relative_bias(estimate: Tensor, exact: Tensor) -> float:
    return float((estimate - exact).norm() / exact.norm())


def cosine(estimate: Tensor, exact: Tensor) -> float:
    return float(estimate @ exact / (estimate.norm() * exact.norm()))
