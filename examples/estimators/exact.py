"""A tabular task, a policy, and the exact values of returns, meta-objectives and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from metarl.agents.maml.batch import ReturnConfig, TrainingBatch
from metarl.core.params import Params, flatten, stack, unflatten
from metarl.core.policies import CategoricalMLP, PolicyConfig
from metarl.envs.tabular import TabularMDP

RETURNS = ReturnConfig(discount=1.0, gae_lambda=1.0, standardize=False)
CPU = torch.device("cpu")

Baseline: TypeAlias = Callable[["Problem", Params, TrainingBatch], Tensor]
"""The values, (B, N), to subtract from the returns of all trajectories."""


@dataclass(frozen=True)
class Problem:
    """A task, and the policy that adapts to it.

    Attributes:
        family, task: the task, (task_dim,).
        meta: of the policy, unstacked: `weight0`, (S, A), and `bias0`, (1, A). Their sums are the
            logits, as states are observed one-hot.
        lr: step size of the adaptation's one step.
        returns: how advantages are made.
    """

    family: TabularMDP
    task: np.ndarray
    meta: Params
    lr: float
    returns: ReturnConfig = RETURNS

    @property
    def policy(self) -> CategoricalMLP:
        return CategoricalMLP(
            PolicyConfig(hidden=()), self.family.num_states, self.family.num_actions
        )

    @property
    def vector(self) -> Tensor:
        """The meta-parameters θ, (P,)."""
        return flatten(self.meta)

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """Mean rewards, (S, A), and the probabilities of the next state, (S, A, S)."""
        rewards, transitions = self.family.tables(self.task)
        return torch.from_numpy(rewards), torch.from_numpy(transitions)

    def stacked(self, vector: Tensor, num_tasks: int = 1) -> Params:
        """Return parameters, (P,), as a stack of `num_tasks` times the same."""
        return stack(unflatten(vector, self.meta), num_tasks)

    def action_prob(self, params: Params) -> Tensor:
        """Return the policies as tables, (B, S, A)."""
        num_tasks = len(params["weight0"])
        states = torch.eye(self.family.num_states, dtype=torch.float64)
        return self.policy(params, states.expand(num_tasks, -1, -1)).logits.softmax(-1)


def make_problem(
    num_states: int, num_actions: int, horizon: int, lr: float, *, number: int = 0
) -> Problem:
    """Take validation task `number` of the family, without noise on its rewards, and draw a policy.

    The policy's logits are standard normal, so it is neither uniform nor nearly deterministic.
    """
    family = TabularMDP(horizon, num_states, num_actions, reward_std=0.0)
    task = family.tasks("validation", number + 1)[number]
    rng = np.random.default_rng(number)
    weight = torch.from_numpy(rng.standard_normal((num_states, num_actions)))
    meta = {"weight0": weight, "bias0": torch.zeros(1, num_actions, dtype=torch.float64)}
    return Problem(family, task, meta, lr)


def visits(problem: Problem, params: Params) -> Tensor:
    """Return the probability of each state at each step, (B, T, S), by forward recursion."""
    _, transitions = problem.tables
    prob = problem.action_prob(params)
    state = torch.zeros_like(prob[..., 0])
    state[:, 0] = 1
    steps = [state]
    for _ in range(problem.family.horizon - 1):
        steps.append(torch.einsum("bs,bsa,sap->bp", steps[-1], prob, transitions))
    return torch.stack(steps, 1)


def mean_reward(problem: Problem, params: Params) -> Tensor:
    """Return J, the expected discounted return of each policy divided by the horizon: (B,)."""
    rewards, _ = problem.tables
    horizon = problem.family.horizon
    discounts = problem.returns.discount ** torch.arange(horizon, dtype=torch.float64)
    reward = torch.einsum(
        "bts,bsa,sa->bt", visits(problem, params), problem.action_prob(params), rewards
    )
    return (reward * discounts).sum(1) / horizon


def action_values(problem: Problem, params: Params) -> Tensor:
    """Return Q_t(s, a), the expected discounted rewards from step t on, (B, T, S, A)."""
    rewards, transitions = problem.tables
    prob = problem.action_prob(params)
    following = torch.zeros_like(prob[..., 0])  # (B, S), the value of the step after
    steps = []
    for _ in range(problem.family.horizon):
        future = torch.einsum("sap,bp->bsa", transitions, following)
        steps.append(rewards + problem.returns.discount * future)
        following = (prob * steps[-1]).sum(-1)
    return torch.stack(steps[::-1], 1)


def differentiable(vector: Tensor) -> Tensor:
    """Return a vector that is in a graph: itself, or a new leaf."""
    return vector if vector.requires_grad else vector.detach().requires_grad_()


def slope(function: Callable[[Tensor], Tensor], at: Tensor, create_graph: bool = False) -> Tensor:
    """Return the gradient of a scalar function at a vector, (P,)."""
    at = differentiable(at)
    (gradient,) = torch.autograd.grad(function(at), at, create_graph=create_graph)
    return gradient


def expected(problem: Problem, vector: Tensor) -> Tensor:
    """Return J(θ)."""
    return mean_reward(problem, problem.stacked(vector))[0]


def adapted(problem: Problem, vector: Tensor) -> Tensor:
    """Return θ + lr ∇J(θ), (P,), differentiable."""
    return vector + problem.lr * slope(lambda v: expected(problem, v), vector, create_graph=True)


def exact_gradient(problem: Problem) -> Tensor:
    """Return ∇V, the gradient of J(θ + lr ∇J(θ)), (P,)."""
    return slope(lambda v: expected(problem, adapted(problem, v)), problem.vector)
