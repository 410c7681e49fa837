"""The tables of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from examples.estimators.data import (
    data_sets,
    exact_baseline,
    few_episodes_gradient,
    fitted_baseline,
    marginal_batch,
    no_baseline,
)
from examples.estimators.exact import (
    Problem,
    action_values,
    adapted,
    exact_gradient,
    expected,
    make_problem,
    slope,
    visits,
)
from examples.estimators.sampling import (
    ESTIMATORS,
    FIRST_ORDER,
    LIKELIHOOD_RATIO,
    LOG_LIKELIHOOD,
    Sample,
    adapt,
    cosine,
    limit_bias,
    limit_gradient,
    limit_microbatch,
    mean_gradient,
    play,
    relative_bias,
    sample,
)
from metarl.agents.maml.batch import TrainingBatch
from metarl.agents.maml.surrogates import likelihood_ratio


@dataclass(frozen=True)
class Effort:
    """How much to compute.

    Attributes:
        num_tasks: over which exact biases are summarised.
        limit_horizons: lengths of episodes for which biases are summarised.
        set_sizes: episodes of the data sets that are enumerated.
        num_batches: meta-batches that are played.
        batch_episodes: episodes of a meta-batch, before and after adaptation each.
        num_episodes: E of the tasks of a meta-batch.
        horizons: of the long episodes.
        long_batches: meta-batches of those.
    """

    num_tasks: int = 30
    limit_horizons: tuple[int, ...] = (1, 2, 5, 10, 20, 50)
    set_sizes: tuple[int, ...] = (1, 2, 4, 8)
    num_batches: int = 50
    batch_episodes: int = 4000
    num_episodes: tuple[int, ...] = (5, 20, 80, 2000)
    horizons: tuple[int, ...] = (10, 50, 200)
    long_batches: int = 20


FAST = Effort(
    num_tasks=1,
    limit_horizons=(1, 2),
    set_sizes=(1, 2),
    num_batches=3,
    batch_episodes=80,
    num_episodes=(5, 20),
    horizons=(5,),
    long_batches=2,
)

LR = 2.0  # large enough for second derivatives to matter
NUMBER = 11  # a task with biases large enough to be measured; others are in the first table
LONG_EPISODES, LONG_TASKS = 20, 20
BATCH = 40  # tasks of a meta-batch in training


def main_problem(number: int = NUMBER) -> Problem:
    return make_problem(3, 2, 5, LR, number=number)


def tiny_problem() -> Problem:
    return make_problem(2, 2, 2, LR, number=NUMBER)


def long_problem(horizon: int, number: int = 0, deterministic: bool = False) -> Problem:
    """Return a task of the family's default size, perhaps with the likeliest state always next."""
    problem = make_problem(10, 5, horizon, LR, number=number)
    if not deterministic:
        return problem
    rewards, transitions = problem.family.tables(problem.task)
    certain = np.eye(problem.family.num_states)[transitions.argmax(-1)]
    return replace(problem, task=np.concatenate([rewards.ravel(), certain.ravel()]))


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def with_noise(bias: float, noise: float) -> str:
    """Say how large a bias is, and whether it may be zero."""
    return f"{percent(bias)} ± {percent(noise)}" + (" °" if bias <= 2 * noise else "")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, the first column to the left and the others to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def limit_table(effort: Effort) -> str:
    """Biases on infinitely many episodes."""
    labelled = [(e.name, e, fitted_baseline) for e in ESTIMATORS if not e.emaml]
    labelled.insert(2, ("log_likelihood, no baseline", LOG_LIKELIHOOD, no_baseline))
    biases = np.zeros((effort.num_tasks, len(labelled)))
    for number in range(effort.num_tasks):
        problem = main_problem(number)
        exact = exact_gradient(problem)
        microbatches = {b: limit_microbatch(problem, b) for b in (fitted_baseline, no_baseline)}
        for column, (_, estimator, baseline) in enumerate(labelled):
            estimate = estimator.gradient(problem, microbatches[baseline])
            biases[number, column] = relative_bias(estimate, exact)

    problem = main_problem()
    exact, rows = exact_gradient(problem), []
    for column, (name, estimator, baseline) in enumerate(labelled):
        estimate, others = limit_gradient(problem, estimator, baseline), biases[:, column]
        worse = int((others > biases[:, 0] + 1e-3).sum())  # the linear baseline is not quite exact
        rows.append(
            [
                name,
                percent(relative_bias(estimate, exact)),
                f"{cosine(estimate, exact):.3f}",
                percent(float(np.median(others))),
                percent(float(np.quantile(others, 0.9))),
                str(worse),
            ]
        )
    header = [
        "estimator",
        "bias, %",
        "cosine",
        "median, %",
        "90th percentile, %",
        "worse than first order",
    ]
    return table(header, rows)


