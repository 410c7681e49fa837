"""Adam on the plain meta-gradient."""

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
class GradientConfig:
    """The outer update: one step of Adam per meta-batch."""

    update: Literal["gradient"] = "gradient"
    """How the meta-parameters are updated."""
    lr: float = 1e-3
    """Adam's step size."""

    def __post_init__(self) -> None:
        check(self.lr > 0, "lr", "more than 0", self.lr)

    def make(self, vector: Tensor) -> Gradient:
        return Gradient(self, vector)


class Gradient:
    """Steps of Adam."""

    def __init__(self, config: GradientConfig, vector: Tensor) -> None:
        self._adam = Adam(vector, config.lr)

    def step(self, objective: MetaObjective, timer: Timer) -> tuple[Tensor, dict[str, float]]:
        with timer("surrogate gradient"):
            found = objective.gradient()
        new = self._adam.step(objective.vector, found.gradient)
        with timer("evaluation"):
            loss, kl = objective.evaluate(new)
        return new, {
            "outer_kl": kl,
            "improvement": found.loss - loss,
            "gradient_norm": float(found.gradient.norm()),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self._adam.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._adam.load_state_dict(state)
