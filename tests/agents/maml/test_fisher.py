"""MetaObjective.fisher_vector_product: the curvature through the adaptation, in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.maml.microbatch import in_groups
from tests.agents.maml.references import (
    SURROGATES,
    adapted,
    assert_close,
    dense,
)


@pytest.mark.parametrize(
    ("steps", "surrogate", "first_order", "loss_scaled_lr"),
    [
        (0, "likelihood_ratio", False, 0.0),
        (2, "likelihood_ratio", False, 0.05),
        *itertools.product((1, 2), SURROGATES, (False, True), (0.0,)),
    ],
    ids=str,
)
def test_the_fisher_product_is_the_hessian_of_the_mean_kl(
    make_problem, steps, surrogate, first_order, loss_scaled_lr
):
    """The dense Hessian by double backpropagation through the plain adaptation."""
    problem = make_problem(steps, surrogate, first_order=first_order, loss_scaled_lr=loss_scaled_lr)

    def mean_kl(vector: Tensor) -> Tensor:
        kls = [(old.kl(new) * after.weight).sum() for new, old, after in adapted(problem, vector)]
        return sum(kls) / len(kls)

    hessian = torch.autograd.functional.hessian(mean_kl, problem.old)
    assert_close(dense(problem.objective().fisher_vector_product(), 34), hessian, rel=1e-10)


@pytest.mark.parametrize(
    ("surrogate", "adapts", "rule", "loss_scaled_lr"),
    [
        ("likelihood_ratio", "head", "meta_sgd", 0.0),
        ("log_likelihood", "context", "sgd", 0.0),
        ("likelihood_ratio", "context", "sgd", 0.05),
        ("likelihood_ratio", "latent", "lslr", 0.0),
        ("dice", "all", "sgd", 0.0),
        ("loaded_dice", "context", "meta_sgd", 0.0),
    ],
)
def test_the_fisher_product_is_the_kls_curvature_through_any_adaptation(
    make_problem, surrogate, adapts, rule, loss_scaled_lr
):
    """KL(old || new) is half the square of a small step in the Fisher matrix: u F v by the squares
    of u + v and u - v, with the KL of `loss_and_kl`, which adapts without any graph."""
    problem = make_problem(2, surrogate, adapts=adapts, rule=rule, loss_scaled_lr=loss_scaled_lr)
    reference = problem.objective()
    rng = np.random.default_rng(0)
    u, v = (torch.from_numpy(rng.standard_normal(len(problem.old))) for _ in range(2))
    u, v = u / u.norm(), v / v.norm()

    def square(direction: Tensor) -> float:
        """Twice the KL over the square of the step, of fourth order."""

        def kl(eps: float) -> float:
            return sum(reference.loss_and_kl(problem.old + e * direction)[1] for e in (eps, -eps))

        eps = 1e-3
        return (16 * kl(eps) - kl(2 * eps)) / (12 * eps**2)

    expected = (square(u + v) - square(u - v)) / 4
    product = problem.objective().fisher_vector_product()(v)
    size = float((v @ product * (u @ problem.objective().fisher_vector_product()(u))).sqrt())
    assert float(u @ product) == pytest.approx(expected, abs=1e-5 * size)
    assert float(v @ product) == pytest.approx(square(v), rel=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_fisher_product_of_discrete_policies(make_problem, discrete, steps):
    """The dense Hessian of the mean KL, by double backpropagation."""
    problem = make_problem(steps, **discrete, lr=0.1)

    def mean_kl(vector: Tensor) -> Tensor:
        kls = [(old.kl(new) * after.weight).sum() for new, old, after in adapted(problem, vector)]
        return sum(kls) / len(kls)

    hessian = torch.autograd.functional.hessian(mean_kl, problem.old)
    assert_close(
        dense(problem.objective().fisher_vector_product(), len(problem.old)), hessian, rel=1e-10
    )


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_fisher_matrix_is_symmetric_and_positive_semidefinite(make_problem, fraction):
    matrix = dense(make_problem(2).objective().fisher_vector_product(fraction, fraction), 34)
    assert_close(matrix, matrix.T, rel=1e-13)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues[0] > -1e-12 * eigenvalues[-1]
    assert eigenvalues[-1] > 0


@pytest.mark.parametrize("rule", ["sgd", "meta_lstm"])
@pytest.mark.parametrize("sequence", [1, 2])
def test_tasks_together_have_the_products_of_each_on_its_own(
    make_problem, monkeypatch, rule, sequence
):
    """The microbatches have other numbers of tasks; all weights and states are taken along."""
    problem = make_problem(2, rule=rule, sequence=sequence)
    vector = torch.from_numpy(np.random.default_rng(0).standard_normal(len(problem.old)))
    assert len(in_groups(problem.microbatches, 1)) == len(problem.microbatches) > 1
    alone = problem.objective().fisher_vector_product()(vector)
    monkeypatch.setattr("metarl.agents.maml.microbatch.MIN_GROUPS", 1)
    assert len(in_groups(problem.microbatches, 1)) == 1
    assert_close(problem.objective().fisher_vector_product()(vector), alone, rel=1e-12)


def test_groups_have_a_limited_number_of_steps(make_problem, monkeypatch):
    microbatches = make_problem(1).microbatches[:1] * 33  # of 12 steps for each task
    steps = microbatches[0].support[0].weight.numel()
    monkeypatch.setattr("metarl.agents.maml.microbatch.GROUP_STEPS", 3 * steps)
    sizes = {stride: [len(g) for g in in_groups(microbatches, stride)] for stride in (1, 8)}
    assert sizes == {1: [3] * 11, 8: [4] * 8 + [1]}  # at least 8 groups


@pytest.mark.parametrize(("fraction", "jacobian_fraction"), [(1, 1), (1 / 2, 1), (1, 1 / 4)])
def test_fractions_are_every_so_many_steps(make_problem, fraction, jacobian_fraction):
    """Of those after adaptation and of those before it, each by its own fraction."""
    problem = make_problem(2)
    stride, jacobian_stride = round(1 / fraction), round(1 / jacobian_fraction)
    thinned = [
        replace(
            microbatch,
            support=tuple(batch.every(jacobian_stride) for batch in microbatch.support),
            queries=tuple(replace(q, batch=q.batch.every(stride)) for q in microbatch.queries),
        )
        for microbatch in problem.microbatches
    ]
    vector = torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    product = problem.objective().fisher_vector_product(fraction, jacobian_fraction)(vector)
    all_steps = stride == jacobian_stride == 1
    assert torch.equal(product, problem.objective(thinned).fisher_vector_product()(vector))
    assert torch.equal(product, problem.objective().fisher_vector_product()(vector)) == all_steps


def test_a_fraction_keeps_whole_episodes_for_surrogates_that_need_them(make_problem):
    """The first of the two episodes before each step; every second step after it."""
    problem = make_problem(2, "loaded_dice")
    thinned = [
        replace(
            microbatch,
            support=tuple(batch.every(2, whole_episodes=True) for batch in microbatch.support),
            queries=tuple(replace(q, batch=q.batch.every(2)) for q in microbatch.queries),
        )
        for microbatch in problem.microbatches
    ]
    vector = torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    product = problem.objective().fisher_vector_product(0.5, 0.5)(vector)
    assert torch.equal(product, problem.objective(thinned).fisher_vector_product()(vector))
