"""All trajectories, and all data sets of a few episodes, with their probabilities."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from examples.estimators.exact import (
    CPU,
    Baseline,
    Problem,
    action_values,
    differentiable,
    mean_reward,
    slope,
    visits,
)
from metarl.agents.maml.batch import TrainingBatch, process_episodes
from metarl.core.params import Params
from metarl.core.returns import linear_features
from metarl.rollout.episodes import Episodes


def trajectories(problem: Problem) -> Episodes:
    """Return every sequence of actions and states, as K episodes of one task."""
    family = problem.family
    pairs = list(itertools.product(range(family.num_actions), repeat=family.horizon))
    paths = list(itertools.product(range(family.num_states), repeat=family.horizon - 1))
    actions = np.repeat(np.array(pairs), len(paths), axis=0)  # (K, T)
    states = np.tile(np.array(paths, int).reshape(len(paths), -1), (len(pairs), 1))
    states = np.pad(states, ((0, 0), (1, 0)))  # (K, T); all begin in state 0
    rewards, _ = family.tables(problem.task)
    ends = np.zeros((1, len(states)), bool)
    return Episodes(
        obs=np.eye(family.num_states)[states][None],
        action=actions[None, ..., None].astype(np.float64),
        reward=rewards[states, actions][None],
        mask=np.ones((1, *states.shape), bool),
        last_obs=np.zeros((1, len(states), family.num_states)),  # does not count
        terminated=ends,
        bootstrap=ends,
        tasks=problem.task[None],
    )


def probability(problem: Problem, params: Params, episodes: Episodes) -> Tensor:
    """Return the probability of trajectories of each task under its policy, (B, E)."""
    _, transitions = problem.tables
    state = torch.from_numpy(episodes.obs.argmax(-1))  # (B, E, T)
    action = torch.from_numpy(episodes.action[..., 0].astype(int))
    moves = transitions[state[..., :-1], action[..., :-1], state[..., 1:]].prod(-1)
    task = torch.arange(len(state))[:, None, None]
    return moves * problem.action_prob(params)[task, state, action].prod(-1)


def complete_batch(
    problem: Problem, params: Params, baseline: Baseline | None = None
) -> TrainingBatch:
    """Return all trajectories of each task, weighted by their probabilities under its policy.

    Args:
        problem: the problem.
        params: of the policies, stacked (B, ...).
        baseline: replaces the baseline, which is that of equally likely trajectories otherwise.
    """
    params = {name: value.detach() for name, value in params.items()}
    num_tasks, all_episodes = len(params["weight0"]), trajectories(problem)
    episodes = Episodes(
        **{name: np.repeat(array, num_tasks, axis=0) for name, array in all_episodes.arrays.items()}
    )
    batch, _ = process_episodes(episodes, problem.policy, params, problem.returns, CPU)
    horizon = problem.family.horizon
    weight = probability(problem, params, episodes).repeat_interleave(horizon, 1) / horizon
    batch = replace(batch, weight=weight)
    if baseline is None:
        return batch
    return with_values(batch, baseline(problem, params, batch))


def with_values(batch: TrainingBatch, value: Tensor) -> TrainingBatch:
    """Return the same batch with another baseline, (B, N). For discount 1 and lambda 1."""
    return replace(batch, advantage=batch.advantage + batch.value - value, value=value)


def no_baseline(problem: Problem, params: Params, batch: TrainingBatch) -> Tensor:
    return torch.zeros_like(batch.value)


def exact_baseline(problem: Problem, params: Params, batch: TrainingBatch) -> Tensor:
    """Return the policies' true values of the states."""
    prob = problem.action_prob(params)[:, None]
    value = (prob * action_values(problem, params)).sum(-1)  # (B, T, S)
    state = batch.obs.unflatten(1, (-1, problem.family.horizon))  # (B, E, T, S)
    return (state * value[:, None]).sum(-1).flatten(1)


