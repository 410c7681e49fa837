"""Training batches: the steps of all episodes of each task, with weights and advantages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from metarl.core.devices import upload
from metarl.core.params import Params, join_params
from metarl.core.policies import MLPPolicy
from metarl.core.returns import (
    advantages,
    baseline_values,
    explained_variance,
    is_last,
    moments,
    tells_apart,
)
from metarl.core.schema import Section
from metarl.rollout.episodes import Episodes

LENGTHS = ("horizon", "longest")
"""The fields of a training batch that are numbers."""
MIN_TIMES = 10
"""At how many times of a long episode steps are taken at least, where only some are taken."""


class ReturnConfig(Section):
    """The estimation of advantages."""

    discount: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Discount factor per step."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Lambda of generalised advantage estimation; 1 gives discounted returns minus the baseline."""
    ridge: Annotated[float, Field(ge=1e-10)] = 1e-5
    """Ridge of the least-squares fit of the linear baseline. A larger one helps where a task has
    hardly more steps than the baseline has features: two for each number of an observation, and
    four."""
    standardize: bool = True
    """Whether the advantages of each task are shifted and scaled to mean 0 and variance 1."""


@dataclass(frozen=True)
class TrainingBatch:
    """The N = E * T steps of each of B tasks, episode by episode.

    The mean of x over the steps of a task is the sum of `weight * x`. All steps that took place
    have equal weight, independent of the lengths of their episodes, and all tasks have equal weight
    in the meta-objective.

    Attributes:
        obs: (B, N, obs_dim).
        action: (B, N, action_dim).
        advantage: (B, N).
        weight: (B, N), 1 / (number of steps of the task) at steps that took place, 0 elsewhere.
        log_prob: (B, N), log probability of the action under the policy that chose it.
        reward: (B, N), reward discounted to the first step of the episode and divided by the scale
            of the advantages. The last reward of a truncated episode includes the bootstrapped
            value of the last state.
        value: (B, N), the values, discounted and scaled like the reward. With lambda = 1, the sum
            of `reward` from a step on, minus `value` at the step, is the discounted advantage.
        loss: (B,), negative mean reward per step; the loss value given to update rules, since the
            value of a surrogate does not measure the performance of a policy.
        horizon: T.
        longest: number of steps of the longest episode of the meta-batch that these tasks belong
            to, which may be less than T where episodes end early.
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
    longest: int

    @property
    def num_episodes(self) -> int:
        """E."""
        return self.weight.shape[1] // self.horizon

    def by_episode(self, x: Tensor) -> Tensor:
        """Return values of steps, (B, N), as (B, E, T), with 0 at steps that did not take place."""
        return torch.where(self.weight > 0, x, 0).unflatten(1, (-1, self.horizon))

    def of_tasks(self, indices: Tensor) -> TrainingBatch:
        """Return the training batch of the tasks at `indices`, (n,)."""
        tensors = {name: x[indices] for name, x in vars(self).items() if name not in LENGTHS}
        return TrainingBatch(**tensors, horizon=self.horizon, longest=self.longest)

    @staticmethod
    def joined(batches: Sequence[TrainingBatch]) -> TrainingBatch:
        """Return the tasks of several training batches of one meta-batch as one batch."""
        tensors = [{n: x for n, x in vars(each).items() if n not in LENGTHS} for each in batches]
        lengths = {name: getattr(batches[0], name) for name in LENGTHS}
        return TrainingBatch(**join_params(tensors), **lengths)

    def of_episodes(self, indices: Tensor | slice) -> TrainingBatch:
        """Return the training batch of the episodes at `indices`, (n,), of each task."""

        def subsample(x: Tensor) -> Tensor:
            return x.unflatten(1, (-1, self.horizon))[:, indices].flatten(1, 2)

        return self._of_steps(subsample)

    def every(self, stride: int, whole_episodes: bool = False) -> TrainingBatch:
        """Return a subset of the steps, with weights that sum to 1 for each task.

        Args:
            stride: every `stride`-th step is kept; every step after a few more if these would be
                the same few steps of all episodes, see `spread`.
            whole_episodes: whether every `stride`-th episode is kept instead.
        """
        if stride == 1:
            return self
        if whole_episodes:
            return self.of_episodes(slice(None, None, stride))
        stride = spread(stride, self.horizon, self.longest)
        return self._of_steps(lambda x: x[:, ::stride].contiguous())

    def _of_steps(self, subsample: Callable[[Tensor], Tensor]) -> TrainingBatch:
        """Return the training batch of a subset of the steps of each task, whose weights sum to 1,
        given the function from values of all steps, (B, N, ...), to those of the subset."""
        # The fields without an axis N
        without_steps = {"loss": self.loss, "horizon": self.horizon, "longest": self.longest}
        kept = {name: subsample(x) for name, x in vars(self).items() if name not in without_steps}
        weight = kept.pop("weight")
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-12)
        return TrainingBatch(**kept, weight=weight, **without_steps)


def spread(stride: int, horizon: int, longest: int) -> int:
    """Return the smallest stride, `stride` or more, by which the steps of episodes that follow one
    another are taken at half of the times of the longest episode, or at `MIN_TIMES` of them.

    By 16, of episodes of 16 steps only the first ones would be taken, in which all episodes may
    have the same state; and of episodes of 160 that end after 10 too.

    Args:
        stride: the wanted stride.
        horizon: distance from the first step of an episode to that of the next one.
        longest: number of steps of the longest episode, at most `horizon`.
    """
    needed = min(longest, MIN_TIMES, max(2, longest // 2))
    # The times that are taken are the multiples of the greatest common divisor.
    while math.ceil(longest / math.gcd(stride, horizon)) < needed:
        stride += 1
    return stride


def longest_episode(episodes: Episodes) -> int:
    """Return the number of steps of the longest of all episodes."""
    return int(episodes.mask.any((0, 1)).sum())


def linear_values(
    episodes: Episodes, config: ReturnConfig, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the values of the linear baseline, fitted to the episodes of each task, at their
    steps, (B, E, T), and after them, (B, E); see `metarl.core.returns.baseline_values`."""
    obs, last_obs, reward, mask, bootstrap = (
        upload(array, device)
        for array in (
            episodes.obs,
            episodes.last_obs,
            episodes.reward,
            episodes.mask,
            episodes.bootstrap,
        )
    )
    return baseline_values(
        obs, last_obs, reward * mask, mask, bootstrap, config.discount, config.ridge
    )


