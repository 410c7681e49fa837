"""Proximal policy optimisation (PPO, Schulman et al. 2017) over whole trials.

n is the number of trials, L the number of steps of the longest trial.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from metarl.agents.annealing import remaining
from metarl.agents.recurrent.actor_critic import Predictions
from metarl.core.distributions import probability_ratio
from metarl.core.errors import check
from metarl.core.schema import Count, Fraction, NotNegative, Positive, Section
from metarl.envs import TaskFamily
from metarl.rollout.sampling import SamplingConfig


class PPOConfig(Section):
    """The update: proximal policy optimisation over whole trials."""

    lr: Positive = 7e-4
    """Step size of Adam."""
    lr_anneal: Annotated[int, Field(ge=0)] = 0
    """Number of updates, one an iteration, over which the step size goes linearly to 0; 0 for a
    constant one."""
    epochs: Count = 4
    """Passes over the trials of an iteration."""
    minibatches: Count = 4
    """Minibatches of trials of a pass."""
    clip: Positive = 0.2
    """Largest change of the probability ratio, from 1, that is rewarded."""
    value_weight: NotNegative = 0.5
    """Weight of the squared error of the value function."""
    entropy_weight: NotNegative = 0.01
    """Weight of the entropy of the policy."""
    entropy_anneal: Annotated[int, Field(ge=0)] = 0
    """Number of updates over which that weight goes linearly to 0; 0 for a constant one."""
    max_gradient_norm: Positive = 0.5
    """Norm to which larger gradients are scaled down."""
    discount: Fraction = 0.97
    """Discount factor per step."""
    gae_lambda: Fraction = 0.9
    """Lambda of generalised advantage estimation."""
    across_episodes: bool = True
    """Whether the return of a step counts the later episodes of its trial, which rewards
    exploration for them; if false, the episode's own rewards only."""
    reward: Literal["observed", "expected"] = "observed"
    """What returns are made of: the observed rewards; or their means in the task, less those
    of the best actions, where the family tells them (`bandit`, `tabular_mdp`). The policy
    gradient is the same in expectation, and varies less; episodes must not end early. The agent
    sees observed rewards anyway."""
    truncate: Annotated[int, Field(ge=0)] = 0
    """Number of steps after which back-propagation through time is cut; 0 for whole trials."""

    def check(self, family: TaskFamily, sampling: SamplingConfig, *, normalized: bool) -> None:
        """Check that the family tells expected rewards, if they are learned from.

        Args:
            family: the task family.
            sampling: how it is sampled.
            normalized: whether the agent sees normalised observations alone, from which the family
                cannot tell them.

        Raises:
            ConfigError: if it does not.
        """
        if self.reward == "observed":
            return
        played = sampling.nuisances.applied(family)  # as training plays it
        what = "sampling.nuisances" if family.knows_expected_reward else f"family {family.name}"
        expected = f"observed with {what}, which does not tell expected rewards"
        check(played.knows_expected_reward, "update.reward", expected, self.reward)
        expected = "observed with normalize_observations; running_observations normalises them too"
        check(not normalized, "update.reward", expected, self.reward)

    @property
    def schedules(self) -> dict[str, int]:
        """The keys that count iterations, with their values."""
        names = "lr_anneal", "entropy_anneal"
        return {f"update.{name}": getattr(self, name) for name in names}

    def annealed(self, num_updates: int) -> PPOConfig:
        """Return the settings of the update that follows on `num_updates` others."""
        lr = self.lr * remaining(num_updates, self.lr_anneal)
        entropy_weight = self.entropy_weight * remaining(num_updates, self.entropy_anneal)
        return self.model_copy(update={"lr": lr, "entropy_weight": entropy_weight})


@dataclass(frozen=True)
class PPOBatch:
    """What the loss needs of n trials, each cut into S segments: tensors of n * S rows, trial by
    trial, of L steps.

    Attributes:
        inputs: inputs of the network, (n * S, L, num_inputs).
        memory: memory before the first step, (n * S, memory_size).
        action: (n * S, L, action_dim).
        outputs: means or logits of the policy that acted, (n * S, L, num_outputs).
        log_prob: log probability of the actions under the policy that acted, (n * S, L).
        advantage: standardised, (n * S, L).
        target: target of the value function, (n * S, L).
        weight: weight of the trial where a step took place, of mean 1 over the steps whose weight
            is not 0; 1 if all trials weigh the same. 0 elsewhere; (n * S, L).
        segments: S.
    """

    inputs: Tensor
    memory: Tensor
    action: Tensor
    outputs: Tensor
    log_prob: Tensor
    advantage: Tensor
    target: Tensor
    weight: Tensor
    segments: int = 1

    @property
    def tensors(self) -> dict[str, Any]:
        """The tensors by name."""
        return {name: value for name, value in vars(self).items() if name != "segments"}

    def rows(self, indices: Tensor) -> PPOBatch:
        """Return the rows at `indices`."""
        return replace(self, **{name: value[indices] for name, value in self.tensors.items()})

    def rows_of(self, trials: Tensor) -> Tensor:
        """Return the indices of the rows of some trials."""
        segment = torch.arange(self.segments, device=trials.device)
        return (trials[:, None] * self.segments + segment).flatten()


def ppo_loss(predictions: Predictions, batch: PPOBatch, config: PPOConfig) -> Tensor:
    """Return the loss, summed over the steps of the batch, with two of its parts.

    Returns:
        (3,): the loss, the loss of the policy, and the squared error of the value function.
    """
    log_prob = predictions.policy.log_prob(batch.action)
    ratio = probability_ratio(log_prob, batch.log_prob, batch.weight)
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    # Schulman et al. 2017, equation 7
    policy_loss = -torch.minimum(ratio * batch.advantage, clipped * batch.advantage)
    value_loss = (predictions.value - batch.target).square()
    entropy = predictions.policy.entropy().expand_as(log_prob)
    loss = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
    return (torch.stack([loss, policy_loss, value_loss]) * batch.weight).sum((1, 2))


def trial_advantages(
    reward: Tensor, value: Tensor, last_value: Tensor, ends: Tensor, mask: Tensor, config: PPOConfig
) -> Tensor:
    """Return generalised advantage estimates (Schulman et al. 2016, equation 16) in trials.

    Args:
        reward: (n, L).
        value: values of the observations before the steps, (n, L).
        last_value: at the last step of an episode, the value of the state after it, 0 if the
            episode is over with it; (n, L).
        ends: whether a step is the last of its episode, (n, L) bool.
        mask: whether a step took place, (n, L) bool.
        config: the settings; with `across_episodes` the value after the last step of an episode is
            that of the first step of the next episode, and `last_value` after the last episode.
    """
    following = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1)
    valid = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    following = torch.where(valid, following, last_value)
    carries = valid
    if not config.across_episodes:
        following = torch.where(ends, last_value, following)
        carries = valid & ~ends
    delta = torch.where(mask, reward + config.discount * following - value, 0.0)
    factor = config.discount * config.gae_lambda * carries
    advantage = torch.zeros_like(delta)
    carried = torch.zeros_like(delta[:, 0])
    for step in range(delta.shape[1] - 1, -1, -1):
        carried = delta[:, step] + factor[:, step] * carried
        advantage[:, step] = carried
    return advantage
