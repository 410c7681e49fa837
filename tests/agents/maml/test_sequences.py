"""Training on sequences of tasks: the meta-objective through two tasks, in float64, and what it
measures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.base import Rollout
from metarl.agents.maml.inner_config import InnerConfig
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.outer.adam import AdamConfig
from metarl.agents.maml.queries import measured_rollouts
from metarl.agents.maml.surrogates import clipped_ratio
from metarl.agents.rollouts import adaptation_rollouts
from metarl.core.rng import Purpose
from tests.agents.maml.references import (
    adapted,
    assert_close,
    assert_every_slope,
    assert_slopes,
    dense,
)
from tests.agents.maml.settings import FAMILY

ADAPTATIONS = [
    ("all", "sgd", "log_likelihood"),
    ("all", "meta_sgd", "likelihood_ratio"),
    ("all", "lslr", "likelihood_ratio"),
    ("head", "sgd", "likelihood_ratio"),
    ("context", "meta_sgd", "likelihood_ratio"),
    ("latent", "sgd", "log_likelihood"),
]
SEQUENCES = np.array(
    [[[0.4, 0.3], [-0.4, 0.2]], [[0.3, -0.5], [0.1, 0.4]], [[-0.2, 0.1], [0.5, 0]]]
)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_gradient_through_two_tasks_equals_finite_differences(make_problem, steps):
    """In every coordinate, all parameters adapt: of `loss_and_kl`, which makes no graph."""
    problem = make_problem(steps, sequence=2)
    assert_every_slope(problem)


@pytest.mark.parametrize(("adapts", "rule", "surrogate"), ADAPTATIONS)
def test_the_gradient_through_two_tasks_by_every_kind_of_adaptation(
    make_problem, adapts, rule, surrogate
):
    problem = make_problem(1, surrogate, adapts=adapts, rule=rule, sequence=2)
    objective = problem.objective()
    gradient = objective.gradient().gradient
    assert_slopes(problem, gradient, lambda v: objective.loss_and_kl(v)[0])


def test_the_clipped_and_penalised_gradient_through_two_tasks(make_problem):
    """That of PPO, away from the old meta-parameters."""
    problem = make_problem(1, sequence=2)
    objective = problem.objective()
    noise = torch.from_numpy(np.random.default_rng(4).standard_normal(len(problem.old)))
    at = problem.old + 0.03 * noise

    def penalised(vector: Tensor):
        return objective.gradient(vector, clipped_ratio(0.1), kl_weight=0.7, inner_kl_weight=1.3)

    assert_slopes(problem, penalised(at).gradient, lambda v: penalised(v).loss, at)


@pytest.mark.parametrize("length", [2, 3])
def test_loss_and_kl_are_weighted_sums_over_the_queries(make_problem, length):
    """Of the policy after each task on this task, and of the last policy on all earlier tasks."""
    problem = make_problem(1, sequence=length)
    steps = [query.step for query in problem.microbatches[0].queries]
    assert steps == [*range(1, length + 1), *[length] * (length - 1)]
    vector = problem.old + 0.05 * torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    loss = kl = 0.0
    for new, old, batch in adapted(problem, vector.clone().requires_grad_()):
        ratio = (new.log_prob(batch.action) - batch.log_prob).exp()
        loss -= (ratio * batch.advantage * batch.weight).sum().item() / 3
        kl += (old.kl(new) * batch.weight).sum().item() / 3
    objective = problem.objective()
    assert objective.loss_and_kl(vector) == pytest.approx((loss, kl), rel=1e-11)
    found = objective.gradient(vector)
    assert (found.loss, found.kl) == pytest.approx((loss, kl), rel=1e-11)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_fisher_product_through_two_tasks_is_the_hessian_of_the_kl(make_problem, steps):
    """The dense Hessian by double backpropagation through the plain adaptation."""
    problem = make_problem(steps, sequence=2)

    def mean_kl(vector: Tensor) -> Tensor:
        return (
            sum((old.kl(new) * batch.weight).sum() for new, old, batch in adapted(problem, vector))
            / 3
        )

    hessian = torch.autograd.functional.hessian(mean_kl, problem.old)
    assert_close(dense(problem.objective().fisher_vector_product(), 34), hessian, rel=1e-10)


@pytest.mark.parametrize(("adapts", "rule", "surrogate"), ADAPTATIONS)
def test_the_fisher_product_through_two_tasks_by_every_kind_of_adaptation(
    make_problem, adapts, rule, surrogate
):
    """v F v is the second derivative of the KL of `loss_and_kl` along v, of fourth order."""
    problem = make_problem(1, surrogate, adapts=adapts, rule=rule, sequence=2)
    objective = problem.objective()
    direction = torch.from_numpy(np.random.default_rng(0).standard_normal(len(problem.old)))
    direction = direction / direction.norm()

    def kl(eps: float) -> float:
        return sum(objective.loss_and_kl(problem.old + e * direction)[1] for e in (eps, -eps))

    expected = (16 * kl(1e-3) - kl(2e-3)) / (12 * 1e-6)
    product = objective.fisher_vector_product()(direction)
    assert float(direction @ product) == pytest.approx(expected, rel=1e-5)


def test_parts_of_a_query_by_their_weights_are_the_query(make_problem):
    """For the gradient, the Fisher-vector product, its preconditioner and the line search."""
    problem = make_problem(1)

    def parted(microbatch):
        (query,) = microbatch.queries
        parts = tuple(replace(query, weight=weight) for weight in (0.25, 0.75))
        return replace(microbatch, queries=parts)

    whole = problem.objective()
    parts = problem.objective([parted(each) for each in problem.microbatches])
    vector = torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    for one, other in (
        (whole.gradient().gradient, parts.gradient().gradient),
        (whole.fisher_vector_product()(vector), parts.fisher_vector_product()(vector)),
        (whole.kfac_preconditioner(0.1)(vector), parts.kfac_preconditioner(0.1)(vector)),
    ):
        assert_close(one, other, rel=1e-12)
    at = problem.old + 0.05 * vector
    assert whole.loss_and_kl(at) == pytest.approx(parts.loss_and_kl(at), rel=1e-12)


def play_sequences(agent, timer, num_adaptations: int = 1) -> list[Rollout]:
    return list(
        adaptation_rollouts(
            agent,
            FAMILY.make_batch(3 * 4),
            SEQUENCES,
            num_adaptations,
            seed=0,
            purpose=Purpose.TRAIN_EPISODES,
            training=True,
            timer=timer,
        )
    )


@pytest.mark.parametrize("num_adaptations", [1, 2])
@pytest.mark.parametrize("retention_weight", [0.0, 3.0])
def test_the_measured_rollouts_are_those_after_each_task_and_the_revisits(
    make_agent, timer, num_adaptations, retention_weight
):
    rollouts = play_sequences(make_agent(FAMILY), timer, num_adaptations)
    assert len(rollouts) == 2 * (num_adaptations + 1) + 1
    measured = measured_rollouts(rollouts, retention_weight)
    expected = {
        num_adaptations: 0.5 / (1 + retention_weight),
        2 * num_adaptations + 1: 0.5 / (1 + retention_weight),
        2 * num_adaptations + 2: retention_weight / (1 + retention_weight),
    }
    kept = [(number, weight) for number, weight in expected.items() if weight]
    assert [each.weight for each in measured] == [weight for _, weight in kept]
    assert [id(each.episodes) for each in measured] == [id(rollouts[n].episodes) for n, _ in kept]


@pytest.mark.parametrize("tasks_per_microbatch", [1, 2])
def test_an_update_follows_the_objective_of_the_sequences(make_agent, timer, tasks_per_microbatch):
    """The gradient is the mean of those of three agents, each of which measures one query, by the
    weights: half of 1 / 3 for each task just met, and 2 / 3 for the first task in the end."""
    inner = InnerConfig(retention_weight=2.0)
    agent = make_agent(
        FAMILY,
        dtype=torch.float64,
        inner=inner,
        outer=AdamConfig(),
        tasks_per_microbatch=tasks_per_microbatch,
    )
    rollouts = play_sequences(agent, timer)
    steps = [rollout.state.microbatches[0].inner_state.step for rollout in rollouts]
    assert steps == [0, 1, 1, 2, 2]
    measured = measured_rollouts(rollouts, 2.0)

    def gradient(queries):
        microbatches, _ = agent._build_meta_batch(queries)
        args = (
            agent.policy,
            agent.inner_loop,
            agent._surrogate,
            agent.meta,
            microbatches,
            agent._pool,
        )
        return MetaObjective(*args).gradient().gradient

    parts = [gradient([replace(each, weight=1.0)]) for each in measured]
    expected = (parts[0] + parts[1]) / 6 + parts[2] * 2 / 3
    assert_close(gradient(measured), expected, rel=1e-10)
    found = agent.update(rollouts, np.random.default_rng(0), timer)
    assert found["gradient_norm"] == pytest.approx(float(expected.norm()), rel=1e-9)


def test_a_sequence_with_a_failed_phase_is_left_out(make_agent, timer):
    """Its other phases too: the update is that of the other sequences."""
    updated = []
    for failed in (False, True):
        agent = make_agent(FAMILY, dtype=torch.float64, outer=AdamConfig())
        rollouts = play_sequences(agent, timer)
        for number, rollout in enumerate(rollouts):
            if failed and number >= 1:  # the query of the first task; those after it are not played
                rollout.episodes.mask[1] = False
        if not failed:
            kept = np.array([0, 2])
            rollouts = [
                Rollout(state.of_tasks(kept), episodes.of_tasks(kept))
                for state, episodes in rollouts
            ]
        agent.update(rollouts, np.random.default_rng(0), timer)
        updated.append(torch.cat([value.flatten() for value in agent.meta.values()]))
    assert_close(*updated, rel=1e-12)
