"""The policy of PEARL after adaptation to one task, as a torch module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metarl.agents.pearl.networks import MAX_LOG_STD, MIN_LOG_STD
from metarl.core.policy_module import PolicyModule, PolicyStep, mlp_module


class LatentModule(PolicyModule):
    """Draws a latent for each episode, and acts by it; without noise the latent is the mean of the
    posterior. The state, (n, 1 + Z), is whether the episode has begun, and its latent."""

    mean: Tensor
    std: Tensor
    centre: Tensor
    half_width: Tensor

    def __init__(
        self,
        layers: Sequence[tuple[np.ndarray, np.ndarray]],
        mean: np.ndarray,
        std: np.ndarray,
        centre: np.ndarray,
        half_width: np.ndarray,
    ) -> None:
        """Set up with the layers of the policy, as `LatentActor`; mean and standard deviation of
        the posterior, (Z,); and centre and half width of the action space, (A,)."""
        obs_dim = layers[0][0].shape[0] - len(mean)
        super().__init__(obs_dim, len(centre) + len(mean), discrete=False)
        self.state_size = 1 + len(mean)
        self.network = mlp_module(layers, relu=True)
        self.constant("mean", mean)
        self.constant("std", std)
        self.constant("centre", centre)
        self.constant("half_width", half_width)

    def forward(
        self,
        obs: Tensor,
        noise: Tensor | None = None,
        reward: Tensor | None = None,
        state: Tensor | None = None,
    ) -> PolicyStep:
        size = len(self.centre)
        z = self.mean.expand(obs.shape[0], -1)
        if noise is not None:
            z = z + self.std * noise[:, size:]
        if state is not None:
            z = torch.where(state[:, :1] > 0, state[:, 1:], z)
        mean, log_std = self.network(torch.cat([obs, z], -1)).split(size, -1)
        std = log_std.clamp(MIN_LOG_STD, MAX_LOG_STD).exp()
        u = mean if noise is None else mean + std * noise[:, :size]
        action = self.centre + self.half_width * torch.tanh(u)
        return PolicyStep(action, mean, std, torch.cat([torch.ones_like(z[:, :1]), z], -1))
