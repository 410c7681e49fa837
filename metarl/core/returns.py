"""Discounted returns, the linear-feature baseline, and generalised advantage estimation.

B is the number of tasks, E the number of episodes of each task, T the horizon, F the number of
features. Values and advantages are float64.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

OBS_LIMIT = 10.0  # bound that observations are clipped to before features are computed
BLOCK = 1024  # steps whose discounted sums are one matrix product; longer episodes are divided


def discounted_sums(values: Tensor, factor: float) -> Tensor:
    """Return sum_{s >= t} factor^(s - t) values_s for every step t, (..., T) like `values`."""
    steps, kind = values.shape[-1], (values.dtype, values.device)
    if steps <= BLOCK:
        return values @ discount_weights(steps, factor, *kind)
    blocks = F.pad(values, (0, -steps % BLOCK)).unflatten(-1, (-1, BLOCK))  # (..., n, BLOCK)
    within = discounted_sums(blocks, factor)
    first = discounted_sums(within[..., 0], factor**BLOCK)  # at the first step of each block
    following = F.pad(first[..., 1:], (0, 1))[..., None]  # that of the next block, (..., n, 1)
    distance = torch.arange(BLOCK, 0, -1, device=values.device)
    sums = within + factor ** distance.to(values.dtype) * following
    return sums.flatten(-2)[..., :steps]


@functools.lru_cache(maxsize=8)
def discount_weights(
    horizon: int, factor: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return factor^(s - t) for s >= t and 0 elsewhere, at [s, t], (T, T)."""
    steps = torch.arange(horizon, device=device)
    power = steps[:, None] - steps[None, :]  # [s, t] -> s - t
    return torch.where(power >= 0, factor ** power.clamp(min=0).to(dtype), 0.0)


def discounted_prefixes(values: Tensor, factor: float) -> Tensor:
    """Return sum_{s <= t} factor^(t - s) values_s for every step t, (..., T) like `values`."""
    return discounted_sums(values.flip(-1), factor).flip(-1)


def linear_features(obs: Tensor, time: Tensor) -> Tensor:
    """Return the features of the linear baseline: obs, obs^2, t, t^2, t^3, 1.

    These are the time-varying features of Duan et al. 2016, section 5, bounded: observations are
    clipped to `OBS_LIMIT`, and time is measured in horizons.

    Args:
        obs: (..., obs_dim).
        time: elapsed fraction of the horizon, (...).

    Returns:
        (..., 2 * obs_dim + 4) float64.
    """
    clipped = obs.double().clamp(-OBS_LIMIT, OBS_LIMIT)
    t = time.double()[..., None]
    return torch.cat([clipped, clipped**2, t, t**2, t**3, torch.ones_like(t)], -1)


def baseline_values(
    obs: Tensor,
    last_obs: Tensor,
    reward: Tensor,
    mask: Tensor,
    bootstrap: Tensor,
    discount: float,
    ridge: float,
) -> tuple[Tensor, Tensor]:
    """Fit a linear value function to the episodes of each task, and evaluate it on these episodes.

    The weights w minimise the squared error of w . f(s_t) with respect to the discounted return
    from step t on (the linear baseline of Duan et al. 2016, section 5). Where a time limit
    truncated an episode at length n, the return is continued by the value of the last state: the
    regression is of the discounted sum of the observed rewards on f(s_t) - discount^(n - t) f(s_n),
    which remains one linear least-squares problem. The time features of tasks with truncated
    episodes are 0: the values of such tasks do not depend on time, and adding a multiple of
    discount^-t, which time features can approximate, to the values changes no residual.

    The ridge regression is solved in float64; see `ridge_weights`.

    Args:
        obs: (B, E, T, obs_dim).
        last_obs: observation after the last step, (B, E, obs_dim).
        reward: (B, E, T).
        mask: whether each step took place, (B, E, T) bool.
        bootstrap: whether the return is continued by the value of `last_obs`, (B, E) bool.
        discount: discount factor per step.
        ridge: added to the diagonal of the mean outer product of the features.

    Returns:
        Values at the steps, (B, E, T), 0 where masked; and values of the last states, (B, E), 0
        where `bootstrap` is false.
    """
    horizon = obs.shape[2]
    steps = torch.arange(horizon, device=obs.device)
    length = mask.sum(-1)  # (B, E)
    step_mask = mask[..., None].double()
    time_dependent = ~bootstrap.any(1)[:, None]  # (B, 1)
    time = (steps / horizon * time_dependent)[:, None].expand(mask.shape)
    features = linear_features(obs, time) * step_mask  # (B, E, T, F)
    # (B, E, F); nonzero only for tasks with truncated episodes, whose time features are 0
    last_features = linear_features(last_obs, torch.zeros_like(length)) * bootstrap[..., None]
    target = discounted_sums(reward.double() * mask, discount)  # (B, E, T)

    # discount^(n - t) f(s_n), 0 for episodes without a bootstrapped value
    remaining = (length[..., None] - steps).clamp(min=0).double()  # (B, E, T)
    tail = (discount**remaining)[..., None] * last_features[:, :, None]
    regressor = features - tail * step_mask
    count = length.sum(-1).clamp(min=1).double()[:, None, None]
    targets = (target * mask).flatten(1)[..., None]
    weights = ridge_weights(regressor.flatten(1, 2), targets, count, ridge)[:, None]
    return (features @ weights)[..., 0], (last_features[:, :, None] @ weights)[:, :, 0, 0]


