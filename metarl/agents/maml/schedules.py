"""Step sizes of the adaptations outside training."""

from __future__ import annotations

from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["halving", "geometric", "constant"]


def step_scale(schedule: Schedule, step: int) -> float:
    """Return the factor on the step size of one adaptation.

    Args:
        schedule: `halving` is the MAML paper's, the whole step at first and half of it afterwards;
            `geometric` halves every step anew: 1, 1/2, 1/4; `constant` is 1.
        step: number of adaptations before it.
    """
    if schedule == "geometric":
        return 0.5**step
    return 1.0 if schedule == "constant" or step == 0 else 0.5
