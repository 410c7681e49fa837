"""Distance-metric learning of the embedding of tasks (FOCAL, Li et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 0.1  # bound of the repulsion where two embeddings are equal


def metric_loss(embedding: Tensor, task: Tensor, repulsion: float) -> Tensor:
    """Return the loss that pulls embeddings of one task together and pushes tasks apart.

    It is the mean of d^2 over the pairs of one task, and `repulsion` times the mean of 1 / (d^2 +
    EPSILON) over the other pairs, where d^2 is the mean squared difference: inverse-power distance
    metric learning (Li et al. 2021, section 4.1) with the power 2.

    Args:
        embedding: (n, Z).
        task: number of the task of each embedding, (n,).
        repulsion: weight of the inverse squared distances between tasks.
    """
    pairs = torch.triu_indices(len(task), len(task), 1, device=task.device)
    one, other = pairs
    distance = (embedding[one] - embedding[other]).square().mean(-1)
    same = task[one] == task[other]
    pull = torch.where(same, distance, 0.0).sum() / same.sum().clamp(min=1)
    push = torch.where(same, 0.0, 1 / (distance + EPSILON)).sum() / (~same).sum().clamp(min=1)
    return pull + repulsion * push


def halves(context: Tensor) -> tuple[Tensor, Tensor]:
    """Return two parts of the context of each task, so that every task has a pair of embeddings.

    Args:
        context: N transitions of each of M tasks, in random order, (M, N, k).

    Returns:
        The parts, (2 M, N // 2, k), and the number of the task of each, (2 M,).
    """
    num_tasks, length = context.shape[:2]
    parts = torch.cat([context[:, : length // 2], context[:, length // 2 : length // 2 * 2]])
    return parts, torch.arange(num_tasks, device=context.device).repeat(2)
