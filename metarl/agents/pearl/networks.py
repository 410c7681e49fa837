"""The networks of PEARL: policy, twin critics and context encoder, as functions of parameters.

n is the number of rows, O the size of an observation, A that of an action, Z that of the latent
variable. Parameters are a dict of tensors; weights are (in, out), biases (out,).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from metarl.agents.pearl.posterior import Factors
from metarl.core.layers import dense, glorot
from metarl.core.params import Params
from metarl.core.schema import LayerSize, Section

MIN_LOG_STD, MAX_LOG_STD = -20.0, 2.0  # Haarnoja et al. 2018, in the authors' code
CRITICS = ("critic1", "critic2")
VARIANCE = 0.01
"""Variance of a factor where a metric trains the encoder. The posterior is then almost the mean of
the embeddings of the transitions, as in FOCAL, where it is this mean."""
SMALL = 3e-3  # bound of the initial weights of last layers, as in the code of PEARL


class NetworkConfig(Section):
    """The networks: policy, critics and context encoder, all MLPs with relu."""

    hidden: tuple[LayerSize, ...] = (300, 300, 300)
    """Sizes of the hidden layers of the policy and of each critic."""
    encoder_hidden: tuple[LayerSize, ...] = (200, 200, 200)
    """Sizes of the hidden layers of the context encoder."""
    latent_dim: Annotated[int, Field(ge=1, le=256)] = 5
    """Size of the latent variable, which stands for the task."""
    next_obs_in_context: bool = False
    """Whether the encoder sees the next observation of a transition, too: for tasks that differ in
    their dynamics."""


@dataclass(frozen=True)
class Networks:
    """The networks as functions of their parameters.

    Attributes:
        config: the settings.
        obs_dim: O.
        action_dim: A.
        fixed_variance: whether the factors of the encoder have the variance `VARIANCE` and means
            within +-1; otherwise the encoder has both as outputs.
    """

    config: NetworkConfig
    obs_dim: int
    action_dim: int
    fixed_variance: bool = False

    @property
    def context_dim(self) -> int:
        """Size of a transition as the encoder sees it."""
        return self.obs_dim * (2 if self.config.next_obs_in_context else 1) + self.action_dim + 1

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Inputs, hidden layers and outputs of each network by its name."""
        hidden, latent = self.config.hidden, self.config.latent_dim
        known = self.obs_dim + latent
        embedding = latent if self.fixed_variance else 2 * latent
        critics = (known + self.action_dim, *hidden, 1)
        return {
            **dict.fromkeys(CRITICS, critics),
            "encoder": (self.context_dim, *self.config.encoder_hidden, embedding),
            "policy": (known, *hidden, 2 * self.action_dim),
        }

    def num_weights(self, name: str) -> int:
        """Return the number of weights of a network, without biases."""
        return sum(n * m for n, m in pairwise(self.sizes[name]))

    def init(self, rng: np.random.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw the initial parameters of all networks."""
        params: Params = {}
        for name, sizes in self.sizes.items():
            for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
                last = layer == len(sizes) - 2 and name != "encoder"
                weight = (
                    rng.uniform(-SMALL, SMALL, (fan_in, fan_out))
                    if last
                    else glorot(rng, fan_in, fan_out)
                )
                params[f"{name}.weight{layer}"] = torch.from_numpy(weight).to(dtype)
                params[f"{name}.bias{layer}"] = torch.zeros(fan_out, dtype=dtype)
        return params

    def policy(self, params: Params, obs: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of the actions before tanh, (n, A) each.

        Args:
            params: the parameters.
            obs: (n, O).
            z: (n, Z).
        """
        outputs = mlp(params, "policy", torch.cat([obs, z], -1), len(self.config.hidden))
        mean, log_std = outputs.chunk(2, -1)
        return mean, log_std.clamp(MIN_LOG_STD, MAX_LOG_STD)

    def critics(self, params: Params, obs: Tensor, action: Tensor, z: Tensor) -> Tensor:
        """Return the two action values, (2, n).

        Args:
            params: the parameters.
            obs: (n, O).
            action: within +-1, (n, A).
            z: (n, Z).
        """
        inputs, depth = torch.cat([obs, action, z], -1), len(self.config.hidden)
        return torch.stack([mlp(params, name, inputs, depth)[:, 0] for name in CRITICS])

    def factors(self, params: Params, context: Tensor) -> Factors:
        """Return the Gaussian factor of each transition over the latent variable.

        Args:
            params: the parameters.
            context: (..., context_dim).
        """
        rows = context.flatten(0, -2)
        outputs = mlp(params, "encoder", rows, len(self.config.encoder_hidden))
        outputs = outputs.unflatten(0, context.shape[:-1])
        if self.fixed_variance:
            return Factors(torch.tanh(outputs), torch.full_like(outputs, VARIANCE))
        mean, scale = outputs.chunk(2, -1)
        return Factors(mean, F.softplus(scale))


def mlp(params: Params, name: str, x: Tensor, depth: int) -> Tensor:
    """Return the outputs, (n, out), of an MLP of `depth` hidden layers at inputs (n, in)."""
    for layer in range(depth + 1):
        weight, bias = params[f"{name}.weight{layer}"], params[f"{name}.bias{layer}"]
        x = dense(x, weight, bias, relu=layer < depth)
    return x


def select(params: Params, *networks: str) -> Params:
    """Return the parameters of some networks."""
    return {name: value for name, value in params.items() if name.partition(".")[0] in networks}