def cross_term(problem: Problem, decay: float) -> Tensor:
    """Return what loaded DiCE adds to the Hessian of `likelihood_ratio`, less the transpose: the
    sum over steps s < t of decay^(t - s) E[∇ log π_s ∇ log π_t^T A_t] / T, (P, P)."""

    def log_prob(vector: Tensor) -> Tensor:
        return problem.action_prob(problem.stacked(vector))[0].log()

    score = torch.autograd.functional.jacobian(log_prob, problem.vector)  # (S, A, P)
    assert isinstance(score, Tensor)  # jacobian's type allows for tuples
    params, (_, transitions) = problem.stacked(problem.vector), problem.tables
    prob, state = problem.action_prob(params)[0], visits(problem, params)[0]
    values = action_values(problem, params)[0]
    past = torch.zeros_like(score[:, 0])  # (S, P): E[sum of decayed scores so far, state now]
    cross = torch.zeros(score.shape[-1], score.shape[-1], dtype=score.dtype)
    for here, value in zip(state, values, strict=True):
        advantage = value - (prob * value).sum(-1, keepdim=True)
        cross = cross + torch.einsum("sp,sa,saq->pq", past, prob * advantage, score)
        scores = (past[:, None] + here[:, None, None] * score) * prob[..., None]  # (S, A, P)
        past = decay * torch.einsum("sap,san->np", scores, transitions)
    return cross / problem.family.horizon


def horizon_table(effort: Effort) -> str:
    """Biases on infinitely many episodes against their length."""
    rows = []
    for horizon in effort.limit_horizons:
        row = [str(horizon)]
        for deterministic in (False, True):
            biases = []
            for number in range(effort.num_tasks):
                problem = long_problem(horizon, number, deterministic)
                support = marginal_batch(problem, problem.stacked(problem.vector))
                microbatch = adapt(problem, support, lambda p, own=problem: marginal_batch(own, p))
                exact, there = exact_gradient(problem), adapted(problem, problem.vector).detach()
                first_order, ratio = (
                    estimator.gradient(problem, microbatch)
                    for estimator in (FIRST_ORDER, LIKELIHOOD_RATIO)
                )
                cross = cross_term(problem, decay=0.9)
                change = (cross + cross.T) @ slope(lambda v, own=problem: expected(own, v), there)
                estimates = (first_order, ratio, ratio + problem.lr * change)
                biases.append([relative_bias(estimate, exact) for estimate in estimates])
            row += [percent(median) for median in np.median(biases, axis=0)]
        rows.append(row)
    names = ("first order", "likelihood_ratio", "loaded_dice, decay 0.9")
    kinds = [f"{kind}: {name}" for kind in ("random", "certain") for name in names]
    return table(["T", *kinds], rows)


