"""Surrogate losses: functions of the policy's distributions on a training batch.

All return one number per task, (B,), to be minimised. Where the policy is the one that acted, the
first derivative of each is the policy gradient (of `dice` with the discount counted from the start
of an episode). Their second derivatives differ: in the credit that the meta-gradient gives to the
policy before adaptation. docs/estimators.md measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from metarl.agents.maml.batch import TrainingBatch
from metarl.core.distributions import Distribution
from metarl.core.params import Params
from metarl.core.policies import MLPPolicy
from metarl.core.returns import discounted_prefixes

Surrogate: TypeAlias = Callable[[Distribution, TrainingBatch], Tensor]

EPISODIC = ("dice", "loaded_dice")
"""Surrogates that need whole episodes: every step counts with the probability of all before it."""


def likelihood_ratio(policy: Distribution, batch: TrainingBatch) -> Tensor:
    """-E[pi / pi_old * A]: the importance-weighted surrogate (Schulman et al. 2015, equation 14).

    Differentiated twice at pi = pi_old it gives the low-variance curvature estimate of Rothfuss et
    al. 2019 (ProMP, equation 6): the pre-adaptation policy is credited for the data it gathers.
    """
    ratio = torch.exp(policy.log_prob(batch.action) - batch.log_prob)
    return -(ratio * batch.advantage * batch.weight).sum(1)


def clipped_ratio(clip: float) -> Surrogate:
    """-E[min(r A, clip(r) A)] with r = pi / pi_old (PPO, Schulman et al. 2017, equation 7)."""

    def surrogate(policy: Distribution, batch: TrainingBatch) -> Tensor:
        ratio = torch.exp(policy.log_prob(batch.action) - batch.log_prob)
        free = ratio * batch.advantage
        clipped = ratio.clamp(1 - clip, 1 + clip) * batch.advantage
        return -(torch.minimum(free, clipped) * batch.weight).sum(1)

    return surrogate


def log_likelihood(policy: Distribution, batch: TrainingBatch) -> Tensor:
    """-E[log pi * A]: the surrogate of the first implementations (Finn et al. 2017, equation 4).

    Its gradient is the policy gradient, but its second derivative lacks the term with the outer
    product of scores, and so the credit for the data that the pre-adaptation policy gathers.
    """
    log_prob = policy.log_prob(batch.action)
    return -(log_prob * batch.advantage * batch.weight).sum(1)


def magic_box(log_prob: Tensor) -> Tensor:
    """1, with the derivatives of exp(log_prob) (Foerster et al. 2018)."""
    return torch.exp(log_prob - log_prob.detach())


def dice(policy: Distribution, batch: TrainingBatch) -> Tensor:
    """DiCE with its baseline (Foerster et al. 2018).

    -E[box(sum of log pi up to t) r_t + (1 - box(log pi_t)) b_t]: unbiased in every derivative.
    """
    log_prob = batch.by_episode(policy.log_prob(batch.action))  # (B, E, T)
    so_far = magic_box(log_prob.cumsum(-1)).flatten(1)
    here = magic_box(log_prob).flatten(1)
    objective = so_far * batch.reward + (1 - here) * batch.value
    return -(objective * batch.weight).sum(1)


def loaded_dice(decay: float) -> Surrogate:
    """Loaded DiCE (Farquhar et al. 2019): DiCE on advantages, with less variance.

    -E[(box(w_t) - box(w_t - log pi_t)) A_t], w_t the sum of decay^(t - s) log pi_s over s <= t. A
    decay below 1 forgets what earlier actions did to later data: it trades bias for variance.
    """

    def surrogate(policy: Distribution, batch: TrainingBatch) -> Tensor:
        log_prob = batch.by_episode(policy.log_prob(batch.action))  # (B, E, T)
        with_step = discounted_prefixes(log_prob, decay)
        difference = magic_box(with_step) - magic_box(with_step - log_prob)
        return -(difference.flatten(1) * batch.advantage * batch.weight).sum(1)

    return surrogate


def emaml_term(policy: Distribution, batch: TrainingBatch, return_weight: Tensor) -> Tensor:
    """-E[pi / pi_old] * return_weight: the term of E-MAML (Stadie et al. 2018, section 3.1).

    Makes the data more likely that led to a good policy after adaptation.

    Args:
        policy: before adaptation, on `batch`.
        batch: the data that the policy adapted from.
        return_weight: standardised return after adaptation, (B,).
    """
    ratio = torch.exp(policy.log_prob(batch.action) - batch.log_prob)
    return -(ratio * batch.weight).sum(1) * return_weight


def inner_surrogate(name: str, decay: float = 1.0) -> Surrogate:
    """Return an inner surrogate by the name that configs use."""
    surrogates: dict[str, Surrogate] = {
        "likelihood_ratio": likelihood_ratio,
        "log_likelihood": log_likelihood,
        "dice": dice,
        "loaded_dice": loaded_dice(decay),
    }
    return surrogates[name]


def policy_loss(
    batch: TrainingBatch, policy: MLPPolicy, surrogate: Surrogate
) -> Callable[[Params], Tensor]:
    """Return a surrogate on a training batch as a function of the policy's stacked parameters."""

    def loss(params: Params) -> Tensor:
        return surrogate(policy(params, batch.obs), batch)

    return loss


def mean_kl(old: Distribution, new: Distribution, weight: Tensor) -> Tensor:
    """KL(old || new) averaged over each task's steps: (B,)."""
    return (old.kl(new) * weight).sum(1)
