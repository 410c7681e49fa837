"""Policies as pure functions of stacked parameters: one set of parameters per task.

A policy's parameters are a dict of tensors. A *stack* of them has a leading axis B, one entry per
task, and acts on observations (B, N, obs_dim).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metarl.checks import check

Params: TypeAlias = dict[str, Tensor]

LOG_2PI = math.log(2 * math.pi)
FEW_COLUMNS = 16


def leaves(params: Params) -> Params:
    """Return the same parameters as leaves of new graphs, to differentiate with respect to."""
    return {name: value.detach().requires_grad_() for name, value in params.items()}


@dataclass(frozen=True)
class PolicyConfig:
    """The policy: a Gaussian whose mean is an MLP and whose std does not depend on the state."""

    hidden: tuple[int, ...] = (64, 64)
    """Sizes of the hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Nonlinearity of the hidden layers."""
    init_std: float = 1.0
    """Standard deviation at initialisation."""
    min_std: float = 1e-6
    """The standard deviation is never below this. A parameter below the bound has no gradient
    through it, so the bound is far from anything a run should reach."""
    max_std: float = 20.0
    """The standard deviation is never above this; as with `min_std` there is no gradient beyond."""

    def __post_init__(self) -> None:
        check(all(size >= 1 for size in self.hidden), "hidden", "sizes of at least 1", self.hidden)
        check(self.min_std > 0, "min_std", "more than 0", self.min_std)
        check(self.max_std > self.min_std, "max_std", "more than min_std", self.max_std)
        inside = self.min_std <= self.init_std <= self.max_std
        check(inside, "init_std", "between min_std and max_std", self.init_std)


@dataclass(frozen=True)
class Normal:
    """Diagonal Gaussians: mean (B, N, A) and log standard deviation (B, 1, A)."""

    mean: Tensor
    log_std: Tensor

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density of actions (B, N, A), summed over action dimensions: (B, N)."""
        score = (action - self.mean) * torch.exp(-self.log_std)
        log_scale = self.log_std + 0.5 * LOG_2PI
        return -0.5 * score.square().sum(-1) - log_scale.sum(-1)

    def kl(self, other: Normal) -> Tensor:
        """KL(self || other), summed over action dimensions: (B, N)."""
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        shift = ((self.mean - other.mean) * torch.exp(-other.log_std)).square()
        return (other.log_std - self.log_std + 0.5 * (ratio + shift - 1)).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy: (B, 1)."""
        return (self.log_std + 0.5 * (LOG_2PI + 1)).sum(-1)

    def fisher_product(self, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply a direction (mean, log_std) with the Fisher matrix in these coordinates.

        The Fisher matrix of a Gaussian is diag(1 / std^2) for the mean and 2 for the log std.
        Returns the products before the sum over N: (B, N, A) each.
        """
        return mean * torch.exp(-2 * self.log_std), (2 * log_std).expand_as(mean)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x @ weight + bias of stacks: (B, N, in), (B, in, out) and (B, 1, out)."""
    out = weight.shape[-1]
    if x.device.type == "cpu" and out < FEW_COLUMNS:
        # The CPU's library takes five times longer for 6 columns than for 16.
        padding = (0, FEW_COLUMNS - out)
        wide = torch.baddbmm(F.pad(bias, padding), x, F.pad(weight, padding))
        return wide[..., :out]
    return torch.baddbmm(bias, x, weight)


class GaussianMLP:
    """A Gaussian policy over stacks of parameters: `weight0`, `bias0`, ..., `log_std`."""

    def __init__(self, config: PolicyConfig, obs_dim: int, action_dim: int) -> None:
        self.config = config
        self.sizes = (obs_dim, *config.hidden, action_dim)
        self.action_dim = action_dim

    @property
    def num_layers(self) -> int:
        return len(self.sizes) - 1

    def init(self, rng: np.random.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw initial parameters, unstacked: Glorot-uniform weights, biases 0."""
        params: Params = {}
        for layer, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            bound = math.sqrt(6 / (fan_in + fan_out))
            weight = rng.uniform(-bound, bound, (fan_in, fan_out))
            params[f"weight{layer}"] = torch.from_numpy(weight).to(dtype)
            params[f"bias{layer}"] = torch.zeros(1, fan_out, dtype=dtype)
        log_std = math.log(self.config.init_std)
        params["log_std"] = torch.full((1, self.action_dim), log_std, dtype=dtype)
        return params

    def __call__(self, params: Params, obs: Tensor) -> Normal:
        """Return the action distributions of stacked `params` at `obs`, (B, N, obs_dim)."""
        activation = torch.tanh if self.config.activation == "tanh" else torch.relu
        hidden = obs
        for layer in range(self.num_layers):
            if layer:
                hidden = activation(hidden)
            hidden = linear(hidden, params[f"weight{layer}"], params[f"bias{layer}"])
        low, high = math.log(self.config.min_std), math.log(self.config.max_std)
        return Normal(hidden, params["log_std"].clamp(low, high))

    def actor(self, params: Params) -> GaussianActor:
        """Return what acts by stacked `params` during rollouts."""
        return GaussianActor(self, params)


class GaussianActor:
    """Acts by a stack of parameters in NumPy, float32: faster than torch at these sizes."""

    def __init__(self, policy: GaussianMLP, params: Params) -> None:
        arrays = {name: value.detach().cpu().float().numpy() for name, value in params.items()}
        layers = range(policy.num_layers)
        self._layers = [(arrays[f"weight{layer}"], arrays[f"bias{layer}"]) for layer in layers]
        self._relu = policy.config.activation == "relu"
        low, high = math.log(policy.config.min_std), math.log(policy.config.max_std)
        self._std = np.exp(np.clip(arrays["log_std"], low, high))  # (B, 1, A)
        self._action_dim = policy.action_dim

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        """Draw the noise of one episode, (T, action_dim) float32."""
        return rng.standard_normal((horizon, self._action_dim), dtype=np.float32)

    def act(self, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Choose actions, (B, E, action_dim) float32, at obs (B, E, obs_dim) float32."""
        hidden = obs
        for layer, (weight, bias) in enumerate(self._layers):
            if layer:
                np.maximum(hidden, 0, out=hidden) if self._relu else np.tanh(hidden, out=hidden)
            hidden = hidden @ weight
            hidden += bias
        return hidden + self._std * noise
