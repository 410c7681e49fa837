"""Surrogate losses: functions of the action distributions on a training batch.

All surrogates return one loss for each task, (B,), to be minimised. A is the advantage, pi the
action probability, and pi_old the action probability of the policy that collected the batch. At
pi = pi_old, the first derivative of every surrogate is the policy gradient (for `dice`, with the
discount factor counted from the first step of an episode). The second derivatives differ in the
credit that the meta-gradient assigns to the pre-adaptation policy; see docs/estimators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from metarl.agents.maml.batch import TrainingBatch
from metarl.core.distributions import Distribution, probability_ratio
from metarl.core.params import Params
from metarl.core.policies import MLPPolicy
from metarl.core.returns import discounted_prefixes

Surrogate: TypeAlias = Callable[[Distribution, TrainingBatch], Tensor]

EPISODIC = ("dice", "loaded_dice")
"""Surrogates that need whole episodes, since the term of a step has the probabilities of all
earlier actions of the episode."""


def ratio_to_old(policy: Distribution, batch: TrainingBatch) -> Tensor:
    """Return pi / pi_old of each step, (B, N); 1 at steps that did not take place."""
    return probability_ratio(policy.log_prob(batch.action), batch.log_prob, batch.weight)


def likelihood_ratio(policy: Distribution, batch: TrainingBatch) -> Tensor:
    """Return -E[pi / pi_old A], (B,): the importance-weighted surrogate (Schulman et al. 2015,
    equation 14, with advantages).

    Its second derivative at pi = pi_old is the low-variance curvature (LVC) estimate of ProMP
    (Rothfuss et al. 2019, section 5), which credits the pre-adaptation policy for the data that it
    collects.
    """
    return -(ratio_to_old(policy, batch) * batch.advantage * batch.weight).sum(1)


def clipped_ratio(clip: float) -> Surrogate:
    """Return the clipped surrogate -E[min(r A, clip(r, 1 - clip, 1 + clip) A)], r = pi / pi_old
    (PPO, Schulman et al. 2017, equation 7)."""

    def surrogate(policy: Distribution, batch: TrainingBatch) -> Tensor:
        ratio = ratio_to_old(policy, batch)  # r
        unclipped = ratio * batch.advantage
        clipped = ratio.clamp(1 - clip, 1 + clip) * batch.advantage
        return -(torch.minimum(unclipped, clipped) * batch.weight).sum(1)

    return surrogate


def log_likelihood(policy: Distribution, batch: TrainingBatch) -> Tensor:
    """Return -E[log pi A], (B,): the surrogate of the first implementations of MAML for the loss of
    Finn et al. 2017, equation 4.

    Its second derivative lacks the outer product of the score function, and with this term the
    credit of the pre-adaptation policy for the data that it collects (Rothfuss et al. 2019,
    section 5).
    """
    log_prob = policy.log_prob(batch.action)
    return -(log_prob * batch.advantage * batch.weight).sum(1)


def log_ratio_to_old(policy: Distribution, batch: TrainingBatch) -> Tensor:
    """Return log pi - log pi_old of each step, (B, E, T); 0 at steps that did not take place."""
    return batch.by_episode(policy.log_prob(batch.action) - batch.log_prob)


def dice(policy: Distribution, batch: TrainingBatch) -> Tensor:
    """Return the DiCE objective with its baseline term, negated, (B,) (Foerster et al. 2018).

    -E[box(sum_{s <= t} log pi_s) r_t + (1 - box(log pi_t)) b_t], with the discounted reward r and
    the discounted baseline b. DiCE's MagicBox is box(x) = exp(x - stop_gradient(x)); here it is
    exp(x - x_old), the likelihood ratio. Where pi = pi_old both are 1, with the same derivatives of
    any order, which are unbiased. Of another policy, as in a line search that repeats the
    adaptation, the ratio goes on weighing the data by importance, so that the derivatives are those
    of what is evaluated.
    """
    log_ratio = log_ratio_to_old(policy, batch)
    until_step = log_ratio.cumsum(-1).exp().flatten(1)  # (B, N)
    of_step = log_ratio.exp().flatten(1)
    objective = until_step * batch.reward + (1 - of_step) * batch.value
    return -(objective * batch.weight).sum(1)


def loaded_dice(decay: float) -> Surrogate:
    """Return the Loaded DiCE surrogate: DiCE with advantages, which has less variance (Farquhar et
    al. 2019, algorithm 1).

    -E[(box(w_t) - box(w_t - log pi_t)) A_t], with w_t = sum_{s <= t} decay^(t - s) log pi_s and the
    box of `dice`. A decay (lambda in the paper) below 1 discounts the influence of earlier actions
    on later data, which reduces the variance and introduces bias.
    """

    def surrogate(policy: Distribution, batch: TrainingBatch) -> Tensor:
        log_ratio = log_ratio_to_old(policy, batch)
        with_step = discounted_prefixes(log_ratio, decay)  # w_t - w_t of pi_old
        difference = with_step.exp() - (with_step - log_ratio).exp()
        return -(difference.flatten(1) * batch.advantage * batch.weight).sum(1)

    return surrogate


def emaml_term(policy: Distribution, batch: TrainingBatch, return_weight: Tensor) -> Tensor:
    """Return -E[pi / pi_old] return_weight, (B,): the exploration term of E-MAML (Stadie et al.
    2018, "Fixing the sampling problem with E-MAML").

    The term increases the probability of pre-adaptation data that led to high returns after
    adaptation.

    Args:
        policy: the action distributions before adaptation, on `batch`.
        batch: the support batch.
        return_weight: standardised return after adaptation, (B,).
    """
    return -(ratio_to_old(policy, batch) * batch.weight).sum(1) * return_weight


def inner_surrogate(name: str, decay: float = 1.0) -> Surrogate:
    """Return an inner surrogate by its name in configs, with the decay of `loaded_dice`.

    Raises:
        KeyError: if the name is unknown.
    """
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
    """Return the surrogate loss on a training batch, (B,), as a function of the stacked parameters
    of a policy."""

    def loss(params: Params) -> Tensor:
        return surrogate(policy(params, batch.obs), batch)

    return loss


def mean_kl(old: Distribution, new: Distribution, weight: Tensor) -> Tensor:
    """Return KL(old || new) in nats, (B,), averaged over steps with weights `weight`, (B, N)."""
    return (old.kl(new) * weight).sum(1)