def fitted_baseline(problem: Problem, params: Params, batch: TrainingBatch) -> Tensor:
    """Fit the project's linear baseline by weighted least squares: its limit for many episodes."""
    horizon = problem.family.horizon
    time = torch.arange(horizon).repeat(batch.obs.shape[1] // horizon) / horizon
    features = linear_features(batch.obs, time.expand(batch.obs.shape[:2]))
    weighted = (features * batch.weight[..., None]).transpose(1, 2)  # (B, F, N)
    returns = (batch.advantage + batch.value)[..., None]
    ridge = problem.returns.ridge * torch.eye(features.shape[-1], dtype=features.dtype)
    return (features @ torch.linalg.solve(weighted @ features + ridge, weighted @ returns))[..., 0]


def marginal_batch(problem: Problem, params: Params) -> TrainingBatch:
    """Return each state and action at each step once, weighted by its probability.

    Enough, and exact on large tasks too, for surrogates that look at steps one by one. Advantages
    are the true ones.
    """
    params = {name: value.detach() for name, value in params.items()}
    prob, family = problem.action_prob(params)[:, None], problem.family  # (B, 1, S, A)
    values = action_values(problem, params)  # (B, T, S, A)
    advantage = (values - (prob * values).sum(-1, keepdim=True)).flatten(1)
    weight = (visits(problem, params)[..., None] * prob).flatten(1) / family.horizon
    grid = torch.cartesian_prod(
        *(torch.arange(n) for n in (family.horizon, family.num_states, family.num_actions))
    ).expand(len(weight), -1, -1)  # (B, N, 3)
    obs, action = torch.eye(family.num_states, dtype=torch.float64)[grid[..., 1]], grid[..., 2:]
    return TrainingBatch(
        obs=obs,
        action=action,
        advantage=advantage,
        weight=weight,
        log_prob=problem.policy(params, obs).log_prob(action),
        reward=torch.full_like(weight, math.nan),  # only for surrogates of whole episodes
        value=torch.full_like(weight, math.nan),
        loss=torch.full_like(weight[:, 0], math.nan),  # only for rules that look at it
        horizon=family.horizon,
        longest=family.horizon,
    )


@dataclass(frozen=True)
class DataSets:
    """Every data set of a few episodes that can be played, whatever the order of its episodes.

    Attributes:
        problem: the problem.
        episodes: of the data sets, each a task of its own, (B, E, ...).
        index: which trajectories they are, (B, E).
        orders: in how many orders each can be played, (B,).
    """

    problem: Problem
    episodes: Episodes
    index: Tensor
    orders: Tensor

    def probability(self, vector: Tensor) -> Tensor:
        """Return the probability of each data set under the policy θ, (B,), differentiable."""
        single = probability(self.problem, self.problem.stacked(vector), trajectories(self.problem))
        return self.orders * single[0][self.index].prod(1)


def data_sets(problem: Problem, num_episodes: int) -> DataSets:
    """Return all data sets of so many episodes."""
    single = trajectories(problem)
    choices = range(single.obs.shape[1])
    index = np.array(list(itertools.combinations_with_replacement(choices, num_episodes)))
    counts = (index[:, :, None] == np.arange(len(choices))).sum(1)  # (B, K)
    factorials = np.array([math.factorial(n) for n in range(num_episodes + 1)])
    orders = factorials[num_episodes] / factorials[counts].prod(1)
    arrays = {name: array[0][index] for name, array in single.arrays.items() if name != "tasks"}
    episodes = Episodes(**arrays, tasks=np.repeat(problem.task[None], len(index), axis=0))
    return DataSets(problem, episodes, torch.from_numpy(index), torch.from_numpy(orders))


def few_episodes_return(sets: DataSets, vector: Tensor, baseline: bool = True) -> Tensor:
    """Return V_E(θ), the expected J after a step on a data set, differentiable.

    The step is written out here: θ + lr times the mean of ∇ log π A over the data set's steps.
    """
    problem, vector = sets.problem, differentiable(vector)
    params = problem.stacked(vector, len(sets.index))
    played = played_batch(problem, params, sets.episodes, baseline)
    log_prob = problem.policy(params, played.obs).log_prob(played.action)
    objective = (log_prob * played.advantage).mean(1).sum()
    steps = torch.autograd.grad(objective, list(params.values()), create_graph=True)
    after = {
        name: value + problem.lr * step
        for (name, value), step in zip(params.items(), steps, strict=True)
    }
    return sets.probability(vector) @ mean_reward(problem, after)


def few_episodes_gradient(sets: DataSets, baseline: bool = True) -> Tensor:
    """Return ∇V_E, (P,)."""
    return slope(lambda v: few_episodes_return(sets, v, baseline), sets.problem.vector)


def played_batch(
    problem: Problem, params: Params, episodes: Episodes, baseline: bool = True
) -> TrainingBatch:
    """Return the project's batch of episodes, with its baseline or none."""
    params = {name: value.detach() for name, value in params.items()}
    batch, _ = process_episodes(episodes, problem.policy, params, problem.returns, CPU)
    return batch if baseline else with_values(batch, torch.zeros_like(batch.value))
