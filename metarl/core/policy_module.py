"""Policies of one task as ordinary torch modules, which act without the rest of the framework.

n is the number of episodes that are played at a time, A the size of an action, S that of the state.
All tensors are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class PolicyStep(NamedTuple):
    """One step of a policy in n episodes.

    Attributes:
        action: the actions, (n, A).
        outputs: the parameters of the distribution to which noise is added: the means, before
            the bounds that a policy applies after the noise, (n, A), or the logits of discrete
            actions, (n, number of actions).
        std: its standard deviations, (n, A); None for discrete actions.
        state: the state for the next step, (n, S); None for a policy without one.
    """

    action: Tensor
    outputs: Tensor
    std: Tensor | None = None
    state: Tensor | None = None


class PolicyModule(nn.Module):
    """A policy of one task. `forward(obs, noise, reward, state)` returns a `PolicyStep`.

    `obs` is (n, obs_dim). `noise`, (n, noise_size), draws the actions: standard normal, or Gumbel
    for discrete actions; None takes the best actions. `state`, (n, S), is that of the step before;
    None or zeros begin episodes. `reward`, (n,), is that of the step before, and without influence
    where an episode begins.

    Attributes:
        obs_dim: size of an observation.
        noise_size: random numbers of a step.
        discrete: whether actions are indices, (n, 1).
        state_size: S; 0 for a policy that keeps nothing within an episode.
        uses_reward: whether the reward of the last step has to be given.
    """

    state_size = 0
    uses_reward = False

    def __init__(self, obs_dim: int, noise_size: int, *, discrete: bool) -> None:
        super().__init__()
        self.obs_dim, self.noise_size, self.discrete = obs_dim, noise_size, discrete

    def constant(self, name: str, value: np.ndarray) -> None:
        """Add an array to the module as a buffer, float32."""
        add_constant(self, name, value)


class GaussianModule(PolicyModule):
    """Continuous actions: the outputs of a network as means, and constant standard deviations."""

    std: Tensor

    def __init__(self, network: nn.Module, obs_dim: int, std: np.ndarray) -> None:
        """Set up with standard deviations (A,)."""
        super().__init__(obs_dim, len(std), discrete=False)
        self.network = network
        self.constant("std", std)

    def forward(
        self,
        obs: Tensor,
        noise: Tensor | None = None,
        reward: Tensor | None = None,
        state: Tensor | None = None,
    ) -> PolicyStep:
        mean = self.network(obs)
        std = self.std.expand_as(mean)
        return PolicyStep(mean if noise is None else mean + std * noise, mean, std)


class CategoricalModule(PolicyModule):
    """Discrete actions: the outputs of a network as logits; argmax(logits + Gumbel noise)."""

    def __init__(self, network: nn.Module, obs_dim: int, num_actions: int) -> None:
        super().__init__(obs_dim, num_actions, discrete=True)
        self.network = network

    def forward(
        self,
        obs: Tensor,
        noise: Tensor | None = None,
        reward: Tensor | None = None,
        state: Tensor | None = None,
    ) -> PolicyStep:
        logits = self.network(obs)
        scores = logits if noise is None else logits + noise
        return PolicyStep(scores.argmax(-1, keepdim=True).float(), logits)


class NormalizedModule(PolicyModule):
    """A policy that gets normalised observations."""

    def __init__(self, policy: PolicyModule, normalize: Normalize) -> None:
        super().__init__(policy.obs_dim, policy.noise_size, discrete=policy.discrete)
        self.state_size, self.uses_reward = policy.state_size, policy.uses_reward
        self.normalize, self.policy = normalize, policy

    def forward(
        self,
        obs: Tensor,
        noise: Tensor | None = None,
        reward: Tensor | None = None,
        state: Tensor | None = None,
    ) -> PolicyStep:
        return self.policy(self.normalize(obs), noise, reward, state)


class Normalize(nn.Module):
    """(x - mean) / std, within a distance from `middle` if there is a limit."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        mean: np.ndarray,
        std: np.ndarray,
        limit: float = float("inf"),
        middle: np.ndarray | float = 0.0,
    ) -> None:
        super().__init__()
        self.limit = limit
        bounds = {"low": middle - limit, "high": middle + limit}
        for name, value in {"mean": mean, "std": std, **bounds}.items():
            add_constant(self, name, np.broadcast_to(value, np.shape(mean)))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        return x if self.limit == float("inf") else x.clamp(self.low, self.high)


def add_constant(module: nn.Module, name: str, value: np.ndarray) -> None:
    """Add an array to a module as a buffer, float32."""
    module.register_buffer(name, torch.tensor(value, dtype=torch.float32))


def linear_module(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """Return a linear layer with these parameters, weight (in, out) and bias (out,)."""
    layer = nn.Linear(*weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight.T))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def mlp_module(layers: Sequence[tuple[np.ndarray, np.ndarray]], *, relu: bool) -> nn.Sequential:
    """Return an MLP with these layers: weight (in, out) and bias (out,) of each.

    Args:
        layers: the layers.
        relu: whether the nonlinearity is relu; tanh otherwise.
    """
    modules: list[nn.Module] = []
    for weight, bias in layers:
        if modules:
            modules.append(nn.ReLU() if relu else nn.Tanh())
        modules.append(linear_module(weight, bias))
    return nn.Sequential(*modules)
