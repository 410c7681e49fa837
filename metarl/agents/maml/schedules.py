"""Step-size schedules of adaptation outside training."""

from __future__ import annotations

from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["halving", "geometric", "constant"]


def step_scale(schedule: Schedule, step: int, trained: int = 1) -> float:
    """Return the factor on the step size of one adaptation.

    Args:
        schedule: `halving` gives 1, 1/2, 1/2, ... (Finn et al. 2017); `geometric` gives 1, 1/2,
            1/4, ...; `constant` gives 1. After several adaptations in training all begin with as
            many times 1.
        step: number of earlier adaptations.
        trained: number of adaptations in training.
    """
    later = max(0, step + 1 - max(1, trained))  # how many more there are than in training
    if schedule == "geometric":
        return 0.5**later
    return 1.0 if schedule == "constant" or later == 0 else 0.5
