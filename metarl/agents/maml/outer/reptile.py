"""Reptile (Nichol et al. 2018): towards the adapted parameters, through no derivative of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.outer.adam import Adam
from metarl.core.errors import check
from metarl.core.timer import Timer


@dataclass(frozen=True)
class ReptileConfig:
    """The outer update: a step towards the mean of the adapted parameters.

    The episodes after adaptation give each task one more gradient step, so that `inner_steps: 1`
    means two steps. With only one, Reptile is training on all tasks at once.
    """

    update: Literal["reptile"] = "reptile"
    """How the meta-parameters are updated."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """`sgd` goes the share `lr` of the way; `adam` takes the way for a negative gradient."""
    lr: float = 1.0
    """The step size."""

    def __post_init__(self) -> None:
        check(self.lr > 0, "lr", "more than 0", self.lr)

    def make(self, vector: Tensor) -> Reptile:
        return Reptile(self, vector)


class Reptile:
    """Steps of Reptile, batched (Nichol et al. 2018, algorithm 2)."""

    def __init__(self, config: ReptileConfig, vector: Tensor) -> None:
        self._lr = config.lr
        self._adam = Adam(vector, config.lr) if config.optimizer == "adam" else None

    def step(self, objective: MetaObjective, timer: Timer) -> tuple[Tensor, dict[str, float]]:
        old = objective.vector
        with timer("displacement"):
            way = objective.displacement()
        new = self._adam.step(old, -way) if self._adam else old + self._lr * way
        with timer("evaluation"):
            before, _ = objective.evaluate(old)
            loss, kl = objective.evaluate(new)
        return new, {
            "outer_kl": kl,
            "improvement": before - loss,
            "gradient_norm": float(way.norm()),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self._adam.state_dict() if self._adam else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if self._adam:
            self._adam.load_state_dict(state)
