"""metarl.agents.pearl.posterior and encoder_loss, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from metarl.agents.pearl.encoder_loss import halves, metric_loss
from metarl.agents.pearl.posterior import Factors, kl_to_prior, product, sample


def test_the_product_of_gaussians_by_hand():
    """N(1, 1/2) N(4, 1) in one dimension: precision 2 + 1, mean (2 * 1 + 1 * 4) / 3."""
    factors = Factors(
        torch.tensor([[1.0, 0.0], [4.0, 3.0]]), torch.tensor([[0.5, 1.0], [1.0, 2.0]])
    )
    found = product(factors)
    torch.testing.assert_close(found.mean, torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(found.variance, torch.tensor([1 / 3, 2 / 3]))


def test_n_equal_factors_have_an_nth_of_the_variance():
    found = product(Factors(torch.full((3, 10, 2), 0.7), torch.full((3, 10, 2), 4.0)))
    torch.testing.assert_close(found.mean, torch.full((3, 2), 0.7))
    torch.testing.assert_close(found.variance, torch.full((3, 2), 0.4))


def test_a_factor_without_variance_stays_finite():
    found = product(Factors(torch.tensor([[2.0], [0.0]]), torch.tensor([[0.0], [1.0]])))
    torch.testing.assert_close(found.mean, torch.tensor([2.0]))
    assert found.variance.item() == pytest.approx(1e-7)


def test_the_kl_divergence_is_that_of_torch():
    mean, variance = torch.randn(4, 3), torch.rand(4, 3) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, variance.sqrt()), normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_prior(Factors(mean, variance)), expected.sum(-1))
    assert kl_to_prior(Factors(torch.zeros(2), torch.ones(2))) == 0


def test_a_draw_has_mean_and_standard_deviation():
    found = sample(Factors(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0])), torch.tensor(-1.0))
    assert found.tolist() == [-1.0, -1.0]


def test_the_metric_loss_by_hand():
    """Embeddings 0 and (2, 0) of task 0, (0, 4) of task 1: mean squares 2, 8 and 10."""
    embedding = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
    task = torch.tensor([0, 0, 1])
    push = (1 / (8 + 0.1) + 1 / (10 + 0.1)) / 2
    assert metric_loss(embedding, task, 3.0).item() == pytest.approx(2 + 3 * push)
    alone = metric_loss(embedding[:2], task[:2], 3.0).item()
    assert alone == pytest.approx(2.0)
    apart = metric_loss(embedding, torch.tensor([0, 1, 2]), 1.0).item()
    assert apart == pytest.approx((1 / 2.1 + 1 / 8.1 + 1 / 10.1) / 3)


def test_the_metric_loss_has_a_finite_gradient_where_embeddings_are_equal():
    embedding = torch.zeros(4, 2, requires_grad=True)
    loss = metric_loss(embedding, torch.tensor([0, 0, 1, 1]), 1.0)
    assert loss.item() == pytest.approx(10.0)
    (gradient,) = torch.autograd.grad(loss, embedding)
    assert math.isfinite(gradient.abs().sum())


def test_descent_on_the_metric_loss_separates_tasks():
    torch.manual_seed(0)
    embedding, task = torch.randn(8, 2), torch.arange(4).repeat(2)
    for _ in range(300):
        start = embedding.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(metric_loss(start, task, 1.0), start)
        embedding = embedding - 0.3 * gradient
    distance = torch.cdist(embedding, embedding)
    same = task[:, None] == task
    assert distance[same].max() < 0.1
    assert distance[~same].min() > 0.5


def test_the_halves_of_a_context_are_disjoint_parts_of_each_task():
    context = torch.arange(2 * 5 * 1.0).view(2, 5, 1)
    parts, task = halves(context)
    assert parts[..., 0].tolist() == [[0, 1], [5, 6], [2, 3], [7, 8]]
    assert task.tolist() == [0, 1, 0, 1]
