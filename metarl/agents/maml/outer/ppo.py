"""Proximal policy optimisation (Schulman et al. 2017) of the policies after adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from metarl.agents.base import Metrics
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.outer.vector_adam import VectorAdam
from metarl.agents.maml.surrogates import clipped_ratio
from metarl.core.errors import check
from metarl.core.schema import Section
from metarl.core.timer import Timer

MAX_KL_RATIO = 10.0  # times `kl_target`: the divergence of an update that training warns of


class PPOConfig(Section):
    """The outer update: several steps of Adam on the clipped surrogate of one meta-batch."""

    update: Literal["ppo"] = "ppo"
    """How the meta-parameters are updated."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Adam's step size."""
    epochs: Annotated[int, Field(ge=1)] = 5
    """Steps on each meta-batch, all of its data at each."""
    clip: Annotated[float, Field(gt=0)] = 0.3
    """Largest deviation of the likelihood ratio from 1 that counts."""
    kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Initial weight of KL(old || new) of the adapted policies in the loss."""
    kl_target: Annotated[float, Field(ge=0)] = 0.0
    """If not 0, `kl_weight` is doubled after an update with more than 1.5 times this divergence,
    and halved after one with less than a 1.5th of it."""
    inner_kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of KL(old || new) of the policies before adaptation in the loss (ProMP, Rothfuss et
    al. 2019, section 5; 5e-4 there)."""

    @model_validator(mode="after")
    def _check(self) -> PPOConfig:
        check(
            not self.kl_target or self.kl_weight > 0,
            "kl_weight",
            "more than 0, as it adapts to kl_target by factors",
            self.kl_weight,
        )
        return self

    @property
    def max_update_kl(self) -> float:
        """The divergence of an update above which training warns."""
        return MAX_KL_RATIO * self.kl_target if self.kl_target else 1.0

    def make(self, vector: Tensor) -> PPO:
        return PPO(self, vector)


class PPO:
    """Steps of MAML-PPO and ProMP."""

    def __init__(self, config: PPOConfig, vector: Tensor) -> None:
        self.config = config
        self.kl_weight = config.kl_weight
        self._adam = VectorAdam(vector, config.lr)

    def step(self, objective: MetaObjective, timer: Timer) -> tuple[Tensor, Metrics]:
        config, new = self.config, objective.vector
        surrogate = clipped_ratio(config.clip)
        norms = []
        for epoch in range(config.epochs):
            with timer("surrogate gradient"):
                # At the old parameters the old policies are computed on the way.
                at = new if epoch else None
                found = objective.gradient(at, surrogate, self.kl_weight, config.inner_kl_weight)
            norms.append(float(found.gradient.norm()))
            if epoch == 0:
                before = found.loss
            new = self._adam.step(new, found.gradient)
        with timer("evaluation"):
            loss, kl = objective.loss_and_kl(new)
        diagnostics = {
            "outer_kl": kl,
            "improvement": before - loss,
            "gradient_norm": norms[0],
            "kl_weight": self.kl_weight,
        }
        if config.kl_target and kl > 1.5 * config.kl_target:
            self.kl_weight *= 2
        elif config.kl_target and kl < config.kl_target / 1.5:
            self.kl_weight /= 2
        return new, diagnostics

    def state_dict(self) -> dict[str, Tensor]:
        weight = torch.tensor(self.kl_weight, dtype=torch.float64)
        return {**self._adam.state_dict(), "kl_weight": weight}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._adam.load_state_dict(state)
        self.kl_weight = float(state["kl_weight"])
