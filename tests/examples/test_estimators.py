"""The meta-gradient estimators against exact expected returns on tabular tasks.

Where all trajectories or all data sets are enumerated there is no noise: what is called equal is
equal up to rounding, and what is called biased differs by far more than that.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from examples.estimators.__main__ import main
from examples.estimators.data import (
    complete_batch,
    data_sets,
    exact_baseline,
    few_episodes_gradient,
    few_episodes_return,
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
    DICE,
    E_MAML,
    ESTIMATORS,
    FIRST_ORDER,
    LIKELIHOOD_RATIO,
    LOG_LIKELIHOOD,
    adapt,
    cosine,
    limit_gradient,
    limit_microbatch,
    mean_gradient,
    play,
    relative_bias,
    sample,
)
from examples.estimators.tables import (
    cross_term,
    determinism_table,
    main_problem,
    nearly_deterministic,
    percent,
)
from metarl.agents.maml.batch import TrainingBatch
from metarl.agents.maml.surrogates import Surrogate, inner_surrogate
from metarl.core.params import total
from metarl.rollout.collect import collect

DOCUMENT = Path(__file__).parent.parents[1] / "docs" / "estimators.md"
SURROGATES = {
    "likelihood_ratio": inner_surrogate("likelihood_ratio"),
    "log_likelihood": inner_surrogate("log_likelihood"),
    "dice": inner_surrogate("dice"),
    "loaded_dice 1": inner_surrogate("loaded_dice", 1.0),
    "loaded_dice 0.7": inner_surrogate("loaded_dice", 0.7),
    "loaded_dice 0": inner_surrogate("loaded_dice", 0.0),
}
EXACT = [e for e in ESTIMATORS if e.surrogate in ("dice", "loaded_dice") and e.decay == 1]
SINGLE = [e for e in ESTIMATORS if not e.emaml]


def by_name(estimators) -> dict:
    return {"argvalues": estimators, "ids": [e.name for e in estimators]}


def with_bias(problem: Problem) -> Problem:
    """Give the policy's bias, which is 0 at first, values of its own."""
    bias = torch.linspace(-0.3, 0.5, problem.family.num_actions, dtype=torch.float64)[None]
    return replace(problem, meta={**problem.meta, "bias0": bias})


def discounted(problem: Problem, discount: float) -> Problem:
    return replace(problem, returns=problem.returns.replace(discount=discount))


@pytest.fixture
def problem() -> Problem:
    """72 trajectories, of three states, two actions and three steps."""
    return with_bias(make_problem(3, 2, 3, lr=2.0, number=11))


@pytest.fixture
def tiny() -> Problem:
    """8 trajectories, of two states, two actions and two steps."""
    return with_bias(make_problem(2, 2, 2, lr=2.0, number=11))


def assert_close(actual: Tensor, expected: Tensor, rel: float = 1e-10) -> None:
    assert float((actual - expected).norm()) < rel * float(expected.norm())


def differences(function: Callable[[Tensor], Tensor], at: Tensor, eps: float = 1e-3) -> Tensor:
    """Central differences of fourth order."""

    def difference(step: Tensor) -> float:
        return (function(at + step) - function(at - step)).item()

    units = torch.eye(len(at), dtype=at.dtype)
    slopes = [(8 * difference(eps * u) - difference(2 * eps * u)) / (12 * eps) for u in units]
    return torch.tensor(slopes, dtype=at.dtype)


def softmax_table(problem: Problem) -> np.ndarray:
    logits = (problem.meta["weight0"] + problem.meta["bias0"]).numpy()
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


