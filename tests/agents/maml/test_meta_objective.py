"""maml.meta_objective: loss, gradient and curvature through the adaptation, in float64.

The references here are finite differences, or autograd on a second implementation of the
adaptation that looks at one task at a time and knows nothing of stacks and microbatches.

Finite differences of `loss_and_kl` repeat the adaptation, so they need an inner gradient whose
change equals its automatic derivative. Where that does not hold by design, the difference is taken
of a function for which it holds:

- DiCE's magic boxes are 1 wherever the policy is, and only their derivatives are those of a
  likelihood ratio: the inner gradient of another policy lacks the ratio. Written with the ratio to
  the policy that acted (`with_ratios`), the surrogate has the same derivatives, up to the second,
  where that policy is; these are all that enter the meta-gradient at the old meta-parameters.
- Meta-LSTM's gates, and everything with first_order, take gradient and loss for constants: in the
  difference they keep the values of the old meta-parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import metarl.agents.maml.update_rules
from metarl.agents.maml.batch import TrainingBatch
from metarl.agents.maml.surrogates import (
    Surrogate,
    clipped_ratio,
    inner_surrogate,
    likelihood_ratio,
)
from metarl.core.distributions import Distribution
from metarl.core.params import flatten, leaves, stack, unflatten
from metarl.core.policies import CategoricalMLP, GaussianMLP, PolicyConfig
from metarl.core.returns import discounted_prefixes

SURROGATES = ("likelihood_ratio", "log_likelihood")
EPISODIC = ("dice", "loaded_dice")
TASK_PARAMETERS = ("all", "head", "context", "latent")
RULES = ("sgd", "meta_sgd", "lslr", "meta_lstm")


def adapted(problem, vector: Tensor) -> list[tuple[Distribution, Distribution, TrainingBatch]]:
    """Adapt to each task: its new and old policies at the data after, and these data."""
    params = unflatten(vector, problem.meta)
    return [
        (
            problem.policy(
                stack(problem.plain_trajectory(params, microbatch)[-1], 1), microbatch.query.obs
            ),
            problem.policy(microbatch.adapted, microbatch.query.obs),
            microbatch.query,
        )
        for microbatch in problem.singles()
    ]


def assert_close(actual: Tensor, expected: Tensor, rel: float) -> None:
    """The difference is small against the whole vector."""
    assert float((actual - expected).norm() / expected.norm()) < rel


def dense(product: Callable[[Tensor], Tensor], size: int) -> Tensor:
    return torch.stack([product(row) for row in torch.eye(size, dtype=torch.float64)])


def with_ratios(name: str, decay: float) -> Surrogate:
    """DiCE and loaded DiCE with the likelihood ratio in place of the magic box; others as is."""
    if name not in EPISODIC:
        return inner_surrogate(name)

    def surrogate(policy: Distribution, batch: TrainingBatch) -> Tensor:
        ratio = batch.by_episode(policy.log_prob(batch.action) - batch.log_prob)
        if name == "dice":
            so_far, here = ratio.cumsum(-1).exp().flatten(1), ratio.exp().flatten(1)
            objective = so_far * batch.reward + (1 - here) * batch.value
        else:
            until = discounted_prefixes(ratio, decay)
            difference = until.exp() - (until - ratio).exp()
            objective = difference.flatten(1) * batch.advantage
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


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_gradient_equals_finite_differences(make_problem, steps, surrogate):
    """Differences of `loss_and_kl`, which adapts without any graph, in every coordinate."""
    problem = make_problem(steps, surrogate)
    objective = problem.objective()
    gradient = objective.gradient().gradient
    slopes = [
        slope(lambda v: objective.loss_and_kl(v)[0], problem.old, unit)
        for unit in torch.eye(len(problem.old), dtype=torch.float64)
    ]
    assert_close(gradient, torch.tensor(slopes, dtype=torch.float64), rel=1e-8)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "meta_lstm"])
@pytest.mark.parametrize("adapts", TASK_PARAMETERS)
@pytest.mark.parametrize("surrogate", [*SURROGATES, *EPISODIC])
def test_the_gradient_through_every_kind_of_adaptation(make_problem, surrogate, adapts, rule):
    """Two steps. With respect to the policy's parameters, and to those of what adapts and how."""
    problem = make_problem(2, surrogate, adapts=adapts, rule=rule)
    gradient = problem.objective().gradient().gradient
    reference = problem.objective(surrogate=with_ratios(surrogate, problem.inner.dice_decay))
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
    reference = problem.objective(surrogate=with_ratios(surrogate, problem.inner.dice_decay))
    reference.gradient()
    inputs = Frozen(metarl.agents.maml.update_rules.preprocess)
    monkeypatch.setattr(metarl.agents.maml.update_rules, "preprocess", inputs)
    reference.loss_and_kl(problem.old)

    def frozen(vector: Tensor) -> float:
        inputs.rewind()
        return reference.loss_and_kl(vector)[0]

    assert_slopes(problem, gradient, frozen)


