"""Surrogate losses: one function each, of the policy's distributions at some experience.

All return one number per task, (B,), to be minimised. Wherever the policy is the one that acted,
all of them have the policy gradient as their first derivative (`dice` with the discount counted
from the start of an episode). They differ in the second: in what the meta-gradient credits to the
policy before adaptation. docs/estimators.md measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from metarl.agents.maml.batch import Experience
from metarl.core.distributions import Distribution
from metarl.core.params import Params
from metarl.core.policies import MLPPolicy
from metarl.core.returns import discounted_prefixes

Surrogate: TypeAlias = Callable[[Distribution, Experience], Tensor]

EPISODIC = ("dice", "loaded_dice")
"""Surrogates that need whole episodes: every step counts with the probability of all before it."""


def likelihood_ratio(policy: Distribution, experience: Experience) -> Tensor:
    """-E[pi / pi_old * A]: the importance-weighted surrogate (Schulman et al. 2015, equation 14).

    Differentiated twice at pi = pi_old it gives the low-variance curvature estimate of Rothfuss et
    al. 2019 (ProMP, equation 6): the pre-adaptation policy is credited for the data it gathers.
    """
    ratio = torch.exp(policy.log_prob(experience.action) - experience.log_prob)
    return -(ratio * experience.advantage * experience.weight).sum(1)


def clipped_ratio(clip: float) -> Surrogate:
    """-E[min(r A, clip(r) A)] with r = pi / pi_old (PPO, Schulman et al. 2017, equation 7)."""

    def surrogate(policy: Distribution, experience: Experience) -> Tensor:
        ratio = torch.exp(policy.log_prob(experience.action) - experience.log_prob)
        free = ratio * experience.advantage
        clipped = ratio.clamp(1 - clip, 1 + clip) * experience.advantage
        return -(torch.minimum(free, clipped) * experience.weight).sum(1)

    return surrogate


def log_likelihood(policy: Distribution, experience: Experience) -> Tensor:
    """-E[log pi * A]: the surrogate of the first implementations (Finn et al. 2017, equation 4).

    Its gradient is the policy gradient, but its second derivative lacks the term with the outer
    product of scores, and so the credit for the data that the pre-adaptation policy gathers.
    """
    log_prob = policy.log_prob(experience.action)
    return -(log_prob * experience.advantage * experience.weight).sum(1)


def magic_box(log_prob: Tensor) -> Tensor:
    """1, with the derivatives of exp(log_prob) (Foerster et al. 2018)."""
    return torch.exp(log_prob - log_prob.detach())


def dice(policy: Distribution, experience: Experience) -> Tensor:
    """DiCE with its baseline (Foerster et al. 2018).

    -E[box(sum of log pi up to t) r_t + (1 - box(log pi_t)) b_t]: unbiased in every derivative.
    """
    log_prob = experience.by_episode(policy.log_prob(experience.action))  # (B, E, T)
    so_far = magic_box(log_prob.cumsum(-1)).flatten(1)
    here = magic_box(log_prob).flatten(1)
    objective = so_far * experience.reward + (1 - here) * experience.value
    return -(objective * experience.weight).sum(1)


def loaded_dice(decay: float) -> Surrogate:
    """Loaded DiCE (Farquhar et al. 2019): DiCE on advantages, with less variance.

    -E[(box(w_t) - box(w_t - log pi_t)) A_t], w_t the sum of decay^(t - s) log pi_s over s <= t. A
    decay below 1 forgets what earlier actions did to later data: it trades bias for variance.
    """

    def surrogate(policy: Distribution, experience: Experience) -> Tensor:
        log_prob = experience.by_episode(policy.log_prob(experience.action))  # (B, E, T)
        with_step = discounted_prefixes(log_prob, decay)
        difference = magic_box(with_step) - magic_box(with_step - log_prob)
        return -(difference.flatten(1) * experience.advantage * experience.weight).sum(1)

    return surrogate


def exploration(policy: Distribution, experience: Experience, score: Tensor) -> Tensor:
    """-E[pi / pi_old] * score: E-MAML's term (Stadie et al. 2018).

    Makes the data more likely that led to a good policy after adaptation.

    Args:
        policy: before adaptation, at `experience`.
        experience: what it adapted from.
        score: how good the policy after adaptation was, (B,).
    """
    ratio = torch.exp(policy.log_prob(experience.action) - experience.log_prob)
    return -(ratio * experience.weight).sum(1) * score


def inner_surrogate(name: str, decay: float = 1.0) -> Surrogate:
    """Return an inner surrogate by the name that configs use."""
    surrogates: dict[str, Surrogate] = {
        "likelihood_ratio": likelihood_ratio,
        "log_likelihood": log_likelihood,
        "dice": dice,
        "loaded_dice": loaded_dice(decay),
    }
    return surrogates[name]


def loss_on(
    experience: Experience, policy: MLPPolicy, surrogate: Surrogate
) -> Callable[[Params], Tensor]:
    """Return a surrogate at some experience as a function of the policy's stacked parameters.

    It has the surrogate's derivatives, and the experience's loss for a value: what a rule is told.
    """

    def loss(params: Params) -> Tensor:
        value = surrogate(policy(params, experience.obs), experience)
        return value + (experience.loss - value).detach()

    return loss


def mean_kl(old: Distribution, new: Distribution, weight: Tensor) -> Tensor:
    """KL(old || new) averaged over each task's steps: (B,)."""
    return (old.kl(new) * weight).sum(1)
