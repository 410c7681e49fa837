"""The states of the adaptation to the tasks of a meta-batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch

from metarl.agents.maml.microbatch import StateMicrobatch
from metarl.rollout.episodes import Episodes


@dataclass(frozen=True)
class MAMLState:
    """The states of B tasks, in microbatches of consecutive tasks.

    Attributes:
        microbatches: the states of consecutive tasks, at least one microbatch.
        training: whether `update` will be called with rollouts from this state. Step sizes are not
            reduced by `inner.test_lr_schedule` then.
        num_adaptations: number of adaptations to the current task so far.
    """

    microbatches: tuple[StateMicrobatch, ...]
    training: bool = False
    num_adaptations: int = 0

    def of_tasks(self, indices: np.ndarray) -> MAMLState:
        """Return the states of the tasks at `indices`, (n,) integers in increasing order."""
        sizes = [microbatch.inner_state.num_tasks for microbatch in self.microbatches]
        indices_by_microbatch = [
            indices[(indices >= stop - size) & (indices < stop)] - (stop - size)
            for size, stop in zip(sizes, accumulate(sizes), strict=True)
        ]
        kept = tuple(
            microbatch.of_tasks(torch.from_numpy(rows))
            for microbatch, rows in zip(self.microbatches, indices_by_microbatch, strict=True)
            if rows.size
        )
        return replace(self, microbatches=kept)

    def pair(self, episodes: Episodes) -> list[tuple[StateMicrobatch, Episodes]]:
        """Return each microbatch with the episodes of its tasks."""
        sizes = [microbatch.inner_state.num_tasks for microbatch in self.microbatches]
        return [
            (microbatch, episodes.rows(stop - size, stop))
            for microbatch, size, stop in zip(
                self.microbatches, sizes, accumulate(sizes), strict=True
            )
        ]
