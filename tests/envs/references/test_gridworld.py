"""metarl.envs.references.gridworld: against the belief MDP written out, and played in the
environment."""

from __future__ import annotations

import functools
import itertools
from fractions import Fraction

import numpy as np
import pytest

from metarl.envs import GridWorld
from metarl.envs.references import gridworld

FAMILY = GridWorld()
STAY, UP, RIGHT, DOWN, LEFT = range(5)
STEPS = {STAY: (0, 0), UP: (0, 1), RIGHT: (1, 0), DOWN: (0, -1), LEFT: (-1, 0)}


def play(family: GridWorld, goal: np.ndarray, choose) -> float:
    """The return of an episode in the environment. `choose(cell)` is the action in a cell, and
    `choose.see(cell, reward)` is told of every step."""
    env = family.make_batch(1)
    env.reset(goal[None], [np.random.default_rng(0)])
    total = 0.0
    for _ in range(family.horizon):
        cell = tuple(env.render_state(0).astype(int))
        _, reward, _ = env.step(np.array([[choose(cell)]]))
        choose.see(tuple(env.render_state(0).astype(int)), reward[0])
        total += reward[0]
    return total


class Walker:
    """Walks along cells until it has seen a reward of 1, and then to the cell where that was.

    A straight walk goes up first, then right.
    """

    def __init__(self, walk=()):
        self.walk, self.goal = list(walk), None

    def __call__(self, cell):
        target = self.goal if self.goal is not None else self.walk.pop(0)
        (x, y), (to_x, to_y) = cell, target
        up, right = np.sign(to_y - y), np.sign(to_x - x)
        return {1: UP, -1: DOWN, 0: {1: RIGHT, -1: LEFT, 0: STAY}[right]}[up]

    def see(self, cell, reward):
        if reward == 1:
            self.goal = cell


# --- the values themselves ---


def test_the_values_of_varibads_gridworld():
    """Four episodes. The Bayes-optimal agent sees a new cell at each of the steps 2 to 15, which no
    agent can better, and the cells that are left lie on one shortest path. So from the second
    episode on it is as good as the oracle, and both bounds are reached."""
    optimal = gridworld.bayes_optimal(FAMILY, 4)
    oracle = gridworld.oracle(FAMILY, 4)
    np.testing.assert_allclose(optimal, [4.0, 155 / 14, 155 / 14, 155 / 14], rtol=1e-14)
    np.testing.assert_allclose(oracle, [155 / 14] * 4, rtol=1e-14)
    assert optimal.sum() == pytest.approx(37.2142857142857)
    # 14 goals are found at the steps 2 to 15, the other 7 are not: no episode without knowledge
    # has a higher return.
    found = [(16 - step) - 0.1 * (step - 1) for step in range(2, 16)]
    assert (sum(found) - 7 * 1.5) / 21 == pytest.approx(4.0)
    # The mean of x + y over the goals is 96 / 21.
    assert oracle[0] == pytest.approx(16.1 - 1.1 * 96 / 21)


def test_the_values_of_posterior_sampling_on_varibads_gridworld():
    returns = gridworld.posterior_sampling(FAMILY, 4)
    np.testing.assert_allclose(returns, [-0.7741, 1.3894, 3.1092, 4.5935], atol=5e-5)


@pytest.mark.parametrize(
    ("horizon", "num_episodes", "values"),
    [
        (15, 1, [4.0]),
        # Too short for the rest to lie on one path
        (10, 3, [19 / 14, 73 / 15, 85 / 14]),
    ],
)
def test_other_optima(horizon, num_episodes, values):
    returns = gridworld.bayes_optimal(GridWorld(horizon=horizon), num_episodes)
    np.testing.assert_allclose(returns, values, rtol=1e-12)


# --- the optimum, against the belief MDP ---


