"""The meta-objective of MAML, its gradient and its curvature, through the adaptation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarl.agents.maml.batch import Experience
from metarl.agents.maml.inner_loop import InnerLoop, TaskState
from metarl.agents.maml.surrogates import Surrogate, exploration, likelihood_ratio, loss_on, mean_kl
from metarl.core.distributions import Distribution
from metarl.core.jacobian import LinearMap
from metarl.core.parallel import ChunkPool, long_lived_memory
from metarl.core.params import Params, concatenate, flatten, leaves, total, unflatten
from metarl.core.policies import MLPPolicy
from metarl.rollout.failures import check_finite


@dataclass(frozen=True)
class MetaChunk:
    """Some tasks of a meta-batch: what adapted them, where it led, and what they then played.

    Attributes:
        trail: the experience of each adaptation step.
        task: where the adaptation led, of b tasks.
        adapted: the policy's parameters there, stacked (b, ...).
        after: the experience played by the adapted parameters.
        score: how good their returns are among those of the meta-batch, (b,).
    """

    trail: tuple[Experience, ...]
    task: TaskState
    adapted: Params
    after: Experience
    score: Tensor

    @property
    def num_tasks(self) -> int:
        return len(self.after.obs)


@dataclass(frozen=True)
class MetaGradient:
    """The meta-objective at some meta-parameters.

    Attributes:
        loss: with all its terms.
        gradient: (P,).
        kl: KL(old || new) of the adapted policies.
        start_kl: the same of the policies before each adaptation step, summed over the steps; 0
            where the objective does not look at them.
    """

    loss: float
    gradient: Tensor
    kl: float
    start_kl: float


class MetaObjective:
    """The mean over tasks of a surrogate after adaptation, as a function of the meta-parameters.

    The adaptation is done over, from the experience it was first done with, at whatever
    meta-parameters are asked for (Finn et al. 2017, algorithm 3).

    Attributes:
        meta: the old meta-parameters, from which the chunks were adapted.
        vector: the same as a vector, (P,).
    """

    def __init__(
        self,
        policy: MLPPolicy,
        inner: InnerLoop,
        surrogate: Surrogate,
        meta: Params,
        chunks: Sequence[MetaChunk],
        pool: ChunkPool,
        *,
        exploration_weight: float = 0.0,
        start_weight: float = 0.0,
        whole_episodes: bool = False,
    ) -> None:
        """Set the objective up around the old meta-parameters.

        Args:
            policy, inner, surrogate: how the adaptation was done.
            meta: the old meta-parameters.
            chunks: of the meta-batch.
            pool: works on the chunks.
            exploration_weight: of E-MAML's term.
            start_weight: of the outer surrogate of the policies before each adaptation step.
            whole_episodes: whether the surrogate needs them.
        """
        self._policy, self._inner, self._surrogate = policy, inner, surrogate
        self.meta, self.vector = meta, flatten(meta)
        self._pool, self._chunks = pool, list(chunks)
        self._exploration, self._start_weight = exploration_weight, start_weight
        self._looks_back = bool(exploration_weight or start_weight)
        self._whole_episodes = whole_episodes
        self._num_tasks = sum(chunk.num_tasks for chunk in chunks)
        self._old: list[list[Distribution]] = []  # what `_played` gave, of each chunk

    def _stages(self, meta: Params, chunk: MetaChunk, differentiable: bool) -> list[Params]:
        """Adapt, and return the policy's parameters before, between and after the steps."""
        losses = [loss_on(played, self._policy, self._surrogate) for played in chunk.trail]
        stages = self._inner.stages(meta, losses, chunk.num_tasks, differentiable=differentiable)
        return [self._inner.params(meta, stage) for stage in stages]

    def _played(
        self, stages: Sequence[Params], chunk: MetaChunk, trail: bool = False
    ) -> list[Distribution]:
        """Return policies at what they played: the adapted ones, last, and all others if needed."""
        pairs = list(zip(stages, (*chunk.trail, chunk.after), strict=True))
        needed = pairs if trail or self._looks_back else pairs[-1:]
        return [self._policy(params, experience.obs) for params, experience in needed]

    def _loss(self, policies: Sequence[Distribution], chunk: MetaChunk, outer: Surrogate) -> Tensor:
        """Return the loss of each task, (b,)."""
        loss = outer(policies[-1], chunk.after)
        if not self._looks_back:
            return loss
        for policy, experience in zip(policies[:-1], chunk.trail, strict=True):
            if self._exploration:
                loss = loss + self._exploration * exploration(policy, experience, chunk.score)
            if self._start_weight:
                loss = loss + self._start_weight * outer(policy, experience)
        return loss

    def gradient(
        self,
        vector: Tensor | None = None,
        outer: Surrogate = likelihood_ratio,
        kl_weight: float = 0.0,
        start_kl_weight: float = 0.0,
    ) -> MetaGradient:
        """Return the loss and its gradient with respect to the meta-parameters.

        Args:
            vector: the meta-parameters, (P,); None for the old ones.
            outer: the surrogate after adaptation.
            kl_weight: of KL(old || new) of the adapted policies, added to the loss.
            start_kl_weight: of the same of the policies before each adaptation step.

        Raises:
            NotFinite: if the loss or its gradient is not, with the tasks where it is not.
        """
        meta = self.meta if vector is None else unflatten(vector, self.meta)

        def work(
            item: tuple[MetaChunk, list[Distribution] | None],
        ) -> tuple[Tensor, Tensor, list[Distribution]]:
            chunk, old = item
            start = leaves(meta)
            stages = self._stages(start, chunk, differentiable=True)
            policies = self._played(stages, chunk, trail=start_kl_weight > 0)
            if old is None:
                old = [policy.detach() for policy in policies]
            kl = mean_kl(old[-1], policies[-1], chunk.after.weight)
            start_kl = torch.zeros_like(kl)
            for before, policy, played in zip(old[:-1], policies[:-1], chunk.trail, strict=False):
                start_kl = start_kl + mean_kl(before, policy, played.weight)
            loss = self._loss(policies, chunk, outer)
            # What has no weight is kept out of the graph, which costs a backward pass.
            for weight, divergence in ((kl_weight, kl), (start_kl_weight, start_kl)):
                if weight:
                    loss = loss + weight * divergence
            loss = loss.sum()
            gradient = torch.autograd.grad(loss, list(start.values()), materialize_grads=True)
            numbers = torch.stack([loss, kl.sum(), start_kl.sum()]).detach()
            return numbers, concatenate(gradient), old

        known: Sequence[list[Distribution] | None]
        if vector is None:
            known = [None] * len(self._chunks)  # a by-product of what follows
        else:
            known = self._old_policies(start_kl_weight > 0)
        results = self._pool.map(work, list(zip(self._chunks, known, strict=True)))
        self._old = [old for _, _, old in results]
        numbers, gradients = [n for n, _, _ in results], [g for _, g, _ in results]
        mean, gradient = total(numbers) / self._num_tasks, total(gradients) / self._num_tasks
        sizes = [chunk.num_tasks for chunk in self._chunks]
        check_finite("the loss or a KL divergence", mean, numbers, sizes)
        check_finite("the meta-gradient", gradient, gradients, sizes)
        loss, kl, start_kl = mean.tolist()
        return MetaGradient(loss, gradient, kl, start_kl)

    def _old_policies(self, trail: bool = False) -> list[list[Distribution]]:
        """Return what `_played` gives at the old meta-parameters, of each chunk."""

        @torch.no_grad()
        def work(chunk: MetaChunk) -> list[Distribution]:
            stages = self._stages(self.meta, chunk, differentiable=False)
            return self._played(stages, chunk, trail)

        wanted = len(self._chunks[0].trail) + 1 if trail else 1
        if not self._old or len(self._old[0]) < wanted:
            self._old = self._pool.map(work, self._chunks)
        return self._old

    def evaluate(self, vector: Tensor) -> tuple[float, float]:
        """Return loss and KL(old || new) of the adapted policies at meta-parameters (P,)."""
        meta = unflatten(vector, self.meta)

        def work(item: tuple[MetaChunk, list[Distribution]]) -> Tensor:
            chunk, old = item
            stages = self._stages(meta, chunk, differentiable=False)
            with torch.no_grad():
                policies = self._played(stages, chunk)
                loss = self._loss(policies, chunk, likelihood_ratio).sum()
                kl = mean_kl(old[-1], policies[-1], chunk.after.weight).sum()
                return torch.stack([loss, kl])

        pairs = list(zip(self._chunks, self._old_policies(), strict=True))
        loss, kl = (total(self._pool.map(work, pairs)) / self._num_tasks).tolist()
        return loss, kl

    def displacement(self) -> Tensor:
        """Return how far a further step on the data after adaptation is from the start, (P,).

        The mean over tasks of adapted less old parameters, nothing differentiated (Reptile, Nichol
        et al. 2018, algorithm 2). Where all parameters adapt.

        Raises:
            NotFinite: if it is not.
        """

        def work(chunk: MetaChunk) -> Tensor:
            loss = loss_on(chunk.after, self._policy, self._surrogate)
            moved = self._inner.step(self.meta, chunk.task, loss).variables
            return concatenate((moved[name] - value).sum(0) for name, value in self.meta.items())

        ways = self._pool.map(work, self._chunks)
        way = total(ways) / self._num_tasks
        check_finite("the way", way, ways, [chunk.num_tasks for chunk in self._chunks])
        return way

    def fisher(
        self, fraction: float = 1.0, jacobian_fraction: float = 1.0
    ) -> Callable[[Tensor], Tensor]:
        """Return v -> F v, the Hessian of the mean KL at the old meta-parameters times v, (P,).

        KL(old || new) and its gradient vanish at the old parameters, so its Hessian is exactly
        J^T F J with J the Jacobian of the adapted policies' outputs with respect to the
        meta-parameters, through the adaptation, and F the Fisher matrix of the distributions.

        Args:
            fraction: the share of the steps after adaptation that F uses.
            jacobian_fraction: the share of the steps (or episodes) before it that J uses.
        """
        stride, jacobian_stride = round(1 / fraction), round(1 / jacobian_fraction)

        def build(chunk: MetaChunk) -> FisherChunk:
            thin = replace(
                chunk,
                trail=tuple(
                    experience.every(jacobian_stride, self._whole_episodes)
                    for experience in chunk.trail
                ),
                after=chunk.after.every(stride),
            )
            start = leaves(self.meta)
            adapted = self._stages(start, thin, differentiable=True)[-1]
            return FisherChunk(self._policy, start, adapted, thin)

        with long_lived_memory():
            parts = self._pool.map(build, self._chunks)

        def product(vector: Tensor) -> Tensor:
            tangent = unflatten(vector, self.meta)
            products = self._pool.map(lambda part: part.product(tangent), parts)
            return total(products) / self._num_tasks

        return product


class FisherChunk:
    """One chunk's part of the Fisher-vector product, over graphs that are built once."""

    def __init__(self, policy: MLPPolicy, start: Params, adapted: Params, chunk: MetaChunk) -> None:
        self._adaptation = LinearMap(list(adapted.values()), list(start.values()))
        # The Fisher matrix is taken at the parameters that all the data led to.
        end = leaves(chunk.adapted)
        self._policy = policy(end, chunk.after.obs)
        self._outputs = LinearMap(list(self._policy.outputs), list(end.values()))
        self._weight = chunk.after.weight

    def product(self, tangent: Params) -> Tensor:
        """Return the sum over the chunk's tasks of F v, (P,)."""
        adapted = self._adaptation.pushforward(list(tangent.values()))
        directions = self._outputs.pushforward(adapted)
        with torch.no_grad():
            cotangents = self._policy.fisher_product(directions, self._weight)
        pulled = self._adaptation.pullback(self._outputs.pullback(cotangents))
        return concatenate(pulled)
