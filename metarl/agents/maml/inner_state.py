"""The state of the adaptation to tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from metarl.core.params import Params, join_params


@dataclass(frozen=True)
class InnerState:
    """The state of the adaptation to B tasks.

    Attributes:
        fast_params: the parameters that adapt, stacked (B, ...).
        optimizer_state: the state of the update rule, stacked (B, ...).
        step: number of adaptation steps taken.
    """

    fast_params: Params
    optimizer_state: Params = field(default_factory=dict)
    step: int = 0

    @property
    def num_tasks(self) -> int:
        return len(next(iter(self.fast_params.values())))

    def of_tasks(self, indices: Tensor) -> InnerState:
        """Return the state of the tasks at `indices`, (n,)."""
        fast_params, optimizer_state = (
            {name: value[indices] for name, value in params.items()}
            for params in (self.fast_params, self.optimizer_state)
        )
        return InnerState(fast_params, optimizer_state, self.step)

    @staticmethod
    def joined(states: Sequence[InnerState]) -> InnerState:
        """Return the tasks of several states after the same number of steps as one state."""
        return InnerState(
            join_params([each.fast_params for each in states]),
            join_params([each.optimizer_state for each in states]),
            states[0].step,
        )
