"""Which rollouts of a meta-batch the meta-objective measures, and their weights.

In training on sequences of L tasks, the objective of a sequence is

    (mean over l of R(task l, phi_l) + w * mean over l < L of R(task l, phi_L)) / (1 + w),

where phi_l are the parameters adapted to the tasks 1, ..., l in turn, R is the return, and w is
`inner.retention_weight`: the return on the task just met (plasticity), and on the tasks met before
(retention). With L = 1 this is the objective of MAML (Finn et al. 2017, equation 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from metarl.agents.base import Rollout
from metarl.agents.maml.state import MAMLState
from metarl.rollout.episodes import Episodes


@dataclass(frozen=True)
class MeasuredRollout:
    """A rollout that the meta-objective measures.

    Attributes:
        state: the states of B tasks or sequences.
        episodes: the episodes played from them.
        weight: weight in the meta-objective.
    """

    state: MAMLState
    episodes: Episodes
    weight: float

    def of_tasks(self, indices: np.ndarray) -> MeasuredRollout:
        """Return the rollout of the tasks at `indices`, (n,) integers in increasing order."""
        state, episodes = self.state.of_tasks(indices), self.episodes.of_tasks(indices)
        return replace(self, state=state, episodes=episodes)


def measured_rollouts(
    rollouts: Sequence[Rollout], retention_weight: float
) -> list[MeasuredRollout]:
    """Return the rollouts that the meta-objective measures, with weights that sum to 1.

    These are the rollouts by which no later state was adapted. The first one after an adaptation is
    on the task just met, and all others are on tasks met before. Rollouts of weight 0 are left out.
    """
    steps = [rollout.state.microbatches[0].inner_state.step for rollout in rollouts]
    just_met: list[Rollout] = []
    met_before: list[Rollout] = []
    measured = None  # number of adaptation steps before the last measured rollout
    for rollout, step, following in zip(rollouts, steps, [*steps[1:], steps[-1]], strict=True):
        if following == step:
            (met_before if step == measured else just_met).append(rollout)
            measured = step
    retention = retention_weight / (1 + retention_weight) if met_before else 0.0
    weighted = [(rollout, (1 - retention) / len(just_met)) for rollout in just_met]
    if retention:
        weighted += [(rollout, retention / len(met_before)) for rollout in met_before]
    return [MeasuredRollout(*rollout, weight) for rollout, weight in weighted]