# The exact expected return ------------------------------------------------------------------------


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_the_expected_return_is_the_sum_over_trajectories(problem, discount):
    problem = discounted(problem, discount)
    rewards, transitions = problem.family.tables(problem.task)
    prob, horizon = softmax_table(problem), problem.family.horizon
    mean = 0.0
    for actions in itertools.product(range(2), repeat=horizon):
        for states in itertools.product(range(3), repeat=horizon - 1):
            path, chance, reward = (0, *states), 1.0, 0.0
            for step, (state, action) in enumerate(zip(path, actions, strict=True)):
                chance *= prob[state, action]
                if step + 1 < horizon:
                    chance *= transitions[state, action, path[step + 1]]
                reward += discount**step * rewards[state, action]
            mean += chance * reward
    assert expected(problem, problem.vector).item() == pytest.approx(mean / horizon, rel=1e-12)


def test_the_expected_return_is_what_the_environment_pays(problem, timer):
    """Through the real environment, with noise on its rewards, and the actor."""
    problem = discounted(problem, 0.9)
    family, num_episodes = replace(problem.family, reward_std=0.5), 20_000
    rng = np.random.default_rng(0)
    actor = problem.policy.actor(problem.stacked(problem.vector))
    env = family.make_batch(num_episodes)
    episodes = collect(env, actor, problem.task[None], [rng] * num_episodes, timer)
    returns = (episodes.reward[0] * 0.9 ** np.arange(3)).sum(1) / 3
    error = returns.std() / np.sqrt(num_episodes)
    exact = expected(problem, problem.vector).item()
    assert abs(returns.mean() - exact) < 4 * error
    undiscounted = expected(discounted(problem, 1.0), problem.vector).item()
    assert abs(undiscounted - exact) > 10 * error  # what is too small to see was not tested


def test_values_and_visits_agree_on_the_expected_return(problem):
    params = problem.stacked(problem.vector)
    first = (problem.action_prob(params) * action_values(problem, params)[:, 0]).sum(-1)[0, 0]
    assert expected(problem, problem.vector).item() == pytest.approx(first.item() / 3, rel=1e-12)
    assert visits(problem, params).sum(-1).flatten().tolist() == pytest.approx([1.0] * 3)


def test_the_exact_meta_gradient_equals_finite_differences(problem):
    def meta_objective(vector: Tensor) -> Tensor:
        step = differences(lambda v: expected(problem, v), vector)
        return expected(problem, vector + problem.lr * step)

    assert_close(exact_gradient(problem), differences(meta_objective, problem.vector), rel=1e-8)


# The surrogates' derivatives, one data set at a time ----------------------------------------------


def objective(
    problem: Problem, surrogate: Surrogate, batch: TrainingBatch
) -> Callable[[Tensor], Tensor]:
    """Return what a surrogate says of J, of one task, as a function of θ."""

    def function(vector: Tensor) -> Tensor:
        policy = problem.policy(problem.stacked(vector), batch.obs)
        return -surrogate(policy, batch)[0]

    return function


