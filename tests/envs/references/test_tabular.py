"""metarl.envs.references.tabular: PSRL's posteriors and plans, on MDPs worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from metarl.envs import TabularMDP
from metarl.envs.references import tabular

SMALL = TabularMDP(horizon=3, num_states=2, num_actions=2)


def test_plans_are_the_best_of_all_policies():
    """Every policy of 3 steps, 2 states and 2 actions is tried on random MDPs."""
    rewards, transitions = SMALL.tables(SMALL.sample_tasks(np.random.default_rng(0), 5))
    policy, value = tabular.plan(rewards, transitions, 3)
    for mdp in range(5):
        reward, transition = rewards[mdp], transitions[mdp]

        def expected(actions, reward=reward, transition=transition):
            """The expected return of a policy, (3, 2), from state 0, forwards."""
            probability, total = np.array([1.0, 0.0]), 0.0
            for step in actions:
                total += probability @ reward[[0, 1], step]
                probability = probability @ transition[[0, 1], step]
            return total

        policies = np.array(list(itertools.product(range(2), repeat=6))).reshape(-1, 3, 2)
        best = max(map(expected, policies))
        assert value[mdp] == pytest.approx(best)
        assert expected(policy[mdp]) == pytest.approx(best)


def test_the_oracle_plays_as_well_as_it_says():
    """Its plan in the environment, 4,000 times, within five standard errors."""
    task = SMALL.tasks("test", 1)
    policy, _ = tabular.plan(*SMALL.tables(task), 3)
    env = SMALL.make_batch(4000)
    state = env.reset(task.repeat(4000, axis=0), np.random.default_rng(0).spawn(4000)).argmax(1)
    returns = np.zeros(4000)
    for step in range(3):
        obs, reward, _ = env.step(policy[0, step, state][:, None])
        state, returns = obs.argmax(1), returns + reward
    error = returns.std() / np.sqrt(4000)
    assert abs(returns.mean() - tabular.oracle(SMALL, task)[0]) < 5 * error


def test_posteriors_of_rewards():
    """After n rewards of mean m and noise variance v: normal, (v + n m) / (v + n), v / (v + n)."""
    counts = np.array([[[0.0, 3.0]]]).repeat(40_000, axis=0)
    sums = np.array([[[0.0, 6.0]]]).repeat(40_000, axis=0)
    drawn = tabular.sample_rewards(np.random.default_rng(0), counts, sums, 1.0, 0.5)
    np.testing.assert_allclose(drawn.mean(axis=(0, 1)), [1.0, 6.25 / 3.25], atol=0.02)
    np.testing.assert_allclose(drawn.var(axis=(0, 1)), [1.0, 0.25 / 3.25], rtol=0.03)
    zero = tabular.sample_rewards(np.random.default_rng(0), counts, sums, 0.0, 1.0)
    np.testing.assert_allclose(zero.mean(axis=(0, 1)), [0.0, 6 / 4], atol=0.02)
    certain = tabular.sample_rewards(np.random.default_rng(0), counts, sums, 1.0, 0.0)
    np.testing.assert_allclose(certain[..., 1], 2.0, atol=1e-5)
    assert certain[..., 0].std() == pytest.approx(1.0, rel=0.02)


def test_posteriors_of_transitions():
    """Dirichlet(1 + counts): means, and the variance of a component."""
    counts = np.array([3.0, 0.0, 1.0]).reshape(1, 1, 1, 3).repeat(20_000, axis=0)
    drawn = tabular.sample_transitions(np.random.default_rng(0), counts)[:, 0, 0]
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0)
    np.testing.assert_allclose(drawn.mean(axis=0), np.array([4, 1, 2]) / 7, atol=0.01)
    np.testing.assert_allclose(drawn[:, 0].var(), 4 / 7 * 3 / 7 / 8, rtol=0.05)


def test_a_bandit_without_noise_is_solved_in_time():
    """One state, rewards without noise: after 30 episodes of one step the best arm is pulled, or
    one that is hardly worse."""
    family = TabularMDP(horizon=1, num_states=1, num_actions=3, reward_std=0.0)
    returns = tabular.posterior_sampling(family, 30, 200, seed=1)
    assert returns.shape == (200, 30)
    best = family.sample_tasks(np.random.default_rng(1), 200)[:, :3].max(axis=1)
    assert (returns <= best[:, None] + 1e-9).all()
    assert (best - returns[:, -1]).mean() < 0.05
    assert (best - returns[:, 0]).mean() > 0.5


def test_psrl_on_rl2s_mdps():
    """10 states and 5 actions: an episode without knowledge has the return 10, 1 a step, and later
    ones more; the seed decides; the prior around 0 explores less."""
    family = TabularMDP()
    returns = tabular.posterior_sampling(family, 10, 300)
    assert np.array_equal(returns, tabular.posterior_sampling(family, 10, 300))
    assert returns[:, 0].mean() == pytest.approx(10, abs=1)
    assert returns[:, -1].mean() > 14
    assert returns.sum(axis=1).mean() == pytest.approx(133, abs=4)
    low = tabular.posterior_sampling(family, 10, 300, prior_mean=0.0)
    assert low.sum(axis=1).mean() == pytest.approx(138, abs=4)
    assert low.sum(axis=1).mean() > returns.sum(axis=1).mean()
