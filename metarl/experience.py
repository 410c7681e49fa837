"""What the learner makes of episodes: flat, weighted steps with their advantages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.checks import check
from metarl.episodes import Episodes
from metarl.policies import GaussianMLP, Params
from metarl.returns import (
    advantages,
    baseline_values,
    explained_variance,
    standardize,
)


@dataclass(frozen=True)
class ReturnConfig:
    """How returns become advantages."""

    discount: float = 0.99
    """Discount per step."""
    gae_lambda: float = 1.0
    """Lambda of generalised advantage estimation; 1 means returns minus the baseline."""
    ridge: float = 1e-5
    """Ridge of the linear baseline's least squares."""
    standardize: bool = True
    """Whether each task's advantages are shifted and scaled to mean 0 and variance 1."""

    def __post_init__(self) -> None:
        check(0 <= self.discount <= 1, "discount", "between 0 and 1", self.discount)
        check(0 <= self.gae_lambda <= 1, "gae_lambda", "between 0 and 1", self.gae_lambda)
        check(self.ridge > 0, "ridge", "more than 0", self.ridge)


@dataclass(frozen=True)
class Experience:
    """The steps of B tasks, N = E * T each.

    An average over a task's steps is the sum of `weight * x`: every step that took place counts
    the same, however its episode ended, and every task counts the same in the meta-objective.

    Attributes:
        obs: (B, N, obs_dim).
        action: (B, N, action_dim).
        advantage: (B, N).
        weight: (B, N), 1 / (steps of the task) where a step took place and 0 elsewhere.
        log_prob: (B, N), of the policy that acted.
    """

    obs: Tensor
    action: Tensor
    advantage: Tensor
    weight: Tensor
    log_prob: Tensor

    def every(self, stride: int) -> Experience:
        """Return every `stride`-th step, with weights that sum to one again."""
        if stride == 1:
            return self
        obs, action, advantage, weight, log_prob = (
            value[:, ::stride].contiguous() for value in vars(self).values()
        )
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-12)
        return Experience(obs, action, advantage, weight, log_prob)


def make_experience(
    episodes: Episodes,
    policy: GaussianMLP,
    params: Params,
    config: ReturnConfig,
    device: torch.device,
) -> tuple[Experience, Tensor]:
    """Estimate the advantages of episodes that a stack of `params` played.

    Returns:
        The experience, in the type of `params`, and the baseline's explained variance, (B,).
    """
    obs, last_obs, reward, mask, bootstrap = (
        torch.from_numpy(array).to(device)
        for array in (
            episodes.obs,
            episodes.last_obs,
            episodes.reward,
            episodes.mask,
            episodes.bootstrap,
        )
    )
    reward = reward * mask
    values, last_values = baseline_values(
        obs, last_obs, reward, mask, bootstrap, config.discount, config.ridge
    )
    advantage = advantages(reward, mask, values, last_values, config.discount, config.gae_lambda)
    # With lambda = 1 an advantage is the return, with its bootstrap, less the value.
    returns = values + advantages(reward, mask, values, last_values, config.discount, 1.0)
    explained = explained_variance(returns, values, mask)
    if config.standardize:
        advantage = standardize(advantage, mask)
    weight = mask.double() / mask.sum((1, 2), keepdim=True)

    dtype = next(iter(params.values())).dtype
    flat_obs = obs.flatten(1, 2).to(dtype)
    action = torch.from_numpy(episodes.action).to(device).flatten(1, 2).to(dtype)
    with torch.no_grad():
        log_prob = policy(params, flat_obs).log_prob(action)
    experience = Experience(
        obs=flat_obs,
        action=action,
        advantage=advantage.flatten(1).to(dtype),
        weight=weight.flatten(1).to(dtype),
        log_prob=log_prob,
    )
    return experience, explained