def belief_mdp(size: int, horizon: int, num_episodes: int) -> list[Fraction]:
    """Bayes-optimal returns by episode, by plain recursion over histories' posteriors.

    At every step all five actions are tried; both rewards enter the posterior by Bayes' rule. The
    sum of the returns is maximal, and of equal sums the first different return.
    """
    cells = list(itertools.product(range(size), repeat=2))
    prior = frozenset(cell for cell in cells if cell not in {(0, 0), (0, 1), (1, 0), (1, 1)})

    @functools.cache
    def value(episode, step, cell, posterior):
        """The returns of the rest of this episode and of the later ones."""
        if episode == num_episodes:
            return ()
        if step == horizon:
            return (Fraction(0), *value(episode + 1, 0, (0, 0), posterior))
        options = []
        for dx, dy in STEPS.values():
            there = (min(max(cell[0] + dx, 0), size - 1), min(max(cell[1] + dy, 0), size - 1))
            expected = np.zeros(num_episodes - episode, object)
            for reward in (Fraction(1), Fraction(-1, 10)):
                likely = frozenset(g for g in posterior if (g == there) == (reward == 1))
                if likely:
                    later = np.array(value(episode, step + 1, there, likely), object)
                    later[0] += reward
                    expected = expected + Fraction(len(likely), len(posterior)) * later
            options.append((sum(expected), *expected))
        return max(options)[1:]

    return list(value(0, 0, (0, 0), prior))


@pytest.mark.parametrize(
    ("size", "horizon", "num_episodes"),
    [(3, 3, 3), (3, 4, 2), (3, 5, 2), (3, 7, 1), (4, 5, 2), (4, 6, 1)],
)
def test_the_optimum_is_that_of_the_belief_mdp(size, horizon, num_episodes):
    """Also where some goals are too far away, and where not all are found in the last episode."""
    family = GridWorld(size=size, horizon=horizon)
    expected = belief_mdp(size, horizon, num_episodes)
    returns = gridworld.bayes_optimal(family, num_episodes)
    np.testing.assert_allclose(returns, np.array(expected, float), rtol=1e-12)


@pytest.mark.parametrize("family", [FAMILY, GridWorld(size=4, horizon=6)])
def test_the_optimal_search_played_in_the_environment(family):
    """On every goal: the means are the optimal values."""
    search = gridworld.bayes_optimal_search(family, 3)
    assert search.shape == (3, family.horizon, 2)
    returns = []
    for goal in family.all_tasks:
        walker = Walker()
        returns.append([])
        for walk in search:
            walker.walk = [tuple(cell) for cell in walk]
            returns[-1].append(play(family, goal, walker))
    optimum = gridworld.bayes_optimal(family, 3)
    np.testing.assert_allclose(np.mean(returns, axis=0), optimum, rtol=1e-12)


def test_a_grid_too_large_for_the_optimum_is_refused():
    message = "gridworld of size 6 and horizon 15: the optimum of 4 episodes needs more than 200 "
    with pytest.raises(ValueError, match=message):
        gridworld.bayes_optimal_search(GridWorld(size=6), 4, max_states=200)


# --- the others ---


@pytest.mark.parametrize("horizon", [3, 8])
def test_the_oracle_played_in_the_environment(horizon):
    family = GridWorld(horizon=horizon)
    returns = []
    for goal in family.all_tasks:
        walker = Walker()
        walker.goal = tuple(goal)
        returns.append(play(family, goal, walker))
    np.testing.assert_allclose(gridworld.oracle(family, 2), [np.mean(returns)] * 2, rtol=1e-12)


@pytest.mark.parametrize(("size", "horizon"), [(3, 2), (3, 3), (3, 6)])
def test_posterior_sampling_played_in_the_environment(size, horizon):
    """On every goal, with every sequence of samples: rewards are all that the agent learns from."""
    family, num_episodes = GridWorld(size=size, horizon=horizon), 3
    goals = [tuple(goal) for goal in family.all_tasks.astype(int)]

    def returns(goal, posterior, episodes):
        """The expected returns of the next episodes."""
        if not episodes:
            return np.zeros(0)
        total = np.zeros(episodes)
        for sampled in posterior:
            seen = {}
            walker = Walker([sampled] * horizon)
            walker.see = seen.__setitem__
            first = play(family, np.array(goal), walker)
            rewarded = {cell for cell, reward in seen.items() if reward == 1}
            left = rewarded or posterior - set(seen)
            total += np.array([first, *returns(goal, frozenset(left), episodes - 1)])
        return total / len(posterior)

    expected = np.mean([returns(goal, frozenset(goals), num_episodes) for goal in goals], axis=0)
    got = gridworld.posterior_sampling(family, num_episodes)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_order_of_the_references():
    """Nothing is better than the oracle, and posterior sampling is worse than the optimum."""
    for horizon in (4, 10, 20):
        family = GridWorld(horizon=horizon)
        sampling, optimal, oracle = (
            reference(family, 2)
            for reference in (
                gridworld.posterior_sampling,
                gridworld.bayes_optimal,
                gridworld.oracle,
            )
        )
        assert (optimal <= oracle + 1e-12).all()
        assert sampling.sum() < optimal.sum()
