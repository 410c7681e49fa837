"""Training batches: the steps of episodes, flat and weighted, with their advantages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from metarl.core.params import Params
from metarl.core.policies import MLPPolicy
from metarl.core.returns import (
    advantages,
    baseline_values,
    explained_variance,
    is_last,
    moments,
)
from metarl.core.schema import Section
from metarl.rollout.episodes import Episodes


class ReturnConfig(Section):
    """How returns become advantages."""

    discount: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Discount per step."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Lambda of generalised advantage estimation; 1 means returns minus the baseline."""
    ridge: Annotated[float, Field(gt=0)] = 1e-5
    """Ridge of the linear baseline's least squares."""
    standardize: bool = True
    """Whether each task's advantages are shifted and scaled to mean 0 and variance 1."""


@dataclass(frozen=True)
class TrainingBatch:
    """The steps of B tasks, N = E * T each, episode by episode.

    An average over a task's steps is the sum of `weight * x`: every step that took place counts
    the same, however its episode ended, and every task counts the same in the meta-objective.

    Attributes:
        obs: (B, N, obs_dim).
        action: (B, N, action_dim).
        advantage: (B, N).
        weight: (B, N), 1 / (steps of the task) where a step took place and 0 elsewhere.
        log_prob: (B, N), of the policy that acted.
        reward: (B, N), discounted to the start of the episode, in the units of the advantage.
            The last one includes the value of the last state, where that is bootstrapped.
        value: (B, N), the baseline in the same units: with lambda = 1, the sum of the rewards from
            a step on, less its value, is the discounted advantage.
        loss: (B,), negative mean reward per step of each task; the loss value given to update
            rules, since the value of a surrogate does not tell how good a policy is.
        horizon: T.
    """

    obs: Tensor
    action: Tensor
    advantage: Tensor
    weight: Tensor
    log_prob: Tensor
    reward: Tensor
    value: Tensor
    loss: Tensor
    horizon: int

    def by_episode(self, x: Tensor) -> Tensor:
        """Shape a number per step, (B, N), as (B, E, T), with 0 where no step took place."""
        return torch.where(self.weight > 0, x, 0).unflatten(1, (-1, self.horizon))

    def of_tasks(self, indices: Tensor) -> TrainingBatch:
        """Return the steps of the tasks with these numbers, (n,)."""
        tensors = {name: x[indices] for name, x in vars(self).items() if name != "horizon"}
        return TrainingBatch(**tensors, horizon=self.horizon)

    def every(self, stride: int, whole_episodes: bool = False) -> TrainingBatch:
        """Return every `stride`-th step, or episode, with weights that sum to one again."""
        if stride == 1:
            return self

        def thin(x: Tensor) -> Tensor:
            if whole_episodes:
                return x.unflatten(1, (-1, self.horizon))[:, ::stride].flatten(1, 2)
            return x[:, ::stride].contiguous()

        whole = {"loss": self.loss, "horizon": self.horizon}  # the task's, not those of its steps
        thinned = {name: thin(x) for name, x in vars(self).items() if name not in whole}
        weight = thinned.pop("weight")
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-12)
        return TrainingBatch(**thinned, weight=weight, **whole)


def process_episodes(
    episodes: Episodes,
    policy: MLPPolicy,
    params: Params,
    config: ReturnConfig,
    device: torch.device,
) -> tuple[TrainingBatch, Tensor]:
    """Estimate the advantages of episodes that a stack of `params` played.

    Returns:
        The batch, in the type of `params`, and the baseline's explained variance, (B,).
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
    shift, scale = 0.0, 1.0
    if config.standardize:
        mean, std = moments(advantage, mask)
        shift, scale = mean, std + 1e-8
        advantage = (advantage - shift) / scale * mask
    ending = config.discount * last_values[..., None] * is_last(mask)
    to_start = config.discount ** torch.arange(mask.shape[-1], device=device).double()

    count = mask.sum((1, 2), keepdim=True).clamp(min=1)  # of steps, (B, 1, 1)

    def flat(x: Tensor) -> Tensor:
        # A copy, aligned alike in every process, which NumPy's memory is not: the rounding of a
        # matrix product may depend on it.
        return x.flatten(1, 2).to(dtype, copy=True)

    dtype = next(iter(params.values())).dtype
    flat_obs = flat(obs)
    action = flat(torch.from_numpy(episodes.action).to(device))
    with torch.no_grad():
        log_prob = policy(params, flat_obs).log_prob(action)
    batch = TrainingBatch(
        obs=flat_obs,
        action=action,
        advantage=flat(advantage),
        # A task whose episodes were all left out has no weight anywhere.
        weight=flat(mask.double() / count),
        log_prob=log_prob,
        reward=flat((reward + ending) * to_start / scale),
        value=flat((values + shift) * to_start / scale * mask),
        loss=-(reward.double().sum((1, 2)) / count[:, 0, 0]).to(dtype),
        horizon=mask.shape[-1],
    )
    return batch, explained
