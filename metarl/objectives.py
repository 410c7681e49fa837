"""Surrogate losses: one function each, of the policy's distributions at some experience.

All return one number per task, (B,), to be minimised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from metarl.experience import Experience
from metarl.policies import Normal

Surrogate: TypeAlias = Callable[[Normal, Experience], Tensor]


def likelihood_ratio(policy: Normal, experience: Experience) -> Tensor:
    """-E[pi / pi_old * A]: the importance-weighted surrogate (Schulman et al. 2015, equation 14).

    Differentiated twice at pi = pi_old it gives the low-variance curvature estimate of Rothfuss et
    al. 2019 (ProMP, equation 6): the pre-adaptation policy is credited for the data it gathers.
    """
    ratio = torch.exp(policy.log_prob(experience.action) - experience.log_prob)
    return -(ratio * experience.advantage * experience.weight).sum(1)


def log_likelihood(policy: Normal, experience: Experience) -> Tensor:
    """-E[log pi * A]: the surrogate of the first implementations (Finn et al. 2017, equation 4).

    Its gradient is the policy gradient, but its second derivative lacks the term with the outer
    product of scores, and so the credit for the data that the pre-adaptation policy gathers.
    """
    log_prob = policy.log_prob(experience.action)
    return -(log_prob * experience.advantage * experience.weight).sum(1)


INNER_SURROGATES: dict[str, Surrogate] = {
    "likelihood_ratio": likelihood_ratio,
    "log_likelihood": log_likelihood,
}


def mean_kl(old: Normal, new: Normal, weight: Tensor) -> Tensor:
    """KL(old || new) averaged over each task's steps: (B,)."""
    return (old.kl(new) * weight).sum(1)
