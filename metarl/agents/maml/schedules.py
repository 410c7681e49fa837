"""Step-size schedules of adaptation outside training."""

from __future__ import annotations

from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["halving", "geometric", "constant"]


def step_scale(schedule: Schedule, step: int) -> float:
    """Return the factor on the step size of one adaptation.

    Args:
        schedule: `halving` gives 1, 1/2, 1/2, ... (Finn et al. 2017); `geometric` gives 1, 1/2,
            1/4, ...; `constant` gives 1.
        step: number of earlier adaptations.
    """
    if schedule == "geometric":
        return 0.5**step
    return 1.0 if schedule == "constant" or step == 0 else 0.5
