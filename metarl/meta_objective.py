"""The meta-objective of MAML, its gradient and its curvature, through the adaptation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarl.adaptation import InnerConfig, adapt, stack
from metarl.experience import Experience
from metarl.objectives import likelihood_ratio, mean_kl
from metarl.parallel import ChunkPool, long_lived_memory
from metarl.policies import GaussianMLP, Normal, Params, leaves


@dataclass(frozen=True)
class MetaChunk:
    """Some tasks of a meta-batch: what adapted them, where it led, and what they then played.

    Attributes:
        trail: the experience of each adaptation step.
        adapted: the adapted parameters, stacked (b, ...).
        after: the experience played by the adapted parameters.
    """

    trail: tuple[Experience, ...]
    adapted: Params
    after: Experience

    @property
    def num_tasks(self) -> int:
        return len(self.after.obs)


def concatenate(tensors: Iterable[Tensor]) -> Tensor:
    """Put the elements of tensors into one vector, (P,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def flatten(params: Params) -> Tensor:
    """Put parameters into one vector, (P,)."""
    return concatenate(params.values())


def unflatten(vector: Tensor, like: Params) -> Params:
    """Cut a vector, (P,), into the shapes of `like`."""
    pieces = vector.split([value.numel() for value in like.values()])
    return {
        name: piece.view_as(value)
        for (name, value), piece in zip(like.items(), pieces, strict=True)
    }


def total(tensors: Sequence[Tensor]) -> Tensor:
    """Add tensors up in their order, so that the rounding is always the same."""
    return functools.reduce(torch.add, tensors)


class LinearMap:
    """The Jacobian of some outputs with respect to some inputs, at the point of a graph.

    Both products run over graphs that were built once. The product with a tangent differentiates
    the pullback, which is linear in its cotangents, with respect to them.
    """

    def __init__(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        self._outputs, self._inputs = list(outputs), list(inputs)
        self._cotangents = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        self._pullback = torch.autograd.grad(
            self._outputs,
            self._inputs,
            self._cotangents,
            create_graph=True,
            materialize_grads=True,
        )

    def pushforward(self, tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return J @ tangents, shaped like the outputs."""
        return torch.autograd.grad(
            self._pullback,
            self._cotangents,
            tangents,
            retain_graph=True,
            materialize_grads=True,
        )

    def pullback(self, cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return J^T @ cotangents, shaped like the inputs."""
        return torch.autograd.grad(
            self._outputs, self._inputs, cotangents, retain_graph=True, materialize_grads=True
        )


class MetaObjective:
    """The mean over tasks of the surrogate after adaptation, as a function of meta-parameters.

    The adaptation is done over, from the experience it was first done with, at whatever
    meta-parameters are asked for (Finn et al. 2017, algorithm 3).
    """

    def __init__(
        self,
        policy: GaussianMLP,
        inner: InnerConfig,
        params: Params,
        chunks: Sequence[MetaChunk],
        pool: ChunkPool,
    ) -> None:
        """Set the objective up around the meta-parameters that the chunks were adapted from."""
        self._policy, self._inner, self._params, self._pool = policy, inner, params, pool
        self._chunks = list(chunks)
        self._num_tasks = sum(chunk.num_tasks for chunk in chunks)
        self._old: list[Normal] = []

    def _adapted(self, params: Params, chunk: MetaChunk, differentiable: bool) -> Params:
        start = stack(params, chunk.num_tasks)
        return adapt(self._policy, start, chunk.trail, self._inner, differentiable)

    def loss_and_gradient(self) -> tuple[float, Tensor]:
        """Return the loss at the old meta-parameters and its gradient, (P,)."""

        def work(chunk: MetaChunk) -> tuple[Tensor, Tensor, Normal]:
            start = leaves(self._params)
            adapted = self._adapted(start, chunk, differentiable=True)
            new = self._policy(adapted, chunk.after.obs)
            loss = likelihood_ratio(new, chunk.after).sum()
            gradient = torch.autograd.grad(loss, list(start.values()), materialize_grads=True)
            return (
                loss.detach(),
                concatenate(gradient),
                Normal(new.mean.detach(), new.log_std.detach()),
            )

        results = self._pool.map(work, self._chunks)
        self._old = [old for _, _, old in results]
        loss = total([loss for loss, _, _ in results])
        gradient = total([gradient for _, gradient, _ in results])
        return float(loss) / self._num_tasks, gradient / self._num_tasks

    def evaluate(self, vector: Tensor) -> tuple[float, float]:
        """Return loss and KL(old || new) of the adapted policies at meta-parameters (P,).

        The old policies are those that `loss_and_gradient` met.
        """
        params = unflatten(vector, self._params)

        def work(item: tuple[MetaChunk, Normal]) -> tuple[Tensor, Tensor]:
            chunk, old = item
            adapted = self._adapted(params, chunk, differentiable=False)
            with torch.no_grad():
                new = self._policy(adapted, chunk.after.obs)
                loss = likelihood_ratio(new, chunk.after).sum()
                return loss, mean_kl(old, new, chunk.after.weight).sum()

        pairs = list(zip(self._chunks, self._old, strict=True))
        results = self._pool.map(work, pairs)
        loss, kl = total([loss for loss, _ in results]), total([kl for _, kl in results])
        return float(loss) / self._num_tasks, float(kl) / self._num_tasks

    def fisher(
        self, fraction: float = 1.0, jacobian_fraction: float = 1.0
    ) -> Callable[[Tensor], Tensor]:
        """Return v -> F v, the Hessian of the mean KL at the old meta-parameters times v, (P,).

        KL(old || new) and its gradient vanish at the old parameters, so its Hessian is exactly
        J^T F J with J the Jacobian of the adapted policies' means and log stds with respect to the
        meta-parameters, through the adaptation, and F the Fisher matrix of the Gaussians.

        Args:
            fraction: the share of the steps after adaptation that F uses.
            jacobian_fraction: the share of the steps before it that J uses.
        """
        stride, jacobian_stride = round(1 / fraction), round(1 / jacobian_fraction)

        def build(chunk: MetaChunk) -> FisherChunk:
            thin = replace(
                chunk,
                trail=tuple(experience.every(jacobian_stride) for experience in chunk.trail),
                after=chunk.after.every(stride),
            )
            start = leaves(self._params)
            adapted = self._adapted(start, thin, differentiable=True)
            return FisherChunk(self._policy, start, adapted, thin)

        with long_lived_memory():
            parts = self._pool.map(build, self._chunks)

        def product(vector: Tensor) -> Tensor:
            tangent = unflatten(vector, self._params)
            products = self._pool.map(lambda part: part.product(tangent), parts)
            return total(products) / self._num_tasks

        return product


class FisherChunk:
    """One chunk's part of the Fisher-vector product, over graphs that are built once."""

    def __init__(
        self, policy: GaussianMLP, start: Params, adapted: Params, chunk: MetaChunk
    ) -> None:
        self._adaptation = LinearMap(list(adapted.values()), list(start.values()))
        # The Fisher matrix is taken at the parameters that all the data led to.
        end = leaves(chunk.adapted)
        self._normal = policy(end, chunk.after.obs)
        self._outputs = LinearMap([self._normal.mean, self._normal.log_std], list(end.values()))
        self._weight = chunk.after.weight[..., None]

    def product(self, tangent: Params) -> Tensor:
        """Return the sum over the chunk's tasks of F v, (P,)."""
        adapted = self._adaptation.pushforward(list(tangent.values()))
        mean, log_std = self._outputs.pushforward(adapted)
        with torch.no_grad():
            by_mean, by_log_std = self._normal.fisher_product(mean, log_std)
            cotangents = [
                by_mean * self._weight,
                (by_log_std * self._weight).sum(1, keepdim=True),
            ]
        pulled = self._adaptation.pullback(self._outputs.pullback(cotangents))
        return concatenate(pulled)
