"""The meta-objective of MAML, its gradient and its curvature, through the adaptation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarl.agents.maml.fisher import FisherMicrobatch
from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.microbatch import MetaMicrobatch
from metarl.agents.maml.surrogates import (
    Surrogate,
    emaml_term,
    likelihood_ratio,
    mean_kl,
    policy_loss,
)
from metarl.core.distributions import Distribution
from metarl.core.parallel import MicrobatchPool, long_lived_memory
from metarl.core.params import Params, concatenate, flatten, leaves, total, unflatten
from metarl.core.policies import MLPPolicy
from metarl.rollout.failures import check_finite


@dataclass(frozen=True)
class MetaGradient:
    """The meta-objective at some meta-parameters.

    Attributes:
        loss: with all its terms.
        gradient: (P,).
        kl: KL(old || new) of the adapted policies.
        inner_kl: KL(old || new) of the policies before each adaptation step, summed over the
            steps; 0 where the objective does not depend on these policies.
    """

    loss: float
    gradient: Tensor
    kl: float
    inner_kl: float


class MetaObjective:
    """The mean over tasks of a surrogate after adaptation, as a function of the meta-parameters.

    The adaptation is done over, on the support batches that it was first done with, from whatever
    meta-parameters are asked for (Finn et al. 2017, algorithm 3).

    Attributes:
        meta: the old meta-parameters, from which the microbatches were adapted.
        vector: the same as a vector, (P,).
    """

    def __init__(
        self,
        policy: MLPPolicy,
        inner: InnerLoop,
        surrogate: Surrogate,
        meta: Params,
        microbatches: Sequence[MetaMicrobatch],
        pool: MicrobatchPool,
        *,
        emaml_weight: float = 0.0,
        pre_adaptation_weight: float = 0.0,
        whole_episodes: bool = False,
    ) -> None:
        """Set the objective up around the old meta-parameters.

        Args:
            policy, inner, surrogate: how the adaptation was done.
            meta: the old meta-parameters.
            microbatches: of the meta-batch.
            pool: works on the microbatches.
            emaml_weight: of E-MAML's term.
            pre_adaptation_weight: of the outer surrogate of the policies before each adaptation
                step.
            whole_episodes: whether the inner surrogate needs whole episodes.
        """
        self._policy, self._inner, self._surrogate = policy, inner, surrogate
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
        """Return the policy's parameters before, between and after the steps, (b, ...) each."""
        states = self._inner.trajectory(
            meta,
            [policy_loss(batch, self._policy, self._surrogate) for batch in microbatch.support],
            microbatch.num_tasks,
            rule_losses=[batch.loss for batch in microbatch.support],
            differentiable=differentiable,
        )
        return [self._inner.to_model_params(meta, state) for state in states]

    def _distributions(
        self, trajectory: Sequence[Params], microbatch: MetaMicrobatch, support: bool = False
    ) -> list[Distribution]:
        """Return the policies on their own batches: on the query batch, last, and, if asked for or
        needed, on the support batches."""
        pairs = list(zip(trajectory, (*microbatch.support, microbatch.query), strict=True))
        needed = pairs if support or self._needs_support else pairs[-1:]
        return [self._policy(params, batch.obs) for params, batch in needed]

    def _loss(
        self, policies: Sequence[Distribution], microbatch: MetaMicrobatch, outer: Surrogate
    ) -> Tensor:
        """Return the loss of each task, (b,)."""
        loss = outer(policies[-1], microbatch.query)
        if not self._needs_support:
            return loss
        for policy, batch in zip(policies[:-1], microbatch.support, strict=True):
            if self._emaml_weight:
                term = emaml_term(policy, batch, microbatch.return_weight)
                loss = loss + self._emaml_weight * term
            if self._pre_adaptation_weight:
                loss = loss + self._pre_adaptation_weight * outer(policy, batch)
        return loss

    def gradient(
        self,
        vector: Tensor | None = None,
        outer: Surrogate = likelihood_ratio,
        kl_weight: float = 0.0,
        inner_kl_weight: float = 0.0,
    ) -> MetaGradient:
        """Return the loss and its gradient with respect to the meta-parameters.

        Args:
            vector: the meta-parameters, (P,); None for the old ones.
            outer: the surrogate after adaptation.
            kl_weight: weight of KL(old || new) of the adapted policies in the loss.
            inner_kl_weight: weight of KL(old || new) of the policies before each adaptation step.

        Raises:
            NotFinite: if the loss or its gradient is not, with the tasks where it is not.
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
            kl = mean_kl(old[-1], policies[-1], microbatch.query.weight)
            inner_kl = torch.zeros_like(kl)
            support = zip(old[:-1], policies[:-1], microbatch.support, strict=False)
            for before, policy, batch in support:
                inner_kl = inner_kl + mean_kl(before, policy, batch.weight)
            loss = self._loss(policies, microbatch, outer)
            # A term without weight is kept out of the graph, which costs a backward pass.
            for weight, divergence in ((kl_weight, kl), (inner_kl_weight, inner_kl)):
                if weight:
                    loss = loss + weight * divergence
            loss = loss.sum()
            gradient = torch.autograd.grad(loss, list(start.values()), materialize_grads=True)
            numbers = torch.stack([loss, kl.sum(), inner_kl.sum()]).detach()
            return numbers, concatenate(gradient), old

        known: Sequence[list[Distribution] | None]
        if vector is None:
            known = [None] * len(self._microbatches)  # computed on the way, as `old`
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
        """Return `_distributions` at the old meta-parameters, of each microbatch."""

        @torch.no_grad()
        def work(microbatch: MetaMicrobatch) -> list[Distribution]:
            trajectory = self._adapt(self.meta, microbatch, differentiable=False)
            return self._distributions(trajectory, microbatch, support)

        wanted = len(self._microbatches[0].support) + 1 if support else 1
        if not self._old or len(self._old[0]) < wanted:
            self._old = self._pool.map(work, self._microbatches)
        return self._old

    def loss_and_kl(self, vector: Tensor) -> tuple[float, float]:
        """Return loss and KL(old || new) of the adapted policies at meta-parameters (P,)."""
        meta = unflatten(vector, self.meta)

        def work(item: tuple[MetaMicrobatch, list[Distribution]]) -> Tensor:
            microbatch, old = item
            trajectory = self._adapt(meta, microbatch, differentiable=False)
            with torch.no_grad():
                policies = self._distributions(trajectory, microbatch)
                loss = self._loss(policies, microbatch, likelihood_ratio).sum()
                kl = mean_kl(old[-1], policies[-1], microbatch.query.weight).sum()
                return torch.stack([loss, kl])

        pairs = list(zip(self._microbatches, self._old_policies(), strict=True))
        loss, kl = (total(self._pool.map(work, pairs)) / self._num_tasks).tolist()
        return loss, kl

    def reptile_direction(self) -> Tensor:
        """Return the mean over tasks of adapted minus initial parameters after one further step on
        the query batch, (P,).

        Nothing is differentiated (Reptile, Nichol et al. 2018, algorithm 2). All parameters adapt.

        Raises:
            NotFinite: if it is not.
        """

        def work(microbatch: MetaMicrobatch) -> Tensor:
            batch = microbatch.query
            loss = policy_loss(batch, self._policy, self._surrogate)
            state = self._inner.step(self.meta, microbatch.inner, loss, rule_loss=batch.loss)
            return concatenate(
                (state.fast_params[name] - value).sum(0) for name, value in self.meta.items()
            )

        directions = self._pool.map(work, self._microbatches)
        direction = total(directions) / self._num_tasks
        check_finite("the direction of Reptile", direction, directions, self._sizes)
        return direction

    def fisher_vector_product(
        self, fraction: float = 1.0, jacobian_fraction: float = 1.0
    ) -> Callable[[Tensor], Tensor]:
        """Return v -> J^T F J v, the Hessian of the mean KL at the old meta-parameters times v.

        `FisherMicrobatch` says what F and J are. v and the product are (P,).

        Args:
            fraction: the share of the steps after adaptation that F uses.
            jacobian_fraction: the share of the steps (or episodes) before it that J uses.
        """
        stride, jacobian_stride = round(1 / fraction), round(1 / jacobian_fraction)

        def build(microbatch: MetaMicrobatch) -> FisherMicrobatch:
            thinned = replace(
                microbatch,
                support=tuple(
                    batch.every(jacobian_stride, self._whole_episodes)
                    for batch in microbatch.support
                ),
                query=microbatch.query.every(stride),
            )
            start = leaves(self.meta)
            adapted = self._adapt(start, thinned, differentiable=True)[-1]
            return FisherMicrobatch(self._policy, start, adapted, thinned)

        with long_lived_memory():
            parts = self._pool.map(build, self._microbatches)

        def product(vector: Tensor) -> Tensor:
            params = unflatten(vector, self.meta)
            products = self._pool.map(lambda part: part.product(params), parts)
            return total(products) / self._num_tasks

        return product
