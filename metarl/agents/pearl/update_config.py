"""The settings of the update of PEARL."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metarl.core.schema import Count, Fraction, NotNegative, Positive, Section


class UpdateConfig(Section):
    """The update: soft actor-critic on transitions of the replay buffer, and the encoder's loss."""

    gradient_steps: Count = 2000
    """Gradient steps of an iteration."""
    warmup_iterations: Annotated[int, Field(ge=0)] = 0
    """Updates at the beginning, one an iteration, without gradient steps: episodes fill the replay
    buffer."""
    meta_batch: Count = 16
    """Training tasks of a gradient step; all that have data, if they are fewer."""
    batch: Count = 256
    """Transitions of each of these tasks, from its whole replay buffer."""
    context: Annotated[int, Field(ge=2)] = 100
    """Transitions of each of these tasks that the encoder sees."""
    context_from: Literal["prior", "trial", "all"] = "prior"
    """Where they are from: prior (the task's last episodes under the prior, as published), trial
    (the task's last trials, up to a random episode, so that the encoder also sees what the second
    and later adaptations see) or all (its whole replay buffer)."""
    encoder_loss: Literal["critic", "metric"] = "critic"
    """What trains the encoder: critic (the loss of the critics, and the KL divergence from the
    prior) or metric (a loss that pulls embeddings of one task together and pushes tasks apart)."""
    kl_weight: NotNegative = 0.1
    """Weight of the KL divergence of the posterior from the prior, summed over the tasks of a
    gradient step as in the code of PEARL; for encoder_loss critic."""
    repulsion: NotNegative = 1.0
    """Weight of the part that pushes tasks apart; for encoder_loss metric."""
    lr: Positive = 3e-4
    """Step size of Adam, for all networks and the temperature."""
    discount: Fraction = 0.99
    """Discount factor per step."""
    target_rate: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Share of the critics in each step of the target critics towards them (tau)."""
    reward_scale: Positive = 5.0
    """Factor on rewards where the critics learn from them."""
    temperature: Positive = 1.0
    """Weight of the entropy of the policy, beside the scaled rewards; the initial one if it is
    learned."""
    learn_temperature: bool = False
    """Whether the temperature is learned, so that the entropy of the policy becomes minus the
    number of action dimensions (Haarnoja et al. 2018b)."""
