"""Proximal policy optimisation (PPO, Schulman et al. 2017) of the adapted policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from metarl.agents.annealing import remaining
from metarl.agents.base import Metrics
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.surrogates import clipped_ratio
from metarl.agents.vector_adam import VectorAdam
from metarl.core.errors import check
from metarl.core.schema import Count, Section
from metarl.core.timer import Timer

MAX_FACTOR = 2.0**20  # by which `kl_weight` may become larger or smaller than at the beginning
MAX_KL_RATIO = 10.0  # ratio of an update's KL divergence to `kl_target` above which training warns


class PPOConfig(Section):
    """The outer update: several steps of Adam on the clipped surrogate of one meta-batch."""

    update: Literal["ppo"] = "ppo"
    """The kind of outer update."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Step size of Adam."""
    lr_anneal: Annotated[int, Field(ge=0)] = 0
    """Number of updates, one an iteration, over which the step size goes linearly to 0; 0 for a
    constant one."""
    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the episodes of each meta-batch."""
    minibatches: Count = 1
    """Steps of Adam in a pass. In each, every task repeats its adaptation, and the policy is judged
    by another random part of the task's episodes after it; 1 for all of them."""
    keep_gradients: bool = False
    """Whether all steps keep the inner gradients of the adaptation that was played, instead of
    repeating it; requires `inner.first_order`. A step then takes about half of the time, and no
    inner gradient is that of a policy that has moved away from its episodes. In minibatches, the
    policy before adaptation is judged by a part of its episodes too."""
    clip: Annotated[float, Field(gt=0)] = 0.3
    """Clipping of the likelihood ratio: the largest deviation from 1."""
    kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Initial weight of KL(old || new) of the adapted policies in the loss."""
    kl_target: Annotated[float, Field(ge=0)] = 0.0
    """Target of the KL divergence of an update, 0 for none: `kl_weight` is doubled after an update
    whose divergence is above 1.5 times the target, and halved after an update whose divergence is
    below the target divided by 1.5 (Schulman et al. 2017, section 4)."""
    inner_kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of KL(old || new) of the policies before adaptation in the loss (ProMP, Rothfuss et
    al. 2019, section 6; 5e-4 in the paper)."""

    @model_validator(mode="after")
    def _check(self) -> PPOConfig:
        check(
            not self.kl_target or self.kl_weight > 0,
            "kl_weight",
            "more than 0, as it adapts to kl_target by factors",
            self.kl_weight,
        )
        return self

    def num_parts(self, num_episodes: int) -> int:
        """Return the number of parts of the episodes of a task, each with at least one."""
        return min(self.minibatches, num_episodes)

    @property
    def max_update_kl(self) -> float:
        """KL divergence of an update, in nats, above which training warns."""
        return MAX_KL_RATIO * self.kl_target if self.kl_target else 1.0

    def make(self, vector: Tensor) -> PPO:
        """Make the outer update for meta-parameters `vector`, (P,)."""
        return PPO(self, vector)


class PPO:
    """The outer update of MAML-PPO, and of ProMP where `inner_kl_weight` is positive.

    Attributes:
        config: the settings.
        kl_weight: the present weight of the KL divergence of the adapted policies.
    """

    def __init__(self, config: PPOConfig, vector: Tensor) -> None:
        self.config = config
        self.kl_weight = config.kl_weight
        self._adam = VectorAdam(vector, config.lr)

    def step(
        self, objective: MetaObjective, rng: np.random.Generator, timer: Timer
    ) -> tuple[Tensor, Metrics]:
        config, new = self.config, objective.vector
        surrogate = clipped_ratio(config.clip)
        if config.keep_gradients:
            with timer("surrogate gradient"):
                objective = objective.with_constant_gradients()
        steps = config.epochs * config.num_parts(objective.num_episodes)
        lr = config.lr * remaining(self._adam.num_steps // steps, config.lr_anneal)
        norms, before = [], None
        for epoch in range(config.epochs):
            with timer("surrogate gradient"):
                for part in self._parts(objective, rng):
                    # None: the first gradient also computes the old action distributions.
                    at = None if epoch == 0 and part is objective else new
                    found = part.gradient(at, surrogate, self.kl_weight, config.inner_kl_weight)
                    norms.append(float(found.gradient.norm()))
                    new = self._adam.step(new, found.gradient, lr)
                    if at is None:
                        before = found.loss
        with timer("evaluation"):
            if before is None:
                before, _ = objective.loss_and_kl(objective.vector)
            loss, kl = objective.loss_and_kl(new)
        diagnostics = {
            "outer_kl": kl,
            "improvement": before - loss,
            "gradient_norm": norms[0],
            "kl_weight": self.kl_weight,
        }
        # Adaptive KL penalty (Schulman et al. 2017, section 4)
        if config.kl_target and kl > 1.5 * config.kl_target:
            self.kl_weight = min(2 * self.kl_weight, self.config.kl_weight * MAX_FACTOR)
        elif config.kl_target and kl < config.kl_target / 1.5:
            self.kl_weight = max(self.kl_weight / 2, self.config.kl_weight / MAX_FACTOR)
        return new, diagnostics

    def _parts(self, objective: MetaObjective, rng: np.random.Generator) -> list[MetaObjective]:
        """Return the objectives of the minibatches of a pass."""
        if self.config.minibatches == 1:
            return [objective]
        episodes = objective.num_episodes
        order = np.array_split(rng.permutation(episodes), self.config.num_parts(episodes))
        support = self.config.inner_kl_weight > 0
        return [objective.of_episodes(np.sort(part), support=support) for part in order]

    def state_dict(self) -> dict[str, Tensor]:
        weight = torch.tensor(self.kl_weight, dtype=torch.float64)
        return {**self._adam.state_dict(), "kl_weight": weight}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._adam.load_state_dict(state)
        self.kl_weight = float(state["kl_weight"])
