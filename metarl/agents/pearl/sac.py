"""The losses of soft actor-critic (SAC, Haarnoja et al. 2018b) with a latent task variable.

This is SAC without a value network, as it is usual today: the target of both critics takes the
smaller of two target critics. (PEARL's code still had a value network.) Episodes that a time limit
ends are continued by the value of their last observation; terminal states are not. M is the number
of tasks, b the number of transitions of each, A the size of an action.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metarl.agents.pearl.networks import Networks
from metarl.core.distributions import LOG_2PI
from metarl.core.params import Params


@dataclass(frozen=True)
class Transitions:
    """b transitions of each of M tasks.

    Attributes:
        obs: (M, b, O).
        action: within +-1, (M, b, A).
        reward: (M, b).
        next_obs: (M, b, O).
        continues: 0 where the next observation is of a terminal state, else 1, (M, b).
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    continues: Tensor

    @classmethod
    def from_rows(cls, rows: Tensor, obs_dim: int, action_dim: int) -> Transitions:
        """Return the transitions of the rows of a replay buffer, (M, b, row_dim)."""
        parts = rows.split([obs_dim, action_dim, 1, obs_dim, 1], -1)
        obs, action, reward, next_obs, continues = parts
        return cls(obs, action, reward[..., 0], next_obs, continues[..., 0])

    def tasks(self, start: int, stop: int) -> Transitions:
        """Return the transitions of the tasks `start`, ..., `stop` - 1."""
        return Transitions(**{name: value[start:stop] for name, value in vars(self).items()})


def sample_action(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return actions tanh(u), (n, A), of Gaussian u, and their log density, (n,).

    Args:
        mean, log_std: of u, (n, A).
        noise: standard normal, (n, A).
    """
    u = mean + log_std.exp() * noise
    log_normal = -(0.5 * noise.square() + log_std + 0.5 * LOG_2PI)
    # Haarnoja et al. 2018, equation 26, with log(1 - tanh(u)^2) where tanh(u) rounds to 1
    log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return torch.tanh(u), (log_normal - log_slope).sum(-1)


def by_row(z: Tensor, like: Tensor) -> Tensor:
    """Return latents of M tasks, (M, Z), for each of their transitions, (M * b, Z)."""
    return z[:, None].expand(-1, like.shape[1], -1).flatten(0, 1)


@dataclass(frozen=True)
class SAC:
    """The losses, as sums over transitions, so that microbatches of tasks can be added up.

    Attributes:
        networks: the networks.
        discount: discount factor per step.
        reward_scale: factor on rewards.
    """

    networks: Networks
    discount: float
    reward_scale: float

    @torch.no_grad()
    def target(
        self,
        params: Params,
        target_params: Params,
        batch: Transitions,
        z: Tensor,
        noise: Tensor,
        temperature: Tensor | float,
    ) -> Tensor:
        """Return the target of the critics, (M * b,) (Haarnoja et al. 2018b, equation 6).

        Args:
            params: parameters of the policy.
            target_params: parameters of the target critics.
            batch: the transitions.
            z: latents of the tasks, (M, Z).
            noise: standard normal, (M, b, A).
            temperature: weight of the entropy.
        """
        latent, obs = by_row(z, batch.obs), batch.next_obs.flatten(0, 1)
        action, log_prob = sample_action(
            *self.networks.policy(params, obs, latent), noise.flatten(0, 1)
        )
        value = self.networks.critics(target_params, obs, action, latent).amin(0)
        value = value - temperature * log_prob
        reward, continues = batch.reward.flatten(), batch.continues.flatten()
        return self.reward_scale * reward + self.discount * continues * value

    def critic_loss(
        self, params: Params, batch: Transitions, z: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the squared errors of both critics, summed, and the sum of their values (of the
        mean of the two). The gradient goes into `z`, (M, Z), too."""
        value = self.networks.critics(
            params, batch.obs.flatten(0, 1), batch.action.flatten(0, 1), by_row(z, batch.obs)
        )
        return (value - target).square().sum(), value.detach().mean(0).sum()

    def policy_loss(
        self,
        params: Params,
        critics: Params,
        batch: Transitions,
        z: Tensor,
        noise: Tensor,
        temperature: Tensor | float,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of the policy (Haarnoja et al. 2018b, equation 7), and the log densities
        of its actions, both summed.

        Args:
            params: parameters of the policy.
            critics: parameters of the critics.
            batch: the transitions, whose observations are used.
            z: latents of the tasks, detached, (M, Z).
            noise: standard normal, (M, b, A).
            temperature: weight of the entropy.
        """
        latent, obs = by_row(z, batch.obs), batch.obs.flatten(0, 1)
        action, log_prob = sample_action(
            *self.networks.policy(params, obs, latent), noise.flatten(0, 1)
        )
        value = self.networks.critics(critics, obs, action, latent).amin(0)
        return (temperature * log_prob - value).sum(), log_prob.detach().sum()
