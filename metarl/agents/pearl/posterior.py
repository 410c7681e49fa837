"""The posterior over the latent variable: a product of Gaussian factors, one for each transition of
the context (Rakelly et al. 2019, section 4.1).

The order of the factors does not matter, and further transitions multiply the product so far. Z is
the size of the latent variable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MIN_VARIANCE = 1e-7  # of a factor, as in the code of PEARL


class Factors(NamedTuple):
    """Gaussian factors, or Gaussians.

    Attributes:
        mean: (..., Z).
        variance: (..., Z).
    """

    mean: Tensor
    variance: Tensor


def natural_parameters(factors: Factors) -> Tensor:
    """Return precision and precision times mean of factors (..., Z), (2, ..., Z). Those of a
    product are the sums over its factors."""
    precision = 1 / factors.variance.clamp(min=MIN_VARIANCE)
    return torch.stack([precision, precision * factors.mean])


def product(factors: Factors) -> Factors:
    """Return the product of N factors, (..., N, Z), as Gaussians, (..., Z). As in the code of
    PEARL, the prior is no factor of it."""
    precision, weighted = natural_parameters(factors).sum(-2)
    return Factors(weighted / precision, 1 / precision)


def kl_to_prior(posterior: Factors) -> Tensor:
    """Return KL(posterior || N(0, I)) in nats, (...), of Gaussians (..., Z)."""
    mean, variance = posterior
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(-1)


def sample(posterior: Factors, noise: Tensor) -> Tensor:
    """Return the draws, (..., Z), that standard normal noise, (..., Z), makes."""
    return posterior.mean + posterior.variance.sqrt() * noise
