"""The meta-objective of MAML, with its gradient and its curvature through the adaptation.

P is the number of meta-parameters, b the number of tasks of a microbatch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metarl.agents.maml.fisher import FisherMicrobatch
from metarl.agents.maml.inner_loop import InnerLoop, Loss
from metarl.agents.maml.kfac import KFACPreconditioner, kfac_preconditioner
from metarl.agents.maml.microbatch import MetaMicrobatch, in_groups, joined, query_kl
from metarl.agents.maml.surrogates import (
    Surrogate,
    emaml_term,
    likelihood_ratio,
    mean_kl,
    policy_loss,
)
from metarl.core.devices import upload
from metarl.core.distributions import Distribution
from metarl.core.parallel import MicrobatchPool, long_lived_memory
from metarl.core.params import Params, flat_gradient, flatten, leaves, total, unflatten
from metarl.core.policies import MLPPolicy
from metarl.rollout.failures import check_finite


@dataclass(frozen=True)
class MetaGradient:
    """Value and gradient of the meta-objective at given meta-parameters.

    Attributes:
        loss: the loss with all its terms, averaged over tasks.
        gradient: the meta-gradient, (P,).
        kl: mean KL(old || new) of the adapted policies, in nats; of several queries, by weights.
        inner_kl: mean KL(old || new) of the policies before each adaptation step, in nats, summed
            over the steps; 0 if the objective does not depend on these policies.
    """

    loss: float
    gradient: Tensor
    kl: float
    inner_kl: float


class MetaObjective:
    """The mean over tasks of a surrogate loss after adaptation, as a function of meta-parameters.

    This is the objective of the meta-update of Finn et al. 2017, equation 1. At given
    meta-parameters the adaptation is repeated on the stored support batches (algorithm 3). In
    training on sequences of tasks, the loss of a sequence is the weighted sum over its queries.
    Losses are multiplied by the weights of the tasks, if they have any; KL divergences and
    curvature are means over all tasks.

    Attributes:
        policy, inner_loop, surrogate: those of the adaptation.
        meta: the old meta-parameters, which played the support batches.
        vector: the old meta-parameters as a vector, (P,).
    """

    def __init__(
        self,
        policy: MLPPolicy,
        inner_loop: InnerLoop,
        surrogate: Surrogate,
        meta: Params,
        microbatches: Sequence[MetaMicrobatch],
        pool: MicrobatchPool,
        *,
        emaml_weight: float = 0.0,
        pre_adaptation_weight: float = 0.0,
        whole_episodes: bool = False,
    ) -> None:
        """Set up the objective at the old meta-parameters.

        Args:
            policy, inner_loop, surrogate: policy, inner loop and inner surrogate of the adaptation.
            meta: the old meta-parameters.
            microbatches: the microbatches of the meta-batch.
            pool: the threads that process the microbatches.
            emaml_weight: weight of the term of E-MAML.
            pre_adaptation_weight: weight of the outer surrogate of the policies before each
                adaptation step.
            whole_episodes: whether the inner surrogate needs whole episodes.
        """
        self.policy, self.inner_loop, self.surrogate = policy, inner_loop, surrogate
        self.meta, self.vector = meta, flatten(meta)
        self._pool, self._microbatches = pool, list(microbatches)
        self._emaml_weight, self._pre_adaptation_weight = emaml_weight, pre_adaptation_weight
        self._needs_support = bool(emaml_weight or pre_adaptation_weight)
        self._whole_episodes = whole_episodes
        self._num_tasks = sum(microbatch.num_tasks for microbatch in microbatches)
        self._old: list[list[Distribution]] = []  # `_distributions` of each microbatch

    def _adapt(
        self, meta: Params, microbatch: MetaMicrobatch, *, differentiable: bool
    ) -> list[Params]:
        """Return the policy parameters before, between and after the steps, (b, ...) each."""
        states = self.inner_loop.trajectory(
            meta,
            *self._inner_losses(microbatch),
            rule_losses=[batch.loss for batch in microbatch.support],
            differentiable=differentiable,
            gradients=microbatch.gradients,
        )
        return [self.inner_loop.to_model_params(meta, state) for state in states]

    def _inner_losses(self, microbatch: MetaMicrobatch) -> tuple[list[Loss], int]:
        """Return the loss of each adaptation step, and the number of tasks."""
        support = microbatch.support
        losses = [policy_loss(batch, self.policy, self.surrogate) for batch in support]
        return losses, microbatch.num_tasks

    def _distributions(
        self, trajectory: Sequence[Params], microbatch: MetaMicrobatch, support: bool = False
    ) -> list[Distribution]:
        """Return the action distributions on the query batches, preceded by the action
        distributions on the support batches if `support` is true or the loss needs them."""
        pairs = [(trajectory[query.step], query.batch) for query in microbatch.queries]
        if support or self._needs_support:
            pairs = [*zip(trajectory, microbatch.support, strict=False), *pairs]
        return [self.policy(params, batch.obs) for params, batch in pairs]

    def _loss(
        self, policies: Sequence[Distribution], microbatch: MetaMicrobatch, outer: Surrogate
    ) -> Tensor:
        """Return the loss of each task, (b,), times its weight."""
        queries = microbatch.queries
        measured = zip(policies[-len(queries) :], queries, strict=True)
        loss = total([query.weight * outer(policy, query.batch) for policy, query in measured])
        if not self._needs_support:
            return microbatch.weighted(loss)
        for policy, batch in zip(policies, microbatch.support, strict=False):
            if self._emaml_weight:
                term = emaml_term(policy, batch, microbatch.return_weight)
                loss = loss + self._emaml_weight * term
            if self._pre_adaptation_weight:
                loss = loss + self._pre_adaptation_weight * outer(policy, batch)
        return microbatch.weighted(loss)

    def gradient(
        self,
        vector: Tensor | None = None,
        outer: Surrogate = likelihood_ratio,
        kl_weight: float = 0.0,
        inner_kl_weight: float = 0.0,
    ) -> MetaGradient:
        """Return the loss and its gradient with respect to the meta-parameters.

        Args:
            vector: the meta-parameters, (P,); None for the old meta-parameters.
            outer: the outer surrogate.
            kl_weight: weight of KL(old || new) of the adapted policies in the loss.
            inner_kl_weight: weight of KL(old || new) of the policies before each adaptation step.

        Raises:
            NotFinite: if the loss, a KL divergence or the gradient is not finite; names the tasks.
        """
        meta = self.meta if vector is None else unflatten(vector, self.meta)

        def work(
            item: tuple[MetaMicrobatch, list[Distribution] | None],
        ) -> tuple[Tensor, Tensor, list[Distribution]]:
            microbatch, old = item
            start = leaves(meta)
            trajectory = self._adapt(start, microbatch, differentiable=True)
            policies = self._distributions(trajectory, microbatch, support=inner_kl_weight > 0)
            if old is None:
                old = [policy.detach() for policy in policies]
            kl = query_kl(old, policies, microbatch)
            inner_kl = torch.zeros_like(kl)
            if self._needs_support or inner_kl_weight > 0:
                support = zip(old, policies, microbatch.support, strict=False)
                for before, policy, batch in support:
                    inner_kl = inner_kl + mean_kl(before, policy, batch.weight)
            loss = self._loss(policies, microbatch, outer)
            # Terms of weight 0 are left out of the graph, to avoid their backward pass.
            for weight, divergence in ((kl_weight, kl), (inner_kl_weight, inner_kl)):
                if weight:
                    loss = loss + weight * divergence
            loss = loss.sum()
            numbers = torch.stack([loss, kl.sum(), inner_kl.sum()]).detach()
            return numbers, flat_gradient(loss, start), old

        known: Sequence[list[Distribution] | None]
        if vector is None:
            known = [None] * len(self._microbatches)  # `work` computes the old distributions
        else:
            known = self._old_policies(inner_kl_weight > 0)
        results = self._pool.map(work, list(zip(self._microbatches, known, strict=True)))
        self._old = [old for _, _, old in results]
        numbers, gradients = [n for n, _, _ in results], [g for _, g, _ in results]
        mean, gradient = total(numbers) / self._num_tasks, total(gradients) / self._num_tasks
        check_finite("the loss or a KL divergence", mean, numbers, self._sizes)
        check_finite("the meta-gradient", gradient, gradients, self._sizes)
        loss, kl, inner_kl = mean.tolist()
        return MetaGradient(loss, gradient, kl, inner_kl)

    @property
    def _sizes(self) -> list[int]:
        return [microbatch.num_tasks for microbatch in self._microbatches]

    def _old_policies(self, support: bool = False) -> list[list[Distribution]]:
        """Return the `_distributions` of each microbatch at the old meta-parameters."""

        @torch.no_grad()
        def work(microbatch: MetaMicrobatch) -> list[Distribution]:
            trajectory = self._adapt(self.meta, microbatch, differentiable=False)
            return self._distributions(trajectory, microbatch, support)

        first = self._microbatches[0]
        wanted = len(first.queries) + len(first.support) if support else len(first.queries)
        if not self._old or len(self._old[0]) < wanted:
            self._old = self._pool.map(work, self._microbatches)
        return self._old

    def with_constant_gradients(self) -> MetaObjective:
        """Return the objective whose adaptation takes, at all meta-parameters, the inner gradients
        at the old ones: those of the adaptation that was played."""

        def work(microbatch: MetaMicrobatch) -> MetaMicrobatch:
            rule_losses = [batch.loss for batch in microbatch.support]
            losses = self._inner_losses(microbatch)
            found = self.inner_loop.gradients(self.meta, *losses, rule_losses=rule_losses)
            return replace(microbatch, gradients=tuple(found))

        objective = copy.copy(self)
        objective._microbatches = self._pool.map(work, self._microbatches)
        return objective

    @property
    def num_episodes(self) -> int:
        """Number of query episodes of each task."""
        return self._microbatches[0].queries[0].batch.num_episodes

    def of_episodes(self, indices: np.ndarray, *, support: bool = False) -> MetaObjective:
        """Return the objective that measures some of the query episodes of each task.

        Args:
            indices: of the episodes, (n,).
            support: whether its gradient needs the old policies on the support batches.
        """
        part = copy.copy(self)
        old = self._old_policies(support)
        chosen = upload(indices, self.vector.device)
        part._microbatches = [each.of_episodes(chosen) for each in self._microbatches]
        part._old = [
            each.policies_of_episodes(chosen, policies)
            for each, policies in zip(self._microbatches, old, strict=True)
        ]
        return part

    def loss_and_kl(self, vector: Tensor) -> tuple[float, float]:
        """Return the loss and KL(old || new) of the adapted policies, at meta-parameters (P,).

        The loss is the likelihood-ratio surrogate, without KL penalties.
        """
        meta = unflatten(vector, self.meta)

        def work(item: tuple[MetaMicrobatch, list[Distribution]]) -> Tensor:
            microbatch, old = item
            trajectory = self._adapt(meta, microbatch, differentiable=False)
            with torch.no_grad():
                policies = self._distributions(trajectory, microbatch)
                loss = self._loss(policies, microbatch, likelihood_ratio).sum()
                kl = query_kl(old, policies, microbatch).sum()
                return torch.stack([loss, kl])

        pairs = list(zip(self._microbatches, self._old_policies(), strict=True))
        loss, kl = (total(self._pool.map(work, pairs)) / self._num_tasks).tolist()
        return loss, kl

    def mean_over_tasks(self, work: Callable[[MetaMicrobatch], Tensor], what: str) -> Tensor:
        """Return the mean over tasks of a vector.

        Args:
            work: returns the sum of the vectors of the tasks of a microbatch.
            what: name of the vector in the error message.

        Raises:
            NotFinite: if the mean is not finite; names the tasks.
        """
        sums = self._pool.map(work, self._microbatches)
        mean = total(sums) / self._num_tasks
        check_finite(what, mean, sums, self._sizes)
        return mean

    def kfac_preconditioner(self, damping: float) -> KFACPreconditioner:
        """Return an approximate inverse of the matrix of `fisher_vector_product`; see
        `metarl.agents.maml.kfac.kfac_preconditioner`.

        Raises:
            NotFinite: if a factor is not finite.
        """
        return kfac_preconditioner(self.policy, self.meta, self._microbatches, self._pool, damping)

    def fisher_vector_product(
        self, fraction: float = 1.0, jacobian_fraction: float = 1.0
    ) -> Callable[[Tensor], Tensor]:
        """Return the function v -> J^T F J v, from (P,) to (P,): the product of v and the Hessian
        of the mean KL divergence at the old meta-parameters; see `FisherMicrobatch`.

        Args:
            fraction: fraction of the steps of the query batches that F uses.
            jacobian_fraction: fraction of the steps (or episodes) of the support batches that J
                uses.
        """
        stride, jacobian_stride = round(1 / fraction), round(1 / jacobian_fraction)

        def build(group: Sequence[MetaMicrobatch]) -> FisherMicrobatch:
            few = joined(
                [each.every(jacobian_stride, stride, self._whole_episodes) for each in group]
            )
            start = leaves(self.meta)
            trajectory = self._adapt(start, few, differentiable=True)
            return FisherMicrobatch(self.policy, start, trajectory, few.queries)

        with long_lived_memory():
            groups = in_groups(self._microbatches, jacobian_stride)
            parts = self._pool.map(build, groups)

        def product(vector: Tensor) -> Tensor:
            params = unflatten(vector, self.meta)
            products = self._pool.map(lambda part: part.product(params), parts)
            return total(products) / self._num_tasks

        return product
