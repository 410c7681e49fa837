"""Proximal policy optimisation (Schulman et al. 2017) of the policies after adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.outer.adam import Adam
from metarl.agents.maml.surrogates import clipped_ratio
from metarl.core.errors import check
from metarl.core.timer import Timer


@dataclass(frozen=True)
class PPOConfig:
    """The outer update: several steps of Adam on the clipped surrogate of one meta-batch."""

    update: Literal["ppo"] = "ppo"
    """How the meta-parameters are updated."""
    lr: float = 1e-3
    """Adam's step size."""
    epochs: int = 5
    """Steps on each meta-batch, all of its data at each."""
    clip: float = 0.3
    """How far the likelihood ratio counts: up to 1 +- this."""
    kl_weight: float = 0.0
    """Initial weight of KL(old || new) of the adapted policies in the loss."""
    kl_target: float = 0.0
    """If not 0, `kl_weight` is doubled after an update with more than 1.5 times this divergence,
    and halved after one with less than a 1.5th of it."""
    start_kl_weight: float = 0.0
    """Weight of KL(old || new) of the policies before adaptation in the loss (ProMP, Rothfuss et
    al. 2019, section 5; 5e-4 there)."""

    def __post_init__(self) -> None:
        check(self.lr > 0, "lr", "more than 0", self.lr)
        check(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        check(self.clip > 0, "clip", "more than 0", self.clip)
        for name in ("kl_weight", "kl_target", "start_kl_weight"):
            check(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        check(
            not self.kl_target or self.kl_weight > 0,
            "kl_weight",
            "more than 0, as it adapts to kl_target by factors",
            self.kl_weight,
        )

    def make(self, vector: Tensor) -> PPO:
        return PPO(self, vector)


class PPO:
    """Steps of MAML-PPO and ProMP."""

    def __init__(self, config: PPOConfig, vector: Tensor) -> None:
        self.config = config
        self.kl_weight = config.kl_weight
        self._adam = Adam(vector, config.lr)

    def step(self, objective: MetaObjective, timer: Timer) -> tuple[Tensor, dict[str, float]]:
        config, new = self.config, objective.vector
        surrogate = clipped_ratio(config.clip)
        norms = []
        for epoch in range(config.epochs):
            with timer("surrogate gradient"):
                # At the old parameters the old policies are a by-product.
                at = new if epoch else None
                found = objective.gradient(at, surrogate, self.kl_weight, config.start_kl_weight)
            norms.append(float(found.gradient.norm()))
            if epoch == 0:
                before = found.loss
            new = self._adam.step(new, found.gradient)
        with timer("evaluation"):
            loss, kl = objective.evaluate(new)
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