def played_tables(effort: Effort, rng: np.random.Generator) -> tuple[str, str]:
    """Bias and spread on played episodes, with the project's baseline and with none."""
    problem = main_problem()
    exact = exact_gradient(problem)
    size, tables = float(exact.norm()), []
    for baseline in (True, False):
        found = {}
        for num_episodes in effort.num_episodes:
            num_tasks = max(effort.batch_episodes // num_episodes, 2)
            found[num_episodes] = sample(
                problem, ESTIMATORS, effort.num_batches, num_tasks, num_episodes, rng, baseline
            )
        rows = []
        for number, estimator in enumerate(ESTIMATORS):
            samples = {n: samples[number] for n, samples in found.items()}
            bias = {n: relative_bias(s.mean, exact) for n, s in samples.items()}
            limit = limit_bias(problem, estimator, fitted_baseline if baseline else no_baseline)
            rows.append(
                [
                    estimator.name,
                    *(with_noise(bias[n], samples[n].noise / size) for n in samples),
                    percent(limit),
                    *(percent(samples[n].task_std / size) for n in samples if n <= 80),
                    percent(math.hypot(bias[20], samples[20].task_std / size / math.sqrt(BATCH))),
                ]
            )
        header = [
            "estimator",
            *(f"bias, E = {n}" for n in found),
            "∞",
            *(f"std, E = {n}" for n in found if n <= 80),
            f"error, {BATCH} tasks, E = 20",
        ]
        tables.append(table(header, rows))
    return tables[0], tables[1]


def policy_gradient(problem: Problem, played: TrainingBatch) -> Tensor:
    """Return the mean gradient of the inner surrogate, of J, at θ, (P,)."""

    def objective(vector: Tensor) -> Tensor:
        params = problem.stacked(vector, len(played.obs))
        return -likelihood_ratio(problem.policy(params, played.obs), played).mean()

    return slope(objective, problem.vector)


def policy_gradient_table(effort: Effort, rng: np.random.Generator) -> str:
    """Bias of the policy gradient itself, for the baseline that is fitted to the same episodes."""
    problem = main_problem()
    exact = slope(lambda v: expected(problem, v), problem.vector)
    rows = []
    for name, baseline in (("fitted to the same episodes", True), ("none", False)):
        row = [name]
        for num_episodes in effort.num_episodes:
            num_tasks = max(effort.batch_episodes // num_episodes, 2)
            params = problem.stacked(problem.vector, num_tasks)
            found = [
                policy_gradient(problem, play(problem, params, num_episodes, rng, baseline))
                for _ in range(effort.num_batches)
            ]
            estimate = Sample(torch.stack(found), num_tasks)
            noise = estimate.noise / float(exact.norm())
            row.append(with_noise(relative_bias(estimate.mean, exact), noise))
        rows.append(row)
    return table(["baseline", *(f"E = {n}" for n in effort.num_episodes)], rows)


def few_episodes_table(effort: Effort) -> str:
    """Exact biases on data sets of few episodes, without a baseline."""
    problem = tiny_problem()
    all_sets = [data_sets(problem, size) for size in effort.set_sizes]
    targets = [few_episodes_gradient(sets, baseline=False) for sets in all_sets]
    exact = exact_gradient(problem)
    rows = [["∇V itself", *(percent(relative_bias(exact, target)) for target in targets), "0.0"]]
    for estimator in ESTIMATORS:
        means = [mean_gradient(sets, estimator, baseline=False) for sets in all_sets]
        biases = [relative_bias(mean, target) for mean, target in zip(means, targets, strict=True)]
        biases.append(limit_bias(problem, estimator, no_baseline))
        rows.append([estimator.name, *(percent(bias) for bias in biases)])
    return table(["estimator", *(f"E = {size}" for size in effort.set_sizes), "∞"], rows)


def long_table(effort: Effort, rng: np.random.Generator) -> str:
    """Spread against the length of the episodes."""
    columns = []
    for horizon in effort.horizons:
        problem = long_problem(horizon)
        size = float(exact_gradient(problem).norm())
        samples = sample(problem, ESTIMATORS, effort.long_batches, LONG_TASKS, LONG_EPISODES, rng)
        columns.append([s.task_std / size for s in samples])
    rows = [
        [estimator.name, *(f"{100 * column[number]:.0f}" for column in columns)]
        for number, estimator in enumerate(ESTIMATORS)
    ]
    return table(["estimator", *(f"T = {horizon}" for horizon in effort.horizons)], rows)


def determinism_table() -> str:
    """The share of the second-order term that LVC misses, as the policy becomes deterministic."""
    rows = []
    for other in (0.3, 0.1, 0.01, 0.001):
        problem = nearly_deterministic(main_problem(), other)
        exact, microbatch = exact_gradient(problem), limit_microbatch(problem, exact_baseline)
        term = exact - FIRST_ORDER.gradient(problem, microbatch)
        missed = exact - LIKELIHOOD_RATIO.gradient(problem, microbatch)
        rows.append([f"{other:g}", percent(float(missed.norm() / term.norm()))])
    return table(["probability of other actions", "missed, %"], rows)


def nearly_deterministic(problem: Problem, other: float) -> Problem:
    """Give the other than the likeliest actions a probability of `other` together."""
    num_actions = problem.family.num_actions
    likeliest = torch.eye(num_actions, dtype=torch.float64)[problem.meta["weight0"].argmax(-1)]
    prob = likeliest * (1 - other) + (1 - likeliest) * other / (num_actions - 1)
    return replace(problem, meta={**problem.meta, "weight0": prob.log()})
