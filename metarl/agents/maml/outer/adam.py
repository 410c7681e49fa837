"""Adam (Kingma and Ba 2015) with the meta-gradient: the meta-update of Finn et al. 2017, equation
1, with Adam in place of gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from metarl.agents.annealing import remaining
from metarl.agents.base import Metrics
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.vector_adam import VectorAdam
from metarl.core.schema import Section
from metarl.core.timer import Timer


class AdamConfig(Section):
    """The outer update: one step of Adam per meta-batch."""

    update: Literal["adam"] = "adam"
    """The kind of outer update."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Step size of Adam."""
    lr_anneal: Annotated[int, Field(ge=0)] = 0
    """Number of updates, one an iteration, over which the step size goes linearly to 0; 0 for a
    constant one."""

    max_update_kl: ClassVar[float] = 1.0

    def make(self, vector: Tensor) -> AdamUpdate:
        """Make the outer update for meta-parameters `vector`, (P,)."""
        return AdamUpdate(self, vector)


class AdamUpdate:
    """The outer update: one step of Adam per meta-batch."""

    def __init__(self, config: AdamConfig, vector: Tensor) -> None:
        self._config = config
        self._adam = VectorAdam(vector, config.lr)

    def step(
        self, objective: MetaObjective, rng: np.random.Generator, timer: Timer
    ) -> tuple[Tensor, Metrics]:
        with timer("surrogate gradient"):
            found = objective.gradient()
        lr = self._config.lr * remaining(self._adam.num_steps, self._config.lr_anneal)
        new = self._adam.step(objective.vector, found.gradient, lr)
        with timer("evaluation"):
            loss, kl = objective.loss_and_kl(new)
        return new, {
            "outer_kl": kl,
            "improvement": found.loss - loss,
            "gradient_norm": float(found.gradient.norm()),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self._adam.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._adam.load_state_dict(state)
