"""Action distributions of B tasks at N observations each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


class Distribution(Protocol):
    """Action distributions of B tasks at N observations each."""

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors that parameterise the distributions."""
        ...

    def detach(self) -> Distribution:
        """Return the same distributions, detached from the autograd graph."""
        ...

    def at(self, indices: Tensor) -> Distribution:
        """Return the distributions at the observations at `indices`, (n,)."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log density or log probability, (B, N), of actions (B, N, action_dim)."""
        ...

    def kl(self, other: Self) -> Tensor:
        """Return KL(self || other) in nats, (B, N)."""
        ...

    def entropy(self) -> Tensor:
        """Return the entropy in nats, (B, N), or (B, 1) if no observation influences it."""
        ...

    def fisher_root(self, noise: Tensor) -> Tensor:
        """Return directions whose covariance is the Fisher matrix of the mean or the logits.

        Args:
            noise: with the identity as covariance, such as standard normal, (B, N, A).

        Returns:
            (B, N, A).
        """
        ...

    def fisher_vector_product(
        self, directions: tuple[Tensor, ...], weight: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the product of the Fisher matrix of the outputs and a vector.

        The matrix is the weighted sum, over the observations, of the Fisher matrices with respect
        to `outputs`.

        Args:
            directions: the vector, tensors shaped like `outputs`.
            weight: weight of each observation, (B, N).

        Returns:
            Tensors shaped like `outputs`.
        """
        ...


def probability_ratio(log_prob: Tensor, old_log_prob: Tensor, weight: Tensor) -> Tensor:
    """Return the probability of each action divided by its probability under an old policy.

    At steps that did not take place it is 1. There the ratio is that of an action which was never
    chosen: it may become infinite, and an infinite number times a weight of 0 is not a number.

    Args:
        log_prob, old_log_prob: log probabilities of the actions, of one shape.
        weight: weight of each step, of that shape; 0 at steps that did not take place.
    """
    return torch.where(weight > 0, log_prob - old_log_prob, 0.0).exp()


@dataclass(frozen=True)
class Normal:
    """Diagonal Gaussians: mean (B, N, A) and log standard deviation (B, 1, A)."""

    mean: Tensor
    log_std: Tensor

    @property
    def outputs(self) -> tuple[Tensor, Tensor]:
        return self.mean, self.log_std

    def detach(self) -> Normal:
        return Normal(self.mean.detach(), self.log_std.detach())

    def at(self, indices: Tensor) -> Normal:
        return Normal(self.mean[:, indices], self.log_std)

    def log_prob(self, action: Tensor) -> Tensor:
        score = (action - self.mean) * torch.exp(-self.log_std)
        log_scale = self.log_std + 0.5 * LOG_2PI
        return -0.5 * score.square().sum(-1) - log_scale.sum(-1)

    def kl(self, other: Normal) -> Tensor:
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        shift = ((self.mean - other.mean) * torch.exp(-other.log_std)).square()
        return (other.log_std - self.log_std + 0.5 * (ratio + shift - 1)).sum(-1)

    def entropy(self) -> Tensor:
        return (self.log_std + 0.5 * (LOG_2PI + 1)).sum(-1)

    def fisher_root(self, noise: Tensor) -> Tensor:
        return noise * torch.exp(-self.log_std)

    def fisher_vector_product(
        self, directions: tuple[Tensor, ...], weight: Tensor
    ) -> tuple[Tensor, ...]:
        # Fisher matrix of a Gaussian: diag(1 / std^2) for the mean, 2 I for the log std
        mean, log_std = directions
        by_mean = mean * torch.exp(-2 * self.log_std) * weight[..., None]
        by_log_std = 2 * log_std * weight[..., None].sum(1, keepdim=True)
        return by_mean, by_log_std


@dataclass(frozen=True)
class Categorical:
    """Categorical distributions over A actions: logits (B, N, A). Actions are indices (B, N, 1)."""

    logits: Tensor

    @property
    def outputs(self) -> tuple[Tensor]:
        return (self.logits,)

    def detach(self) -> Categorical:
        return Categorical(self.logits.detach())

    def at(self, indices: Tensor) -> Categorical:
        return Categorical(self.logits[:, indices])

    def log_prob(self, action: Tensor) -> Tensor:
        return self.logits.log_softmax(-1).gather(-1, action.long())[..., 0]

    def kl(self, other: Categorical) -> Tensor:
        own, others = self.logits.log_softmax(-1), other.logits.log_softmax(-1)
        return (own.exp() * (own - others)).sum(-1)

    def entropy(self) -> Tensor:
        log_prob = self.logits.log_softmax(-1)
        return -(log_prob.exp() * log_prob).sum(-1)

    def fisher_root(self, noise: Tensor) -> Tensor:
        # With q = sqrt(p): (diag(q) - p q^T) (diag(q) - q p^T) = diag(p) - p p^T
        prob = self.logits.softmax(-1)
        root = prob.sqrt()
        return root * noise - prob * (root * noise).sum(-1, keepdim=True)

    def fisher_vector_product(
        self, directions: tuple[Tensor, ...], weight: Tensor
    ) -> tuple[Tensor, ...]:
        # Fisher matrix of a categorical distribution: diag(p) - p p^T
        (direction,) = directions
        prob = self.logits.softmax(-1)
        centred = direction - (prob * direction).sum(-1, keepdim=True)
        return (prob * centred * weight[..., None],)
