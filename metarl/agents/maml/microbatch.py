"""Microbatches: some tasks of a meta-batch, which one thread works on at a time."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metarl.agents.maml.batch import TrainingBatch
from metarl.agents.maml.inner_loop import InnerState
from metarl.core.params import Params


@dataclass(frozen=True)
class StateMicrobatch:
    """The adaptation state of b tasks.

    Attributes:
        inner: the state of the inner loop.
        params: the policy's parameters there, stacked (b, ...).
        support: the training batch of each adaptation step so far.
    """

    inner: InnerState
    params: Params
    support: tuple[TrainingBatch, ...] = ()

    def of_tasks(self, indices: Tensor) -> StateMicrobatch:
        """Return the states of the tasks with these numbers within the microbatch, (n,)."""
        params = {name: value[indices] for name, value in self.params.items()}
        support = tuple(batch.of_tasks(indices) for batch in self.support)
        return StateMicrobatch(self.inner.of_tasks(indices), params, support)


@dataclass(frozen=True)
class MetaMicrobatch:
    """The data of a meta-update on b tasks.

    Attributes:
        support: the training batch of each adaptation step.
        inner: the state of the inner loop after the adaptation.
        adapted: the policy's parameters there, stacked (b, ...).
        query: the training batch played by the adapted parameters.
        return_weight: return after adaptation, standardised over the meta-batch, (b,).
    """

    support: tuple[TrainingBatch, ...]
    inner: InnerState
    adapted: Params
    query: TrainingBatch
    return_weight: Tensor

    @property
    def num_tasks(self) -> int:
        return len(self.query.obs)
