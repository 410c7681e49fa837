"""metarl.envs.references.bandit and bandit_policies: against recursions over histories."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from metarl.core.statistics import mean_interval
from metarl.envs import Bandit
from metarl.envs.references import bandit
from metarl.envs.references.bandit_policies import greedy, simulate, thompson_sampling, ucb1


def expected_return(num_arms: int, num_pulls: int, choose=None) -> float:
    """The exact expected return of a rule, or of the best one, by recursion over all counts.

    Arms are told apart, and all arms are tried. `choose(successes, failures)` is the rule's arm.
    """

    @functools.cache
    def value(counts: tuple[tuple[int, int], ...]) -> float:
        if sum(map(sum, counts)) == num_pulls:
            return 0.0
        arms = range(num_arms) if choose is None else [choose(*np.array(counts).T)]
        options = []
        for arm in arms:
            s, f = counts[arm]
            paid, not_paid = (
                value((*counts[:arm], new, *counts[arm + 1 :])) for new in ((s + 1, f), (s, f + 1))
            )
            p = (1 + s) / (2 + s + f)
            options.append(p * (1 + paid) + (1 - p) * not_paid)
        return max(options)

    return value(((0, 0),) * num_arms)


def of_one(rule):
    """A rule for N bandits, as `choose` of one bandit."""

    def choose(successes, failures):
        return rule(successes[None], failures[None], np.random.default_rng(0))[0]

    return choose


# --- the Bayes-optimal value ---


@pytest.mark.parametrize(
    ("num_arms", "num_pulls"), [(2, 1), (2, 2), (2, 8), (3, 2), (3, 5), (4, 4), (5, 10)]
)
def test_the_bayes_optimal_value_is_that_of_the_recursion(num_arms, num_pulls):
    family = Bandit(num_arms=num_arms, horizon=num_pulls)
    expected = expected_return(num_arms, num_pulls)
    assert bandit.bayes_optimal(family) == pytest.approx(expected, rel=1e-13)


def test_two_pulls_by_hand():
    """One arm pays with 1/2; if it paid it is pulled again (2/3), and otherwise another (1/2)."""
    assert bandit.bayes_optimal(Bandit(horizon=2)) == pytest.approx(1 / 2 + 2 / 3 / 2 + 1 / 2 / 2)


@pytest.mark.parametrize(
    ("num_arms", "num_pulls", "value"),
    [(10, 10, 6.713951), (2, 50, 31.996712), (5, 20, 14.287338)],
)
def test_values_of_larger_bandits(num_arms, num_pulls, value):
    family = Bandit(num_arms=num_arms, horizon=num_pulls)
    assert bandit.bayes_optimal(family) == pytest.approx(value, abs=1e-6)


def test_arms_that_cannot_all_be_pulled_are_worth_nothing():
    values = [bandit.bayes_optimal(Bandit(num_arms=number, horizon=6)) for number in (5, 6, 50)]
    assert values[0] < values[1] == values[2]


@pytest.mark.parametrize(
    "fields", [{"horizon": 100}, {"num_arms": 40, "horizon": 30}, {"horizon": 1_000_000}]
)
def test_a_bandit_too_large_for_the_optimum_is_refused(fields):
    """At once, not after a minute."""
    with pytest.raises(ValueError, match=r"the Bayes-optimal value needs more than 10,000,000"):
        bandit.bayes_optimal(Bandit(**fields))


def test_a_bandit_whose_beliefs_are_too_many_is_refused_when_they_are():
    with pytest.raises(ValueError, match=r"num_arms 5 and horizon 10: .* more than 800 beliefs"):
        bandit.bayes_optimal(Bandit(), max_states=800)


def test_the_oracle_pulls_the_best_arm():
    """The largest of 5 uniform numbers is 5/6 in the mean."""
    assert bandit.oracle(Bandit()) == pytest.approx(10 * 5 / 6)
    tasks = Bandit().sample_tasks(np.random.default_rng(0), 20_000)
    assert bandit.oracle(Bandit()) == pytest.approx(10 * tasks.max(axis=1).mean(), rel=0.005)


# --- rules ---


@pytest.mark.parametrize("rule", [greedy, ucb1, functools.partial(ucb1, constant=1.0)])
def test_simulated_returns_are_those_of_the_recursion(rule):
    """Within four standard errors of 4,000 episodes: the environment pays as the recursion says."""
    family = Bandit(num_arms=3, horizon=6)
    exact = expected_return(3, 6, of_one(rule))
    returns = simulate(family, rule, 4000)
    assert abs(returns.mean() - exact) < 4 * returns.std() / np.sqrt(len(returns))
    assert exact < bandit.bayes_optimal(family)


def test_thompson_sampling_samples_the_posterior():
    """Of two arms with posteriors Beta(3, 1) and Beta(1, 1), the first has the larger sample with
    3/4: the mean of Beta(3, 1)."""
    counts = np.array([[2.0, 0.0]]).repeat(20_000, axis=0), np.zeros((20_000, 2))
    arms = thompson_sampling(*counts, np.random.default_rng(0))
    assert (arms == 0).mean() == pytest.approx(3 / 4, abs=0.015)


def test_ucb1_by_hand():
    """Of the arms with 1 of 1, 0 of 1 and no pull, after two pulls: 2/3, 1/3 and 1/2, plus c times
    sqrt(2 ln 2 / 3) = 0.680 twice and sqrt(2 ln 2 / 2) = 0.833."""
    counts = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0]])
    rng = np.random.default_rng(0)
    assert ucb1(*counts, rng, constant=1.0) == [0]
    assert ucb1(*counts, rng, constant=1.2) == [2]
    assert greedy(*counts, rng) == [0]
    none = np.zeros((1, 3)), np.zeros((1, 3))
    assert ucb1(*none, rng, constant=1.0) == greedy(*none, rng) == [0]


def test_rules_are_simulated_on_the_same_episodes():
    """The seed decides: tasks, and the noise of rewards."""
    family = Bandit()
    returns = simulate(family, greedy, 50, seed=3)
    assert np.array_equal(
        returns, simulate(family, functools.partial(ucb1, constant=0), 50, seed=3)
    )
    assert not np.array_equal(returns, simulate(family, greedy, 50, seed=4))
    assert np.array_equal(
        simulate(family, thompson_sampling, 50, seed=3),
        simulate(family, thompson_sampling, 50, seed=3),
    )


def test_references_on_rl2s_smallest_bandit():
    """5 arms, 10 pulls: UCB1 with a good constant and even greedy come close to the optimum;
    Thompson sampling explores for longer than the episode lasts. docs/optima.md has them."""
    family = Bandit()
    assert bandit.bayes_optimal(family) == pytest.approx(6.659988, abs=1e-6)
    exact = [
        expected_return(5, 10, of_one(functools.partial(ucb1, constant=constant)))
        for constant in (0.1, 0.2, 1.0)
    ]
    assert exact == pytest.approx([6.657, 6.642, 5.839], abs=5e-4)
    assert expected_return(5, 10, of_one(greedy)) == pytest.approx(6.569, abs=5e-4)
    low, high = mean_interval(simulate(family, thompson_sampling, 4000)[None])
    assert 5.7 < low < high < 6.0