def hessian(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    value = torch.autograd.functional.hessian(function, at)
    assert isinstance(value, Tensor)
    return value


def derivatives_by_hand(problem: Problem, name: str, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Write the gradient and the Hessian of a surrogate of J out, step by step, at θ."""
    discount, horizon = problem.returns.discount, problem.family.horizon
    num_states, num_actions = problem.family.num_states, problem.family.num_actions
    rewards, _ = problem.family.tables(problem.task)
    prob = softmax_table(problem)
    states = batch.obs[0].argmax(-1).reshape(-1, horizon).tolist()
    actions = batch.action[0].long().reshape(-1, horizon).tolist()
    advantages = batch.advantage[0].reshape(-1, horizon).tolist()
    size = (num_states + 1) * num_actions
    first, second = np.zeros(size), np.zeros((size, size))
    for path, taken, advantage in zip(states, actions, advantages, strict=True):
        reward = [rewards[s, a] for s, a in zip(path, taken, strict=True)]
        scores, curvatures = [], []
        for state, action in zip(path, taken, strict=True):
            logits = np.zeros((num_actions, size))  # the logits' Jacobian: a weight and a bias each
            logits[:, state * num_actions : (state + 1) * num_actions] = np.eye(num_actions)
            logits[:, num_states * num_actions :] = np.eye(num_actions)
            p = prob[state]
            scores.append(logits.T @ (np.eye(num_actions)[action] - p))
            curvatures.append(-logits.T @ (np.diag(p) - np.outer(p, p)) @ logits)
        for t in range(horizon):
            g, h, a = scores[t], curvatures[t], advantage[t]
            if name == "log_likelihood":
                first, second = first + a * g, second + a * h
            elif name == "likelihood_ratio":
                first, second = first + a * g, second + a * (np.outer(g, g) + h)
            elif name == "dice":
                so_far = sum(scores[: t + 1])
                to_go = sum(discount ** (u - t) * reward[u] for u in range(t, horizon))
                r, b = discount**t * reward[t], discount**t * (to_go - a)
                first = first + r * so_far - b * g
                second = second + r * (np.outer(so_far, so_far) + sum(curvatures[: t + 1]))
                second = second - b * (np.outer(g, g) + h)
            else:
                decay = float(name.split()[1])
                w = sum(decay ** (t - u) * scores[u] for u in range(t + 1))
                v = w - g
                first = first + a * g
                second = second + a * (np.outer(w, w) - np.outer(v, v) + h)
    steps = len(states) * horizon
    return torch.from_numpy(first / steps), torch.from_numpy(second / steps)


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("name", SURROGATES)
def test_the_derivatives_on_played_episodes_are_those_written_out(problem, name, discount):
    """Rewards, values and discounts with them: these episodes have a baseline that is not 0."""
    problem = discounted(problem, discount)
    params = problem.stacked(problem.vector)
    batch = play(problem, params, num_episodes=4, rng=np.random.default_rng(0))
    assert float(batch.value.abs().min()) > 0.01
    function = objective(problem, SURROGATES[name], batch)
    first, second = derivatives_by_hand(problem, name, batch)
    assert_close(slope(function, problem.vector), first, rel=1e-6)  # rewards are float32
    assert_close(hessian(function, problem.vector), second, rel=1e-6)


def test_all_surrogates_adapt_alike_on_the_same_episodes(problem):
    """With discount 1; so the estimators differ in the second derivatives only."""
    params = problem.stacked(problem.vector)
    batch = play(problem, params, num_episodes=4, rng=np.random.default_rng(0))
    slopes = [
        slope(objective(problem, surrogate, batch), problem.vector)
        for surrogate in SURROGATES.values()
    ]
    for other in slopes[1:]:
        assert_close(other, slopes[0], rel=1e-6)  # rewards are float32


# The surrogates' expected derivatives: all trajectories, weighted by their probabilities ----------


def missing_credit(problem: Problem) -> Tensor:
    """The sum over steps of E[∇ log π(a_t|s_t) ∇Q_t(s_t, a_t)^T] / T, (P, P): what actions do to
    the return by leading to other states."""

    def log_prob(vector: Tensor) -> Tensor:
        return problem.action_prob(problem.stacked(vector))[0].log()

    def values(vector: Tensor) -> Tensor:
        return action_values(problem, problem.stacked(vector))[0]

    params, vector = problem.stacked(problem.vector), problem.vector
    joint = visits(problem, params)[0][..., None] * problem.action_prob(params)  # (T, S, A)
    score = torch.autograd.functional.jacobian(log_prob, vector)
    change = torch.autograd.functional.jacobian(values, vector)
    return torch.einsum("tsa,sap,tsaq->pq", joint, score, change) / problem.family.horizon


def true_hessian(problem: Problem) -> Tensor:
    return hessian(lambda v: expected(problem, v), problem.vector)


def stepwise_gradient(problem: Problem) -> Tensor:
    """The policy gradient with states that are visited as without a discount."""
    start = problem.stacked(problem.vector)
    state, value = visits(problem, start), action_values(problem, start)

    def function(vector: Tensor) -> Tensor:
        prob = problem.action_prob(problem.stacked(vector))
        return torch.einsum("bts,bsa,btsa->", state, prob, value) / problem.family.horizon

    return slope(function, problem.vector)


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("name", SURROGATES)
def test_the_first_derivative_is_the_policy_gradient(problem, name, discount):
    """Of J with DiCE; with the others the discount does not reach the weight of the states."""
    problem = discounted(problem, discount)
    true, stepwise = (
        slope(lambda v: expected(problem, v), problem.vector),
        stepwise_gradient(problem),
    )
    assert (relative_bias(stepwise, true) > 0.01) == (discount < 1)
    batch = complete_batch(problem, problem.stacked(problem.vector))
    found = slope(objective(problem, SURROGATES[name], batch), problem.vector)
    assert_close(found, true if name == "dice" else stepwise)


@pytest.mark.parametrize(
    ("name", "discount"), [("dice", 1.0), ("dice", 0.9), ("loaded_dice 1", 1.0)], ids=str
)
def test_dice_has_the_second_derivatives_of_the_expected_return(problem, name, discount):
    problem = discounted(problem, discount)
    batch = complete_batch(problem, problem.stacked(problem.vector))
    found = hessian(objective(problem, SURROGATES[name], batch), problem.vector)
    assert_close(found, true_hessian(problem))


@pytest.mark.parametrize("name", ["likelihood_ratio", "loaded_dice 0"])
def test_the_likelihood_ratio_lacks_exactly_the_cross_terms(problem, name):
    batch = complete_batch(problem, problem.stacked(problem.vector))
    found = hessian(objective(problem, SURROGATES[name], batch), problem.vector)
    cross = missing_credit(problem)
    assert_close(found, true_hessian(problem) - cross - cross.T)
    assert float((cross + cross.T).norm() / found.norm()) > 0.1


@pytest.mark.parametrize("name", ["loaded_dice 1", "loaded_dice 0.7"])
def test_loaded_dice_has_the_cross_terms_by_their_decay(problem, name):
    """Of the scores of the steps s < t, with decay^(t - s)."""
    decay, horizon = float(name.split()[1]), problem.family.horizon
    batch = complete_batch(problem, problem.stacked(problem.vector), exact_baseline)

    def log_prob(vector: Tensor) -> Tensor:
        params = problem.stacked(vector)
        return problem.policy(params, batch.obs).log_prob(batch.action)[0]

    jacobian = torch.autograd.functional.jacobian(log_prob, problem.vector)
    assert isinstance(jacobian, Tensor)
    score = jacobian.unflatten(0, (-1, horizon))  # (K, T, P)
    credit = (batch.advantage * batch.weight)[0].unflatten(0, (-1, horizon))  # (K, T)
    cross = total(
        [
            decay ** (t - s) * torch.einsum("k,kp,kq->pq", credit[:, t], score[:, s], score[:, t])
            for t in range(horizon)
            for s in range(t)
        ]
    )
    ratio = hessian(objective(problem, SURROGATES["likelihood_ratio"], batch), problem.vector)
    found = hessian(objective(problem, SURROGATES[name], batch), problem.vector)
    assert_close(found, ratio + cross + cross.T)
    assert_close(cross_term(problem, decay), cross)
    assert torch.allclose(cross, missing_credit(problem), atol=1e-12) == (decay == 1)


@pytest.mark.parametrize("baseline", [exact_baseline, fitted_baseline, no_baseline])
def test_the_log_likelihood_has_the_mean_curvature_of_log_pi_only(problem, baseline):
    """E[A ∇² log π], which is 0 with exact advantages: in a softmax table ∇² log π does not depend
    on the action."""
    params = problem.stacked(problem.vector)
    batch = complete_batch(problem, params, baseline)
    found = hessian(objective(problem, SURROGATES["log_likelihood"], batch), problem.vector)
    table = torch.zeros_like(found)
    left_over = (batch.advantage * batch.weight)[0]
    for state in range(3):
        here = left_over[batch.obs[0, :, state] == 1].sum()
        table += here * hessian(
            lambda v, s=state: problem.action_prob(problem.stacked(v))[0, s, 0].log(),
            problem.vector,
        )
    size = float(true_hessian(problem).norm())
    assert float((found - table).norm()) < 1e-12 * size
    assert (float(found.norm()) < 1e-12 * size) == (baseline is exact_baseline)
    assert float((found - true_hessian(problem)).norm()) > 0.5 * size


# Meta-gradients on infinitely many episodes -------------------------------------------------------


@pytest.mark.parametrize("baseline", [fitted_baseline, exact_baseline, no_baseline])
@pytest.mark.parametrize("estimator", **by_name(EXACT))
def test_dice_gives_the_exact_meta_gradient(problem, estimator, baseline):
    assert_close(limit_gradient(problem, estimator, baseline), exact_gradient(problem))


def test_first_order_is_the_gradient_at_the_adapted_parameters(problem):
    there = adapted(problem, problem.vector).detach()
    found = limit_gradient(problem, FIRST_ORDER)
    assert_close(found, slope(lambda v: expected(problem, v), there))
    assert relative_bias(found, exact_gradient(problem)) > 0.1


def test_the_log_likelihood_is_first_order_with_exact_advantages(problem):
    first_order = limit_gradient(problem, FIRST_ORDER)
    assert_close(limit_gradient(problem, LOG_LIKELIHOOD, exact_baseline), first_order)
    without = limit_gradient(problem, LOG_LIKELIHOOD, no_baseline)
    assert relative_bias(without, exact_gradient(problem)) > 0.1
    assert relative_bias(without, first_order) > 0.1


@pytest.mark.parametrize("baseline", [fitted_baseline, exact_baseline, no_baseline])
def test_the_likelihood_ratios_bias_is_that_of_the_cross_terms(problem, baseline):
    there = adapted(problem, problem.vector).detach()
    cross = missing_credit(problem)
    missing = problem.lr * (cross + cross.T) @ slope(lambda v: expected(problem, v), there)
    exact = exact_gradient(problem)
    assert_close(limit_gradient(problem, LIKELIHOOD_RATIO, baseline), exact - missing)
    assert float(missing.norm() / exact.norm()) > 0.03


def ignores_actions(problem: Problem) -> Problem:
    """Let the next state depend on the state alone."""
    rewards, transitions = problem.family.tables(problem.task)
    same = np.repeat(transitions[:, :1], problem.family.num_actions, axis=1)
    return replace(problem, task=np.concatenate([rewards.ravel(), same.ravel()]))


def one_step(problem: Problem) -> Problem:
    return replace(problem, family=replace(problem.family, horizon=1))


@pytest.mark.parametrize("simplify", [ignores_actions, one_step])
def test_the_likelihood_ratio_is_exact_where_actions_do_not_lead_anywhere(problem, simplify):
    problem = simplify(problem)
    exact = exact_gradient(problem)
    assert_close(limit_gradient(problem, LIKELIHOOD_RATIO), exact)
    assert relative_bias(limit_gradient(problem, FIRST_ORDER), exact) > 0.1


def test_the_likelihood_ratio_becomes_exact_as_the_policy_becomes_deterministic(problem):
    """The second-order term is of the order of the other actions' probability, what is missing of
    that order squared, as both factors of the cross term are small."""
    missed = []
    for other in (1e-3, 1e-4):
        near = nearly_deterministic(problem, other)
        exact = exact_gradient(near)
        term = exact - limit_gradient(near, FIRST_ORDER)
        missing = exact - limit_gradient(near, LIKELIHOOD_RATIO)
        missed.append(float(missing.norm() / term.norm()))
    assert missed[0] / missed[1] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("estimator", **by_name([FIRST_ORDER, LOG_LIKELIHOOD, LIKELIHOOD_RATIO]))
def test_marginals_are_enough_for_surrogates_of_single_steps(problem, estimator):
    support = marginal_batch(problem, problem.stacked(problem.vector))
    microbatch = adapt(problem, support, lambda params: marginal_batch(problem, params))
    found = estimator.gradient(problem, microbatch)
    assert_close(found, limit_gradient(problem, estimator, exact_baseline))


# Means over all data sets of a few episodes -------------------------------------------------------


@pytest.mark.parametrize("baseline", [True, False])
def test_the_gradient_over_data_sets_equals_finite_differences(tiny, baseline):
    sets = data_sets(tiny, 2)
    assert float(sets.probability(tiny.vector).sum()) == pytest.approx(1, rel=1e-12)
    slopes = differences(lambda v: few_episodes_return(sets, v, baseline), tiny.vector)
    assert_close(few_episodes_gradient(sets, baseline), slopes, rel=1e-8)


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("num_episodes", [1, 2, 3])
def test_e_maml_estimates_the_gradient_over_data_sets_exactly(tiny, num_episodes, baseline):
    sets = data_sets(tiny, num_episodes)
    exact = few_episodes_gradient(sets, baseline)
    assert_close(mean_gradient(sets, E_MAML, baseline), exact)


@pytest.mark.parametrize("num_episodes", [2, 3])
def test_nothing_else_does(tiny, num_episodes):
    sets = data_sets(tiny, num_episodes)
    exact = few_episodes_gradient(sets, baseline=False)
    twice = replace(E_MAML, surrogate="likelihood_ratio")  # counts the credit for the data twice
    for estimator in (*SINGLE, twice):
        assert relative_bias(mean_gradient(sets, estimator, False), exact) > 1e-3, estimator.name


@pytest.mark.parametrize(
    "estimator", **by_name([FIRST_ORDER, LOG_LIKELIHOOD, LIKELIHOOD_RATIO, DICE, E_MAML])
)
def test_the_bias_for_few_episodes_halves_with_twice_the_episodes(tiny, estimator):
    """Against the estimator's own limit. For small steps it is of second order in them, by the
    variances of means over E episodes; terms of third order are a small part of it."""
    small = replace(tiny, lr=0.05)
    limit = limit_gradient(small, estimator, no_baseline)
    one, two = (mean_gradient(data_sets(small, n), estimator, False) for n in (1, 2))
    assert relative_bias(one, limit) > 1e-5
    ratio = float((one - limit).norm() / (two - limit).norm())
    assert ratio == pytest.approx(2, rel=0.05)


# Played episodes ----------------------------------------------------------------------------------


def test_played_episodes_have_the_exact_means(tiny):
    """Through the real environment, actor and advantages. Whatever is said to differ does so by
    more than the tolerance allows."""
    estimators = [FIRST_ORDER, LOG_LIKELIHOOD, DICE, E_MAML]
    rng, sets = np.random.default_rng(0), data_sets(tiny, 2)
    exact = [mean_gradient(sets, estimator, baseline=False) for estimator in estimators]
    samples = sample(tiny, estimators, 25, 800, 2, rng, baseline=False)
    for i, found in enumerate(samples):
        for j, mean in enumerate(exact):
            distance = float((found.mean - mean).norm())
            assert (distance < 3 * found.noise) == (i == j), (
                estimators[i].name,
                estimators[j].name,
            )


# The report ---------------------------------------------------------------------------------------


def test_the_program_writes_what_it_prints(tmp_path, monkeypatch, capsys):
    out = tmp_path / "estimators.md"
    monkeypatch.setattr(sys, "argv", ["estimators", "--fast", "--out", str(out)])
    main()
    text = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    assert text.startswith("`python -m examples.estimators --out docs/estimators.md`")
    assert all(f"\n| {estimator.name} | " in text for estimator in ESTIMATORS)
    assert "nan" not in text


def test_the_document_holds_the_numbers_of_this_code():
    """Those that can be computed quickly."""
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document.startswith("`python -m examples.estimators --out docs/estimators.md`")
    assert determinism_table() in document
    problem = main_problem()
    exact, microbatch = exact_gradient(problem), limit_microbatch(problem, fitted_baseline)
    for estimator in SINGLE:
        found = estimator.gradient(problem, microbatch)
        bias = percent(relative_bias(found, exact))
        assert f"\n| {estimator.name} | {bias} | {cosine(found, exact):.3f} |" in document
