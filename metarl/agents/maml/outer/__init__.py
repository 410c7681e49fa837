"""Outer updates: the update of the meta-parameters from a meta-batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
from torch import Tensor

from metarl.agents.base import Metrics
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.outer.adam import AdamConfig
from metarl.agents.maml.outer.ppo import PPOConfig
from metarl.agents.maml.outer.reptile import ReptileConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.core.schema import Section
from metarl.core.timer import Timer

OuterConfig: TypeAlias = TRPOConfig | PPOConfig | AdamConfig | ReptileConfig

OUTER_UPDATES: dict[str, type[Section]] = {
    "trpo": TRPOConfig,
    "ppo": PPOConfig,
    "adam": AdamConfig,
    "reptile": ReptileConfig,
}
"""The config class of each outer update, by value of the key `update`. A new outer update needs a
config class with a method `make`, and an entry here."""


class OuterUpdate(Protocol):
    """An outer update, as returned by the method `make` of its config."""

    def step(
        self, objective: MetaObjective, rng: np.random.Generator, timer: Timer
    ) -> tuple[Tensor, Metrics]:
        """Take one step from the old meta-parameters, `objective.vector`.

        Args:
            objective: the meta-objective of one meta-batch.
            rng: random number generator of the step.
            timer: measures the sections of the step.

        Returns:
            The new meta-parameters, (P,); and diagnostics by name, including `outer_kl` (nats) and
            `gradient_norm`.

        Raises:
            NotFinite: if the loss, its gradient or the step is not finite. The agent then restores
                the state of the outer update.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the complete state of the update, for a checkpoint."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the state of another update of the same config."""
        ...
