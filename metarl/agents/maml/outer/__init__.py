"""Outer updates: how the meta-parameters follow from a meta-batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

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
"""The choices of a config's key `update`. To add one, write it like these and name it here."""


class OuterUpdate(Protocol):
    """The update that `make` of a config returns."""

    def step(self, objective: MetaObjective, timer: Timer) -> tuple[Tensor, Metrics]:
        """Return new meta-parameters, (P,), and diagnostics: `outer_kl`, `gradient_norm`, ...

        Raises:
            NotFinite: if the loss, its gradient or the step is not. The agent then restores the
                state of the update.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state that a checkpoint must hold for the next step to be the same."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the state of another update of the same config."""
        ...
