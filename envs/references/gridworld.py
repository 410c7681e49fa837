"""Exact returns on `gridworld`: a Bayes-optimal agent, posterior sampling, and an oracle.

A trial is a number of episodes with the same goal. All returns are expected returns of each of its
episodes, undiscounted, over the goals, which are equally probable; nothing is simulated.

Until it reaches the goal, an agent observes nothing that it could not foresee. So its behaviour up
to then is one walk, the search; the cells that it has not visited are its posterior. Once it has
been at the goal, it knows the rest of the trial: it stays there, and goes straight to it in later
episodes. An agent that first reaches the goal at step t of an episode (H + 1: not at all) has the
return 1.1 (H + 1 - t) - 0.1 H, so the best search is the one with the smallest sum of these t.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from metarl.envs.gridworld import ELSEWHERE, MOVES, ON_GOAL, GridWorld

Cell: TypeAlias = tuple[int, int]

START: Cell = (0, 0)
MAX_STATES = 300_000
"""Number of beliefs after which `bayes_optimal_search` gives up: about half a minute."""


def oracle(family: GridWorld, num_episodes: int) -> np.ndarray:
    """Return the returns, (num_episodes,), of an agent that knows the goal and goes straight to
    it."""
    arrivals = np.array([shortest_arrival(family, goal) for goal in goals_of(family)])
    return np.full(num_episodes, arrival_return(family, arrivals).mean())


def posterior_sampling(family: GridWorld, num_episodes: int) -> np.ndarray:
    """Return the returns, (num_episodes,), of posterior sampling (Strens 2000, Osband et al. 2013).

    At the beginning of each episode the agent draws a goal from its posterior, and follows the
    optimal policy of that goal to the end of the episode: up to its row, then right to it, where it
    stays. (Right first and then up has the same returns, by symmetry.) It does so even if it
    passes the true goal, from which it has one reward of 1; but the reward at every cell that it
    visits enters the posterior of the next episode.
    """
    goals = goals_of(family)
    straight = arrival_return(family, np.array([shortest_arrival(family, g) for g in goals]))
    known = np.zeros(len(goals))  # probability that goal i is the true one and has been seen
    unseen = {frozenset(goals): 1.0}  # probability of each set of the goals not ruled out
    returns = np.zeros(num_episodes)
    for episode in range(num_episodes):
        returns[episode] = known @ straight
        after: dict[frozenset[Cell], float] = defaultdict(float)
        for belief, probability in unseen.items():
            for sampled in belief:
                seen = path_to(sampled)[: family.horizon]
                for true in belief:
                    weight = probability / len(belief) ** 2
                    steps_there = 0 if true not in seen else 1
                    if true == sampled and true in seen:
                        steps_there = family.horizon - seen.index(true)
                    returns[episode] += weight * (
                        ELSEWHERE * family.horizon + (ON_GOAL - ELSEWHERE) * steps_there
                    )
                    if true in seen:
                        known[goals.index(true)] += weight
                rest = belief.difference(seen)
                after[rest] += probability * len(rest) / len(belief) ** 2
        unseen = {belief: probability for belief, probability in after.items() if belief}
    return returns


def bayes_optimal(family: GridWorld, num_episodes: int) -> np.ndarray:
    """Return the returns, (num_episodes,), of an agent that maximises the expected sum of them.

    Raises:
        ValueError: if the grid is too large for an exact solution.
    """
    return search_returns(family, bayes_optimal_search(family, num_episodes))


def search_returns(family: GridWorld, search: np.ndarray) -> np.ndarray:
    """Return the returns of an agent that searches along a walk until it has found the goal.

    Args:
        search: the cells after each step of the search, (num_episodes, horizon, 2).

    Returns:
        (num_episodes,). In the episodes after the goal was found, the agent goes straight to it.
    """
    arrivals = np.zeros(len(search))
    goals = goals_of(family)
    for goal in goals:
        found = False
        for episode, cells in enumerate(search):
            steps = np.flatnonzero((cells == goal).all(axis=1))
            if found:
                arrivals[episode] += shortest_arrival(family, goal)
            else:
                arrivals[episode] += steps[0] + 1 if steps.size else family.horizon + 1
            found = found or steps.size > 0
    return arrival_return(family, arrivals / len(goals))


def bayes_optimal_search(
    family: GridWorld, num_episodes: int, *, max_states: int = MAX_STATES
) -> np.ndarray:
    """Return the search, (num_episodes, horizon, 2) cells, of a Bayes-optimal agent.

    It maximises the expected sum of the episodes' returns; among the searches that do so, the
    return of the first episode, then that of the second, and so on. This is dynamic programming
    over beliefs in the order of A* (Hart et al. 1968), and exact: no arrival time is less than its
    bound.

    Raises:
        ValueError: if more than `max_states` beliefs would have to be examined.
    """
    start = Belief(0, 0, START, frozenset(goals_of(family)))
    straight = {goal: shortest_arrival(family, goal) for goal in start.goals}

    def bounds(belief: Belief, arrivals: tuple[int, ...]) -> tuple[int, ...]:
        """Return lower bounds of the final arrivals: their sum, and those of each episode."""
        rest = min_arrivals(belief.cell, belief.goals, family.horizon - belief.step)
        later = [sum(straight.values())] * (num_episodes - len(arrivals))
        each = (*arrivals[:-1], arrivals[-1] + rest, *later)
        return sum(each), *each

    def successors(belief: Belief, arrivals: tuple[int, ...]) -> Iterator[tuple[Belief, tuple]]:
        """Yield the beliefs after one more step, or at the next episode, with their arrivals."""
        episode, step, cell, goals = belief
        # The arrival at every goal that is not found is one step later; at the end of the episode
        # it is set to horizon + 1.
        arrivals = (*arrivals[:-1], arrivals[-1] + len(goals))
        if step < family.horizon:
            for there in neighbours(family, cell):
                yield Belief(episode, step + 1, there, goals - {there}), arrivals
        elif episode + 1 < num_episodes:
            known = sum(straight[goal] for goal in start.goals - goals)
            yield Belief(episode + 1, 0, START, goals), (*arrivals, known)
        else:
            yield Belief(num_episodes, 0, START, frozenset()), arrivals

    # Of equally good beliefs the last one comes first: it is the deepest.
    order = itertools.count(0, -1)
    queue = [Candidate(bounds(start, (0,)), next(order), start, (0,), None)]
    parents: dict[Belief, Belief | None] = {}
    while True:
        _, _, belief, arrivals, parent = heapq.heappop(queue)
        if belief in parents:
            continue
        parents[belief] = parent
        if belief.episode == num_episodes:
            return walk_to(belief, parents).reshape(num_episodes, family.horizon, 2)
        if len(parents) > max_states:
            raise ValueError(
                f"gridworld of size {family.size} and horizon {family.horizon}: the optimum of "
                f"{num_episodes} episodes needs more than {max_states:,} beliefs; size 5 and "
                "horizon 15 are feasible"
            )
        for after, new in successors(belief, arrivals):
            if after not in parents:
                candidate = Candidate(bounds(after, new), next(order), after, new, belief)
                heapq.heappush(queue, candidate)


class Belief(NamedTuple):
    """What an agent knows that has not found the goal, and where it is."""

    episode: int
    step: int
    """Number of steps of the episode so far."""
    cell: Cell
    goals: frozenset[Cell]
    """The goals that are not ruled out."""


class Candidate(NamedTuple):
    """A way to a belief that was not examined yet; sorted by its bounds."""

    bounds: tuple[int, ...]
    order: int
    belief: Belief
    arrivals: tuple[int, ...]
    """Sum over goals of the arrival times in each episode up to now, at the earliest."""
    parent: Belief | None


def walk_to(belief: Belief, parents: dict[Belief, Belief | None]) -> np.ndarray:
    """Return the cells after each step up to a belief, (number of steps, 2)."""
    cells, each = [], parents[belief]
    while each is not None:
        if each.step > 0:
            cells.append(each.cell)
        each = parents[each]
    return np.array(cells[::-1])


def min_arrivals(cell: Cell, belief: frozenset[Cell], steps_left: int) -> int:
    """Return a lower bound of the sum of the steps after which a walk from a cell is at each goal
    for the first time; `steps_left` + 1 for a goal that it does not reach."""
    total = arrival = 0
    for distance in sorted(distance_between(cell, goal) for goal in belief):
        # One new goal at a step, and none before it can be reached.
        arrival = max(arrival + 1, distance)
        total += min(arrival, steps_left + 1)
    return total


def goals_of(family: GridWorld) -> list[Cell]:
    """Return the possible goals as cells (x, y), in the order of the tasks."""
    return [(int(x), int(y)) for x, y in family.all_tasks]


def neighbours(family: GridWorld, cell: Cell) -> list[Cell]:
    """Return the cells that one move leads to. A search never gains by staying where it is."""
    moved = np.add(cell, MOVES[1:])
    return [(x, y) for x, y in moved.tolist() if min(x, y) >= 0 and max(x, y) < family.size]


def path_to(goal: Cell) -> list[Cell]:
    """Return the cells of the path of posterior sampling to a goal, without the start."""
    x, y = goal
    return [(0, each) for each in range(1, y + 1)] + [(each, y) for each in range(1, x + 1)]


def distance_between(one: Cell, other: Cell) -> int:
    """Return the number of moves from one cell to another."""
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def shortest_arrival(family: GridWorld, goal: Cell) -> int:
    """Return the step at which a straight walk is at a goal, horizon + 1 if it is too far."""
    return min(distance_between(START, goal), family.horizon + 1)


def arrival_return(family: GridWorld, arrival: np.ndarray) -> np.ndarray:
    """Return the returns of episodes in which the agent is at the goal from step `arrival` on."""
    steps_there = family.horizon + 1 - np.asarray(arrival)
    return ELSEWHERE * family.horizon + (ON_GOAL - ELSEWHERE) * steps_there