class FrozenGradients:
    """A rule that is given, at each step, the gradient and loss of the first time."""

    def __init__(self, rule) -> None:
        self.rule, self.given = rule, {}

    def step(self, meta, fast_params, optimizer_state, gradient, loss, index):
        # The microbatches have different numbers of tasks.
        given = self.given.setdefault((len(loss), index), (gradient, loss.detach()))
        return self.rule.step(meta, fast_params, optimizer_state, *given, index)


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
        advantage = microbatch.query.advantage.clone()
        advantage[0, 0] = bad
        problem.microbatches[1] = replace(
            microbatch, query=replace(microbatch.query, advantage=advantage)
        )
        with pytest.raises(FloatingPointError, match="not finite; nothing was updated"):
            problem.objective().reptile_direction()
    else:
        advantage = microbatch.support[0].advantage.clone()
        advantage[0, 0] = bad
        problem.microbatches[1] = replace(
            microbatch, support=(replace(microbatch.support[0], advantage=advantage),)
        )
    with pytest.raises(FloatingPointError, match="not finite; nothing was updated"):
        problem.objective().gradient()


@pytest.mark.parametrize("steps", [1, 2])
def test_first_order_takes_the_adaptation_for_a_shift(make_problem, steps):
    """The mean gradient at the adapted parameters, with respect to these."""
    problem = make_problem(steps, first_order=True)
    expected = torch.zeros_like(problem.old)
    for microbatch in problem.microbatches:
        end = leaves(microbatch.adapted)
        log_prob = problem.policy(end, microbatch.query.obs).log_prob(microbatch.query.action)
        loss = -(log_prob * microbatch.query.advantage * microbatch.query.weight).sum()
        gradients = torch.autograd.grad(loss, list(end.values()))
        expected += torch.cat([gradient.sum(0).flatten() for gradient in gradients]) / 3
    gradient = problem.objective().gradient().gradient
    assert_close(gradient, expected, rel=1e-12)
    second_order = make_problem(steps).objective().gradient().gradient
    assert float((gradient - second_order).norm() / second_order.norm()) > 0.01


def test_the_two_inner_surrogates_differ_in_the_meta_gradient(make_problem):
    """They adapt alike, but only the likelihood ratio credits the policy before adaptation."""
    ratio, log = (make_problem(1, surrogate) for surrogate in SURROGATES)
    assert_close(
        log.microbatches[0].adapted["weight0"], ratio.microbatches[0].adapted["weight0"], rel=1e-12
    )
    gradients = [problem.objective().gradient().gradient for problem in (ratio, log)]
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) > 0.01


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
    reference = problem.objective(surrogate=with_ratios(surrogate, problem.inner.dice_decay))
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


@pytest.fixture
def discrete() -> dict:
    """For `make_problem`: a policy with three actions."""
    rng = np.random.default_rng(1)
    policy = CategoricalMLP(PolicyConfig(hidden=(4,)), 3, 3)
    params = {
        name: value + 0.1 * torch.from_numpy(rng.standard_normal(value.shape))
        for name, value in policy.init(rng, torch.float64).items()
    }
    return {"policy": policy, "params": params}


@pytest.mark.parametrize("surrogate", [*SURROGATES, *EPISODIC])
def test_the_gradient_of_discrete_policies(make_problem, discrete, surrogate):
    problem = make_problem(2, surrogate, **discrete, lr=0.1)
    gradient = problem.objective().gradient().gradient
    reference = problem.objective(surrogate=with_ratios(surrogate, problem.inner.dice_decay))
    assert_slopes(problem, gradient, lambda v: reference.loss_and_kl(v)[0])


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


@pytest.mark.parametrize(("fraction", "jacobian_fraction"), [(1, 1), (1 / 2, 1), (1, 1 / 4)])
def test_fractions_are_every_so_many_steps(make_problem, fraction, jacobian_fraction):
    """Of those after adaptation and of those before it, each by its own fraction."""
    problem = make_problem(2)
    stride, jacobian_stride = round(1 / fraction), round(1 / jacobian_fraction)
    thinned = [
        replace(
            microbatch,
            support=tuple(batch.every(jacobian_stride) for batch in microbatch.support),
            query=microbatch.query.every(stride),
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
            query=microbatch.query.every(2),
        )
        for microbatch in problem.microbatches
    ]
    vector = torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    product = problem.objective().fisher_vector_product(0.5, 0.5)(vector)
    assert torch.equal(product, problem.objective(thinned).fisher_vector_product()(vector))


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
