"""Microbatches: consecutive tasks of a meta-batch that are processed together by one thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarl.agents.maml.batch import TrainingBatch
from metarl.agents.maml.inner_state import InnerState
from metarl.agents.maml.surrogates import mean_kl
from metarl.core.distributions import Distribution
from metarl.core.params import Params, join_params, total

GROUP_STEPS = 2000
"""Few steps of several tasks are processed together, with fewer calls than task by task."""
MIN_GROUPS = 8
"""Enough for as many threads."""


@dataclass(frozen=True)
class StateMicrobatch:
    """The state of the adaptation to b tasks.

    Attributes:
        inner_state: the state of the inner loop.
        params: the policy parameters in this state, stacked (b, ...).
        support: the training batches of all adaptation steps so far.
    """

    inner_state: InnerState
    params: Params
    support: tuple[TrainingBatch, ...] = ()

    def of_tasks(self, indices: Tensor) -> StateMicrobatch:
        """Return the state of the tasks at `indices` in the microbatch, (n,)."""
        params = {name: value[indices] for name, value in self.params.items()}
        support = tuple(batch.of_tasks(indices) for batch in self.support)
        return StateMicrobatch(self.inner_state.of_tasks(indices), params, support)


@dataclass(frozen=True)
class Query:
    """Episodes that the meta-objective measures.

    Attributes:
        step: number of adaptation steps before the episodes.
        adapted: the policy parameters that played them, stacked (b, ...).
        batch: their training batch.
        weight: weight in the meta-objective; the weights of all queries of a task sum to 1.
    """

    step: int
    adapted: Params
    batch: TrainingBatch
    weight: float = 1.0


@dataclass(frozen=True)
class MetaMicrobatch:
    """The data of a meta-update on b tasks, or sequences of tasks.

    Attributes:
        support: the training batches of all adaptation steps.
        inner_state: the state of the inner loop after the last adaptation step.
        queries: what the meta-objective measures, in the order of the adaptation steps before; the
            last one is played after all of them.
        return_weight: mean return of the queries, standardised over the meta-batch, (b,).
        task_weight: weight of each task in the loss, (b,); None for equal weights.
        gradients: the inner gradients of all adaptation steps, stacked (b, ...), where they are
            constants; () where the adaptation computes them.
    """

    support: tuple[TrainingBatch, ...]
    inner_state: InnerState
    queries: tuple[Query, ...]
    return_weight: Tensor
    task_weight: Tensor | None = None
    gradients: tuple[Params, ...] = ()

    def weighted(self, values: Tensor) -> Tensor:
        """Return values of the tasks, (b, ...), times `task_weight`."""
        if self.task_weight is None:
            return values
        return self.task_weight.view(-1, *[1] * (values.ndim - 1)) * values

    def every(
        self, support_stride: int, query_stride: int, whole_episodes: bool = False
    ) -> MetaMicrobatch:
        """Return the microbatch with some of the steps of its batches; see `TrainingBatch.every`.

        Args:
            support_stride: every `support_stride`-th step of the support batches is kept.
            query_stride: every `query_stride`-th step of the query batches is kept.
            whole_episodes: whether every `support_stride`-th episode is kept instead of steps.
        """
        support = (batch.every(support_stride, whole_episodes) for batch in self.support)
        queries = (replace(q, batch=q.batch.every(query_stride)) for q in self.queries)
        return replace(self, support=tuple(support), queries=tuple(queries))

    def of_episodes(self, indices: Tensor) -> MetaMicrobatch:
        """Return the microbatch with the query episodes at `indices`, (n,), of each task; and with
        these support episodes, if the adaptation does not need the others."""
        queries = (replace(q, batch=q.batch.of_episodes(indices)) for q in self.queries)
        support = self.support
        if self.gradients:
            support = tuple(batch.of_episodes(indices) for batch in support)
        return replace(self, support=support, queries=tuple(queries))

    def policies_of_episodes(
        self, indices: Tensor, policies: Sequence[Distribution]
    ) -> list[Distribution]:
        """Return action distributions on the batches of this microbatch, of which the last ones are
        those on the query batches, as those on the batches of `of_episodes`."""
        horizon = self.queries[0].batch.horizon
        times = torch.arange(horizon, device=indices.device)
        steps = (indices[:, None] * horizon + times).flatten()
        others = 0 if self.gradients else len(policies) - len(self.queries)
        return [*policies[:others], *(policy.at(steps) for policy in policies[others:])]

    @property
    def adapted(self) -> Params:
        """The policy parameters after all adaptation steps, stacked (b, ...)."""
        return self.queries[-1].adapted

    @property
    def num_tasks(self) -> int:
        return self.inner_state.num_tasks


def query_kl(
    old: Sequence[Distribution], new: Sequence[Distribution], microbatch: MetaMicrobatch
) -> Tensor:
    """Return KL(old || new) in nats, (b,), the weighted mean over the queries.

    Args:
        old, new: action distributions, of which the last ones are those on the query batches.
        microbatch: the tasks.
    """
    queries = microbatch.queries
    triples = zip(old[-len(queries) :], new[-len(queries) :], queries, strict=True)
    return total([query.weight * mean_kl(a, b, query.batch.weight) for a, b, query in triples])


def in_groups(
    microbatches: Sequence[MetaMicrobatch], stride: int
) -> list[Sequence[MetaMicrobatch]]:
    """Return the microbatches in groups of consecutive ones, with about `GROUP_STEPS` steps each if
    every `stride`-th step of the support batches is kept; at least `MIN_GROUPS` groups if possible.
    """
    first = microbatches[0]
    batch = first.support[0] if first.support else first.queries[0].batch
    size = min(GROUP_STEPS * stride // batch.weight.numel(), len(microbatches) // MIN_GROUPS)
    size = max(size, 1)
    return [microbatches[start : start + size] for start in range(0, len(microbatches), size)]


def joined(microbatches: Sequence[MetaMicrobatch]) -> MetaMicrobatch:
    """Return the tasks of several microbatches as one microbatch."""
    if len(microbatches) == 1:
        return microbatches[0]
    queries = tuple(
        replace(
            same_step[0],
            adapted=join_params([query.adapted for query in same_step]),
            batch=TrainingBatch.joined([query.batch for query in same_step]),
        )
        for same_step in zip(*(each.queries for each in microbatches), strict=True)
    )
    support = zip(*(each.support for each in microbatches), strict=True)
    weights = [each.task_weight for each in microbatches if each.task_weight is not None]
    return MetaMicrobatch(
        support=tuple(map(TrainingBatch.joined, support)),
        inner_state=InnerState.joined([each.inner_state for each in microbatches]),
        queries=queries,
        return_weight=torch.cat([each.return_weight for each in microbatches]),
        task_weight=torch.cat(weights) if weights else None,
    )
