"""metarl.agents.maml.meta_objective: its loss, terms and divergences, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.maml.outer.reptile import reptile_direction
from metarl.agents.maml.surrogates import (
    clipped_ratio,
)
from metarl.core.params import leaves, stack, unflatten
from tests.agents.maml.references import (
    SURROGATES,
    adapted,
    assert_close,
    assert_slopes,
)

EARLIER = {"emaml_weight": "log_likelihood", "pre_adaptation_weight": "likelihood_ratio"}
"""Terms of the policies before each adaptation step, and an inner surrogate they go with."""


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("term", EARLIER)
def test_an_earlier_policys_terms_gradient_equals_finite_differences(make_problem, term, steps):
    problem = make_problem(steps, EARLIER[term], **{term: 1.5})
    objective = problem.objective()
    gradient = objective.gradient().gradient
    assert_slopes(problem, gradient, lambda v: objective.loss_and_kl(v)[0])
    plain = make_problem(steps, EARLIER[term]).objective().gradient().gradient
    assert float((gradient - plain).norm()) > 0.01


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("term", EARLIER)
def test_an_earlier_policys_term_is_added_for_each_step(make_problem, term, steps):
    """1.5 times -(mean ratio of the policy before the step) * return weight, as in E-MAML, or the
    surrogate there; away from the old meta-parameters."""
    weighted, plain = (make_problem(steps, EARLIER[term], **{term: w}) for w in (1.5, 0.0))
    vector = plain.old + 0.05 * torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    expected = 0.0
    for microbatch in plain.singles():
        trajectory = plain.plain_trajectory(leaves(unflatten(vector, plain.meta)), microbatch)
        for params, batch in zip(trajectory, microbatch.support, strict=False):
            policy = plain.policy(stack(params, 1), batch.obs)
            ratio = (policy.log_prob(batch.action) - batch.log_prob).exp()
            worth = microbatch.return_weight if term == "emaml_weight" else batch.advantage
            expected -= 1.5 * (ratio * worth * batch.weight).sum().item() / 3
    added = [
        weighted.objective().loss_and_kl(vector)[0] - plain.objective().loss_and_kl(vector)[0],
        weighted.objective().gradient(vector).loss - plain.objective().gradient(vector).loss,
    ]
    assert added == pytest.approx([expected] * 2, rel=1e-10, abs=1e-14)
    assert (expected == 0) == (steps == 0)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_divergences_enter_the_loss_by_their_weights(make_problem, steps):
    """KL(old || new) of the adapted policies, and the sum over those before each step, each the
    mean over tasks; away from the old meta-parameters."""
    problem = make_problem(steps)
    vector = problem.old + 0.05 * torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    kl = np.mean(
        [
            (old.kl(new) * after.weight).sum().item()
            for new, old, after in adapted(problem, vector.clone().requires_grad_())
        ]
    )
    inner_kl = 0.0
    for microbatch in problem.singles():
        old, new = (
            problem.plain_trajectory(leaves(unflatten(each, problem.meta)), microbatch)
            for each in (problem.old, vector)
        )
        for before, after, batch in zip(old, new, microbatch.support, strict=False):
            before, after = (
                problem.policy(stack(params, 1), batch.obs) for params in (before, after)
            )
            inner_kl += (before.kl(after) * batch.weight).sum().item() / 3
    objective = problem.objective()
    plain = objective.gradient(vector)
    assert plain.kl == pytest.approx(kl, rel=1e-10)
    assert plain.inner_kl == 0.0, "not looked at"
    found = problem.objective().gradient(vector, kl_weight=2.0, inner_kl_weight=3.0)
    assert (found.kl, found.inner_kl) == pytest.approx((kl, inner_kl), rel=1e-10)
    assert found.loss == pytest.approx(plain.loss + 2 * kl + 3 * inner_kl, rel=1e-10)
    assert (inner_kl == 0) == (steps == 0)


@pytest.mark.parametrize("at_old", [True, False])
@pytest.mark.parametrize("emaml_weight", [0.0, 1.0])
@pytest.mark.parametrize(("adapts", "rule"), [("all", "sgd"), ("context", "meta_sgd")])
def test_the_penalised_clipped_gradient_equals_finite_differences(
    make_problem, at_old, emaml_weight, adapts, rule
):
    """At the old meta-parameters, where the divergences' own gradients vanish, and away from
    them, where the clip is active."""
    surrogate = "log_likelihood" if emaml_weight else "likelihood_ratio"
    problem = make_problem(2, surrogate, adapts=adapts, rule=rule, emaml_weight=emaml_weight)
    objective = problem.objective()
    noise = torch.from_numpy(np.random.default_rng(4).standard_normal(len(problem.old)))
    at = problem.old if at_old else problem.old + 0.03 * noise

    def penalised(vector: Tensor | None):
        return objective.gradient(vector, clipped_ratio(0.1), kl_weight=0.7, inner_kl_weight=1.3)

    found = penalised(None if at_old else at)
    assert_slopes(problem, found.gradient, lambda v: penalised(v).loss, at)
    without = objective.gradient(at, clipped_ratio(0.1)).gradient
    matters = float((found.gradient - without).norm() / without.norm())
    assert (matters > 0.01) != at_old
    unclipped = objective.gradient(at).gradient
    assert float((without - unclipped).norm()) > 0.01 or at_old


def test_old_policies_are_those_of_the_old_meta_parameters_in_any_order(make_problem):
    """Whether loss_and_kl, or a gradient with or without support batches, asks for them first."""
    problem = make_problem(2)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    vector = problem.old + 0.05 * noise

    def answers(first: Callable) -> tuple:
        objective = problem.objective()
        first(objective)
        found = objective.gradient(vector, inner_kl_weight=1.0)
        return objective.loss_and_kl(vector), found.kl, found.inner_kl, found.gradient.tolist()

    def with_support(objective):
        objective.gradient(inner_kl_weight=1.0)

    expected = answers(with_support)
    assert answers(lambda objective: None) == expected
    assert answers(lambda objective: objective.gradient(vector, inner_kl_weight=1.0)) == expected


@pytest.mark.parametrize("first", ["loss_and_kl", "gradient"])
def test_old_policies_before_adaptation_are_there_when_they_are_asked_for_later(
    make_problem, first
):
    """After an evaluation, or a gradient, that did not need them."""
    problem = make_problem(1)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    vector = problem.old + 0.05 * noise
    expected = problem.objective().gradient(vector, inner_kl_weight=1.0)
    objective = problem.objective()
    objective.loss_and_kl(problem.old) if first == "loss_and_kl" else objective.gradient()
    found = objective.gradient(vector, inner_kl_weight=1.0)
    assert found.inner_kl == pytest.approx(expected.inner_kl, rel=1e-12)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["query", "support"])
def test_what_is_not_finite_is_refused(make_problem, bad, place):
    """In the query and in a support batch, by the gradient and by Reptile's direction."""
    problem = make_problem(1)
    microbatch = problem.microbatches[1]
    if place == "query":
        query = microbatch.queries[-1]
        advantage = query.batch.advantage.clone()
        advantage[0, 0] = bad
        query = replace(query, batch=replace(query.batch, advantage=advantage))
        problem.microbatches[1] = replace(microbatch, queries=(query,))
        with pytest.raises(FloatingPointError, match="not finite; nothing was updated"):
            reptile_direction(problem.objective())
    else:
        advantage = microbatch.support[0].advantage.clone()
        advantage[0, 0] = bad
        problem.microbatches[1] = replace(
            microbatch, support=(replace(microbatch.support[0], advantage=advantage),)
        )
    with pytest.raises(FloatingPointError, match="not finite; nothing was updated"):
        problem.objective().gradient()


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_loss_and_kl_are_the_ratio_surrogate_and_the_kl_from_old_to_new(
    make_problem, steps, surrogate
):
    """Of the adapted policies, at meta-parameters away from the old ones; not KL(new || old)."""
    problem = make_problem(steps, surrogate)
    objective = problem.objective()
    objective.gradient()
    vector = problem.old + 0.05 * torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    losses, kls, reverse = [], [], []
    for new, old, after in adapted(problem, vector.clone().requires_grad_()):
        ratio = (new.log_prob(after.action) - after.log_prob).exp()
        losses.append(-(ratio * after.advantage * after.weight).sum().item())
        kls.append((old.kl(new) * after.weight).sum().item())
        reverse.append((new.kl(old) * after.weight).sum().item())
    loss, kl = objective.loss_and_kl(vector)
    assert loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert kl == pytest.approx(np.mean(kls), rel=1e-12)
    assert kl != pytest.approx(np.mean(reverse), rel=1e-3)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_at_the_old_parameters_nothing_has_changed(make_problem, steps):
    problem = make_problem(steps)
    objective = problem.objective()
    loss = objective.gradient().loss
    again, kl = objective.loss_and_kl(problem.old)
    assert again == pytest.approx(loss, rel=1e-13)
    assert abs(kl) < 1e-15


def test_microbatches_do_not_change_the_objective(make_problem):
    """Microbatches of two and one tasks, against one task each: alike up to rounding."""
    problem = make_problem(1)
    vector = torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    whole, parts = problem.objective(), problem.objective(problem.singles())
    found = whole.gradient()
    parts_found = parts.gradient()
    assert found.loss == pytest.approx(parts_found.loss, rel=1e-12)
    assert_close(found.gradient, parts_found.gradient, rel=1e-12)
    assert_close(
        whole.fisher_vector_product()(vector), parts.fisher_vector_product()(vector), rel=1e-12
    )
    shifted = problem.old + 0.05 * vector
    assert whole.loss_and_kl(shifted) == pytest.approx(parts.loss_and_kl(shifted), rel=1e-12)
