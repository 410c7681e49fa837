"""Outer updates: how the meta-parameters follow from a meta-batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from torch import Tensor

from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.outer.gradient import GradientConfig
from metarl.agents.maml.outer.ppo import PPOConfig
from metarl.agents.maml.outer.reptile import ReptileConfig
from metarl.agents.maml.outer.trpo import TRPOConfig
from metarl.core.timer import Timer

OuterConfig: TypeAlias = TRPOConfig | PPOConfig | GradientConfig | ReptileConfig
"""A config's choice, by its key `update`. To add one, write it like these and name it here."""


class OuterUpdate(Protocol):
    """What a config's `make` gives."""

    def step(self, objective: MetaObjective, timer: Timer) -> tuple[Tensor, dict[str, float]]:
        """Return new meta-parameters, (P,), and diagnostics: `outer_kl`, `gradient_norm`, ...

        Raises:
            NotFinite: if the loss, its gradient or the way to go is not. The agent then sets the
                state back.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold for the next step to be the same."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what another update of the same config held."""
        ...
