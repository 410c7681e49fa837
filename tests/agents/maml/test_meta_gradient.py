"""MetaObjective.gradient: the meta-gradient through every kind of adaptation, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import metarl.agents.maml.update_rules
from metarl.agents.maml.surrogates import (
    likelihood_ratio,
)
from metarl.core.params import leaves, unflatten
from metarl.core.policies import GaussianMLP, PolicyConfig
from tests.agents.maml.references import (
    EPISODIC,
    RULES,
    SURROGATES,
    TASK_PARAMETERS,
    FrozenGradients,
    adapted,
    assert_close,
    assert_every_slope,
    assert_slopes,
)


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_gradient_equals_finite_differences(make_problem, steps, surrogate):
    """Differences of `loss_and_kl`, which adapts without any graph, in every coordinate."""
    problem = make_problem(steps, surrogate)
    assert_every_slope(problem)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "meta_lstm"])
@pytest.mark.parametrize("adapts", TASK_PARAMETERS)
@pytest.mark.parametrize("surrogate", [*SURROGATES, *EPISODIC])
def test_the_gradient_through_every_kind_of_adaptation(make_problem, surrogate, adapts, rule):
    """Two steps. With respect to the policy's parameters, and to those of what adapts and how."""
    problem = make_problem(2, surrogate, adapts=adapts, rule=rule)
    gradient = problem.objective().gradient().gradient
    reference = problem.objective()
    assert_slopes(problem, gradient, lambda v: reference.loss_and_kl(v)[0])


def test_the_gradient_through_steps_that_grow_with_the_loss(make_problem):
    """Against plain autograd; the losses, 1.2, -0.3 and 1.2, are constants."""
    problem = make_problem(2, loss_scaled_lr=0.05)
    objective = problem.objective()
    found = objective.gradient()
    vector = problem.old.clone().requires_grad_()
    losses = [likelihood_ratio(new, after).sum() for new, _, after in adapted(problem, vector)]
    loss = sum(losses) / 3
    assert found.loss == pytest.approx(loss.item(), rel=1e-12)
    assert_close(found.gradient, torch.autograd.grad(loss, vector)[0], rel=1e-10)
    assert_slopes(problem, found.gradient, lambda v: objective.loss_and_kl(v)[0])
    plain = make_problem(2).objective().gradient().gradient
    assert float((found.gradient - plain).norm() / plain.norm()) > 0.01


@pytest.mark.parametrize("adapts", TASK_PARAMETERS)
def test_the_gradient_through_such_steps_of_all_task_parameters(make_problem, adapts):
    objective = (problem := make_problem(2, adapts=adapts, loss_scaled_lr=0.05)).objective()
    assert_slopes(problem, objective.gradient().gradient, lambda v: objective.loss_and_kl(v)[0])


def test_the_gradient_through_a_bias_transformation(make_problem):
    """By differences in every direction, at an input that is not 0."""
    rng = np.random.default_rng(1)
    policy = GaussianMLP(PolicyConfig(hidden=(4,), bias_transform=(2.0, 3.0)), 3, 2)
    params = {
        name: value + 0.1 * torch.from_numpy(rng.standard_normal(value.shape))
        for name, value in policy.init(rng, torch.float64).items()
    }
    problem = make_problem(2, policy=policy, params=params, loss_scaled_lr=0.05)
    objective = problem.objective()
    assert_slopes(problem, objective.gradient().gradient, lambda v: objective.loss_and_kl(v)[0])


class Frozen:
    """A function that returns, as often as it is called, what it returned in the first round."""

    def __init__(self, function: Callable) -> None:
        self.function, self.tape, self.calls = function, [], None

    def __call__(self, *args):
        if self.calls is None:
            self.tape.append(self.function(*args))
            return self.tape[-1]
        self.calls += 1
        return self.tape[self.calls - 1]

    def rewind(self) -> None:
        assert self.calls in (None, len(self.tape)), "another round than the first"
        self.calls = 0


@pytest.mark.parametrize("adapts", TASK_PARAMETERS)
@pytest.mark.parametrize("surrogate", [*SURROGATES, *EPISODIC])
def test_the_gradient_through_gates_that_see_constants(
    make_problem, monkeypatch, surrogate, adapts
):
    """Meta-LSTM, whose weights are far from 0: its inputs are those of the old meta-parameters."""
    problem = make_problem(2, surrogate, adapts=adapts, rule="meta_lstm")
    gradient = problem.objective().gradient().gradient
    reference = problem.objective()
    reference.gradient()
    inputs = Frozen(metarl.agents.maml.update_rules.preprocess)
    monkeypatch.setattr(metarl.agents.maml.update_rules, "preprocess", inputs)
    reference.loss_and_kl(problem.old)

    def frozen(vector: Tensor) -> float:
        inputs.rewind()
        return reference.loss_and_kl(vector)[0]

    assert_slopes(problem, gradient, frozen)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("adapts", TASK_PARAMETERS)