def process_episodes(
    episodes: Episodes,
    policy: MLPPolicy,
    params: Params,
    config: ReturnConfig,
    device: torch.device,
    longest: int | None = None,
    values_of: Callable[[Episodes], tuple[Tensor, Tensor]] | None = None,
) -> tuple[TrainingBatch, Tensor]:
    """Return the training batch of episodes, with estimated advantages.

    Args:
        episodes: the episodes of B tasks.
        policy: the policy that played the episodes.
        params: the policy parameters that played the episodes, stacked (B, ...).
        config: settings of the advantages.
        device: the device of the batch.
        longest: number of steps of the longest episode of the meta-batch that these episodes are a
            part of; by default of these episodes.
        values_of: the values of the steps of episodes, (B, E, T), and of their last states, (B, E);
            by default those of the linear baseline.

    Returns:
        The training batch, with the dtype of `params`; and the explained variance of the values,
        (B,) float64.
    """
    obs, reward, mask = (
        upload(array, device) for array in (episodes.obs, episodes.reward, episodes.mask)
    )
    reward = reward * mask
    if values_of is None:
        values, last_values = linear_values(episodes, config, device)
    else:
        values, last_values = values_of(episodes)
    advantage = advantages(reward, mask, values, last_values, config.discount, config.gae_lambda)
    # With lambda = 1 an advantage is the (bootstrapped) discounted return minus the value.
    returns = values + advantages(reward, mask, values, last_values, config.discount, 1.0)
    explained = explained_variance(returns, values, mask)
    shift, scale = 0.0, 1.0
    if config.standardize:
        mean, std = moments(advantage, mask)
        shift, scale = mean, std + 1e-8
        # Where no episode was better than another, advantages are the errors of the baseline alone.
        scale = torch.where(tells_apart(reward, mask)[:, None, None], scale, torch.inf)
        advantage = (advantage - shift) / scale * mask
    bootstrapped = config.discount * last_values[..., None] * is_last(mask)
    discount_to_start = config.discount ** torch.arange(mask.shape[-1], device=device).double()

    count = mask.sum((1, 2), keepdim=True).clamp(min=1)  # number of steps, (B, 1, 1)

    def by_step(x: Tensor) -> Tensor:
        # (B, E, T, ...) -> (B, N, ...). A copy has the same alignment in every process, unlike the
        # memory of NumPy arrays; the rounding of a matrix product may depend on the alignment.
        return x.flatten(1, 2).to(dtype, copy=True)

    dtype = next(iter(params.values())).dtype
    step_obs = by_step(obs)
    action = by_step(upload(episodes.action, device))
    with torch.no_grad():
        log_prob = policy(params, step_obs).log_prob(action)
    batch = TrainingBatch(
        obs=step_obs,
        action=action,
        advantage=by_step(advantage),
        # All weights are 0 for a task whose episodes were all left out.
        weight=by_step(mask.double() / count),
        log_prob=log_prob,
        reward=by_step((reward + bootstrapped) * discount_to_start / scale),
        value=by_step((values + shift) * discount_to_start / scale * mask),
        loss=-(reward.double().sum((1, 2)) / count[:, 0, 0]).to(dtype),
        horizon=mask.shape[-1],
        longest=longest_episode(episodes) if longest is None else longest,
    )
    return batch, explained