def baseline_memory(num_steps: int, obs_dim: int) -> int:
    """Return the bytes that `baseline_values` needs at least for a task: three arrays of features.

    Args:
        num_steps: E * T.
        obs_dim: size of an observation.
    """
    return 3 * num_steps * (2 * obs_dim + 4) * 8


def ridge_weights(design: Tensor, target: Tensor, count: Tensor, ridge: float) -> Tensor:
    """Return the w that minimises |X w - y|^2 / count + ridge |w|^2 for each task, (B, F, 1).

    The linear system is solved in the smaller of the spaces of features and of steps, so that many
    features, such as the pixels of an image, need no F x F matrix. The two solutions are equal
    (Saunders et al. 1998).

    Args:
        design: X, the features of N steps, (B, N, F).
        target: y, (B, N, 1).
        count: number of steps of each task that took place, (B, 1, 1); the other rows of X are 0.
        ridge: more than 0.
    """
    num_steps, num_features = design.shape[1:]
    transposed = design.transpose(1, 2)
    if num_features <= num_steps:
        gram = transposed @ design / count
        gram = gram + ridge * torch.eye(num_features, dtype=gram.dtype, device=gram.device)
        moment = transposed @ target / count
        return torch.linalg.solve(gram, moment)
    # X^T (X X^T / count + ridge I)^-1 y / count
    kernel = design @ transposed / count
    kernel = kernel + ridge * torch.eye(num_steps, dtype=kernel.dtype, device=kernel.device)
    return transposed @ torch.linalg.solve(kernel, target) / count


def is_last(mask: Tensor) -> Tensor:
    """Return the mask of the last step of each episode, (..., T) bool, for `mask` (..., T)."""
    return mask & ~torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], -1)


def advantages(
    reward: Tensor,
    mask: Tensor,
    values: Tensor,
    last_values: Tensor,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """Return generalised advantage estimates (Schulman et al. 2016, equation 16).

    Args:
        reward: (B, E, T), 0 where masked.
        mask: whether each step took place, (B, E, T) bool.
        values: baseline at the steps, (B, E, T), 0 where masked.
        last_values: (B, E), the value of the last state of a truncated episode; 0 for episodes that
            end in a terminal state or at the end of a finite-horizon task.
        discount: discount factor per step (gamma).
        gae_lambda: lambda per step.

    Returns:
        (B, E, T) float64, 0 where masked.
    """
    following = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], -1)
    following = torch.where(is_last(mask), last_values[..., None], following)
    # TD residual delta_t = r_t + discount V(s_{t+1}) - V(s_t) (Schulman et al. 2016, section 3)
    delta = torch.where(mask, reward.double() + discount * following - values, 0.0)
    # Equation 16: A_t = sum_l (discount lambda)^l delta_{t+l}
    return discounted_sums(delta, discount * gae_lambda) * mask


def moments(advantage: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of advantages over the steps of each task.

    Args:
        advantage: (B, E, T).
        mask: whether each step took place, (B, E, T) bool.

    Returns:
        Mean and standard deviation, (B, 1, 1) each.
    """
    count = mask.sum((1, 2), keepdim=True).clamp(min=1)
    mean = (advantage * mask).sum((1, 2), keepdim=True) / count
    variance = ((advantage - mean) * mask).square().sum((1, 2), keepdim=True) / count
    return mean, variance.sqrt()


def tells_apart(reward: Tensor, mask: Tensor) -> Tensor:
    """Return whether the rewards of each task tell its episodes apart, (B,) bool: whether these
    differ in a reward, or in their lengths. A single episode is told from others by rewards that
    are not all equal.

    Args:
        reward: (B, E, T), 0 where masked.
        mask: whether each step took place, (B, E, T) bool; nowhere in episodes that do not count.
    """
    kept = mask.any(-1)  # (B, E)
    first = kept.int().argmax(1)[:, None, None].expand(-1, 1, mask.shape[-1])
    of_first, taken = reward.gather(1, first), mask.gather(1, first)  # (B, 1, T)
    differs = ((reward != of_first) | (mask != taken)) & kept[..., None]
    varies = (reward != of_first[..., :1]) & mask
    return torch.where(kept.sum(1) > 1, differs.any(-1).any(-1), varies.any(-1).any(-1))


def explained_variance(returns: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - Var(returns - values) / Var(returns) over the steps of each task, (B,).

    The result is 0 for tasks whose returns do not vary.

    Args:
        returns: (B, E, T).
        values: (B, E, T).
        mask: whether each step took place, (B, E, T) bool.
    """

    def variance(x: Tensor) -> Tensor:
        count = mask.sum((1, 2)).clamp(min=1)
        mean = (x * mask).sum((1, 2)) / count
        return (((x - mean[:, None, None]) * mask) ** 2).sum((1, 2)) / count

    count = mask.sum((1, 2)).clamp(min=1)
    square = (returns * mask).square().sum((1, 2)) / count
    return explained_share(variance(returns - values), variance(returns), square)


def explained_share(unexplained: Tensor, total: Tensor, square: Tensor) -> Tensor:
    """Return 1 - unexplained / total, or 0 where values do not vary but for rounding errors.

    Args:
        unexplained: variance that is left.
        total: variance of the values.
        square: mean square of the values.
    """
    varies = total > 1e-12 * square  # their standard deviation, over a millionth of their size
    return torch.where(varies, 1 - unexplained / torch.where(varies, total, 1.0), 0.0)
