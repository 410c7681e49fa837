"""Returns, the linear-feature baseline, and generalised advantage estimation.

All functions take stacks of tasks and work in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

OBS_LIMIT = 10.0  # observations are clipped to this before they become features


def discounted_sums(values: Tensor, factor: float) -> Tensor:
    """Return the sums over s >= t of factor^(s - t) * values_s for every t. Shapes (..., T)."""
    steps = torch.arange(values.shape[-1], device=values.device)
    power = steps[:, None] - steps[None, :]  # [s, t] -> s - t
    weight = torch.where(power >= 0, factor ** power.clamp(min=0).to(values.dtype), 0.0)
    return values @ weight


def discounted_prefixes(values: Tensor, factor: float) -> Tensor:
    """Return the sums over s <= t of factor^(t - s) * values_s for every t. Shapes (..., T)."""
    return discounted_sums(values.flip(-1), factor).flip(-1)


def linear_features(obs: Tensor, time: Tensor) -> Tensor:
    """Features of the linear baseline: obs, obs^2, t, t^2, t^3, 1 (Duan et al. 2016, section 5).

    Bounded: observations are clipped and time is counted in horizons, so no polynomial can blow up.

    Args:
        obs: (..., obs_dim).
        time: the share of the horizon that has passed, (...).

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
    """Fit a linear value function to each task's own episodes, and evaluate it on them.

    The weights w minimise the squared error of w . f(s_t) against the discounted return from t on.
    Where a time limit cut an endless task short at length n, the return goes on with the value of
    the last state, so that w . (f(s_t) - discount^(n - t) f(s_n)) is fitted to the rewards seen:
    still one linear least-squares problem. Such a task's values do not depend on time, so its time
    features are 0: discount^-t would solve that problem too, whatever the rewards. Solved by normal
    equations in float64 with a ridge.

    Args:
        obs: (B, E, T, obs_dim); last_obs: (B, E, obs_dim); reward, mask: (B, E, T).
        bootstrap: (B, E), whether the value of `last_obs` counts.
        discount: per step.
        ridge: added to the diagonal of the mean outer product of the features.

    Returns:
        Values at the steps, (B, E, T), 0 where masked, and of the last states, (B, E), 0 where
        they do not count.
    """
    horizon = obs.shape[2]
    steps = torch.arange(horizon, device=obs.device)
    length = mask.sum(-1)  # (B, E)
    valid = mask[..., None].double()
    timed = ~bootstrap.any(1)[:, None]  # (B, 1)
    time = (steps / horizon * timed)[:, None].expand(mask.shape)
    features = linear_features(obs, time) * valid  # (B, E, T, F)
    # (B, E, F); used only where the value of the last state counts, and there time is 0
    last_features = linear_features(last_obs, torch.zeros_like(length)) * bootstrap[..., None]
    target = discounted_sums(reward.double() * mask, discount)  # (B, E, T)

    # discount^(n - t) f(s_n), 0 where nothing follows the last state
    remaining = (length[..., None] - steps).clamp(min=0).double()  # (B, E, T)
    tail = (discount**remaining)[..., None] * last_features[:, :, None]
    regressor = features - tail * valid
    # Normal equations over a task's steps: (B, E * T, F) -> (B, F, F)
    design = regressor.flatten(1, 2)
    count = length.sum(-1).clamp(min=1).double()[:, None, None]
    gram = design.transpose(1, 2) @ design / count
    gram = gram + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    moment = design.transpose(1, 2) @ (target * mask).flatten(1)[..., None] / count
    weights = torch.linalg.solve(gram, moment)[:, None]  # (B, 1, F, 1)
    return (features @ weights)[..., 0], (last_features[:, :, None] @ weights)[:, :, 0, 0]


def is_last(mask: Tensor) -> Tensor:
    """Return where the last step of each episode is, (..., T) bool."""
    return mask & ~torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], -1)


def advantages(
    reward: Tensor,
    mask: Tensor,
    values: Tensor,
    last_values: Tensor,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimates, (B, E, T) (Schulman et al. 2016, equation 16).

    Nothing follows a terminal state or the end of a finite-horizon task: there `last_values` is 0.
    After a truncation it is the value of the last state.

    Args:
        reward, mask, values: (B, E, T), 0 where masked.
        last_values: (B, E).
        discount, gae_lambda: per step.
    """
    following = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], -1)
    following = torch.where(is_last(mask), last_values[..., None], following)
    # delta_t = r_t + discount V(s_{t+1}) - V(s_t)
    delta = torch.where(mask, reward.double() + discount * following - values, 0.0)
    return discounted_sums(delta, discount * gae_lambda) * mask


def moments(advantage: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each task's advantages over its steps, (B, 1, 1) each.

    Shapes (B, E, T).
    """
    count = mask.sum((1, 2), keepdim=True).clamp(min=1)
    mean = (advantage * mask).sum((1, 2), keepdim=True) / count
    variance = ((advantage - mean) * mask).square().sum((1, 2), keepdim=True) / count
    return mean, variance.sqrt()


def explained_variance(returns: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - Var(returns - values) / Var(returns) over each task's steps: (B,).

    Shapes (B, E, T). 0 where the returns do not vary.
    """

    def variance(x: Tensor) -> Tensor:
        count = mask.sum((1, 2)).clamp(min=1)
        mean = (x * mask).sum((1, 2)) / count
        return (((x - mean[:, None, None]) * mask) ** 2).sum((1, 2)) / count

    total = variance(returns)
    return torch.where(total > 0, 1 - variance(returns - values) / total.clamp(min=1e-12), 0.0)