def test_first_order_takes_inner_gradients_for_constants(make_problem, adapts, rule):
    """Two steps; the learned rates and gates have a gradient all the same."""
    problem = make_problem(2, adapts=adapts, rule=rule, first_order=True)
    gradient = problem.objective().gradient().gradient
    problem.loop.rule = FrozenGradients(problem.loop.rule)
    reference = problem.objective()
    reference.loss_and_kl(problem.old)
    assert_slopes(problem, gradient, lambda v: reference.loss_and_kl(v)[0])


@pytest.mark.parametrize("steps", [1, 2])
def test_first_order_takes_the_adaptation_for_a_shift(make_problem, steps):
    """The mean gradient at the adapted parameters, with respect to these."""
    problem = make_problem(steps, first_order=True)
    expected = torch.zeros_like(problem.old)
    for microbatch in problem.microbatches:
        end = leaves(microbatch.adapted)
        query = microbatch.queries[-1].batch
        log_prob = problem.policy(end, query.obs).log_prob(query.action)
        loss = -(log_prob * query.advantage * query.weight).sum()
        gradients = torch.autograd.grad(loss, list(end.values()))
        expected += torch.cat([gradient.sum(0).flatten() for gradient in gradients]) / 3
    gradient = problem.objective().gradient().gradient
    assert_close(gradient, expected, rel=1e-12)
    second_order = make_problem(steps).objective().gradient().gradient
    assert float((gradient - second_order).norm() / second_order.norm()) > 0.01


@pytest.mark.parametrize("adapts", TASK_PARAMETERS)
@pytest.mark.parametrize("rule", RULES)
def test_after_one_step_every_meta_parameter_has_a_gradient(make_problem, adapts, rule):
    """From the initial values on, or it would be stuck there. The share of a vector that is kept
    does not matter where the vector begins at 0, as a context and a latent code do."""
    problem = make_problem(1, adapts=adapts, rule=rule, fresh=True)
    gradient = unflatten(problem.objective().gradient().gradient, problem.meta)
    idle = {name for name, piece in gradient.items() if not piece.any()}
    begins_at_0 = rule == "meta_lstm" and adapts in ("context", "latent")
    assert idle == ({"gates:forget.weight", "gates:forget.bias"} if begins_at_0 else set())


@pytest.mark.parametrize("rule", ["meta_sgd", "lslr", "meta_lstm"])
@pytest.mark.parametrize("steps", [1, 3])
def test_rules_begin_with_the_meta_gradient_of_sgd(make_problem, rule, steps):
    """With respect to the policy's parameters. Meta-LSTM's step size is a sigmoid, rounded."""
    learned, plain = (make_problem(steps, rule=each, fresh=True) for each in (rule, "sgd"))
    found = unflatten(learned.objective().gradient().gradient, learned.meta)
    expected = unflatten(plain.objective().gradient().gradient, plain.meta)
    for name, piece in expected.items():
        if rule == "meta_lstm":
            torch.testing.assert_close(found[name], piece, rtol=1e-9, atol=1e-12)
        else:
            assert torch.equal(found[name], piece), name


def test_the_two_inner_surrogates_differ_in_the_meta_gradient(make_problem):
    """They adapt alike, but only the likelihood ratio credits the policy before adaptation."""
    ratio, log = (make_problem(1, surrogate) for surrogate in SURROGATES)
    assert_close(
        log.microbatches[0].adapted["weight0"], ratio.microbatches[0].adapted["weight0"], rel=1e-12
    )
    gradients = [problem.objective().gradient().gradient for problem in (ratio, log)]
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) > 0.01


@pytest.mark.parametrize("surrogate", [*SURROGATES, *EPISODIC])
def test_the_gradient_of_discrete_policies(make_problem, discrete, surrogate):
    problem = make_problem(2, surrogate, **discrete, lr=0.1)
    gradient = problem.objective().gradient().gradient
    reference = problem.objective()
    assert_slopes(problem, gradient, lambda v: reference.loss_and_kl(v)[0])
