"""Kronecker factors of the Fisher matrix of policies (K-FAC, Martens and Grosse 2015), as the
preconditioner of the natural gradient.

The Fisher matrix of the parameters of one layer is approximated by the Kronecker product A x G
(section 3): A is the covariance of the inputs of the layer, and G the covariance of derivatives
with respect to its outputs, of the directions of the Fisher matrix of the action distribution.
Layers are taken to be independent, and the derivatives of the adaptation are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from metarl.agents.maml.microbatch import MetaMicrobatch
from metarl.core.parallel import MicrobatchPool
from metarl.core.params import Params, concatenate, total, unflatten
from metarl.core.policies import MLPPolicy
from metarl.rollout.failures import NotFinite

STRIDE = 8
"""Every eighth step enters the factors."""
MAX_SIZE = 1024
"""A factor of more rows is replaced by its diagonal, as of inputs that are images."""
LOG_STD_FISHER = 2.0
"""The Fisher matrix of the log standard deviations of a Gaussian is this times the identity."""


@dataclass(frozen=True)
class Factors:
    """The Kronecker factors of parameters that form a matrix (in, out), float64.

    Attributes:
        inputs: A, (in, in), or its diagonal, (in,).
        outputs: G, (out, out), or its diagonal, (out,).
    """

    inputs: Tensor
    outputs: Tensor

    def inverse(self, damping: float) -> Factors:
        """Return the inverse of both factors, with damping.

        (A + pi sqrt(damping) I) x (G + sqrt(damping) / pi I) replaces A x G + damping I, where pi^2
        is the ratio of the mean eigenvalues of A and G (section 6.3).
        """
        diagonals = (each.diagonal() if each.ndim == 2 else each for each in vars(self).values())
        means = [diagonal.mean().clamp(min=1e-30) for diagonal in diagonals]
        ratio, root = torch.sqrt(means[0] / means[1]), damping**0.5
        return Factors(
            damped_inverse(self.inputs, root * ratio), damped_inverse(self.outputs, root / ratio)
        )

    def times(self, matrix: Tensor) -> Tensor:
        """Return the product of A x G and a matrix, (in, out)."""
        return multiplied(self.outputs, multiplied(self.inputs, matrix).T).T


Blocks: TypeAlias = dict[tuple[str, ...], Factors]
"""Factors by the names of the parameters whose rows form the matrix."""


def multiplied(factor: Tensor, matrix: Tensor) -> Tensor:
    """Return the product of a factor, (n, n), or its diagonal, (n,), and a matrix, (n, m)."""
    factor = factor.to(matrix)
    return factor @ matrix if factor.ndim == 2 else factor[:, None] * matrix


def damped_inverse(matrix: Tensor, damping: Tensor) -> Tensor:
    """Return the inverse of a positive semi-definite matrix plus `damping` on its diagonal.

    Args:
        matrix: (n, n); or the diagonal of a diagonal matrix, (n,), as is the result.
        damping: a number, ().

    Raises:
        NotFinite: if that is not positive definite, as the matrix is not finite, or the damping is
            too small for the rounding of its numbers.
    """
    finite = torch.isfinite(matrix).all()
    if matrix.ndim == 1:
        if not bool(finite):
            raise NotFinite("the preconditioner")
        return 1 / (matrix + damping)
    root, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(damping.expand(len(matrix))))
    if not bool((failed == 0) & torch.isfinite(root).all()):  # one number to wait for
        inverse = "the inverse of the preconditioner (a larger preconditioner_damping helps)"
        raise NotFinite(inverse if bool(finite) else "the preconditioner")
    return torch.cholesky_inverse(root)


def covariance(rows: Tensor, weight: Tensor) -> Tensor:
    """Return sum weight row row^T over tasks and steps, (k, k) float64, of rows (b, N, k); its
    diagonal, (k,), if k is more than `MAX_SIZE`."""
    flat = (rows * weight.sqrt()[..., None]).flatten(0, 1)
    if flat.shape[1] > MAX_SIZE:
        return flat.square().sum(0).double()
    return (flat.T @ flat).double()


def output_directions(obs: Tensor, num_outputs: int) -> Tensor:
    """Return one direction of outputs for each observation, (b, N, num_outputs).

    The outputs take turns. Unlike random directions, these do not depend on the other tasks, and
    their mean covariance is the identity without an error of sampling.

    Args:
        obs: (b, N, obs_dim).
        num_outputs: number of outputs of the policy.
    """
    turn = torch.arange(obs.shape[1], device=obs.device) % num_outputs
    each = num_outputs**0.5 * torch.eye(num_outputs, dtype=obs.dtype, device=obs.device)
    return each[turn].expand(len(obs), -1, -1)


def policy_factors(policy: MLPPolicy, params: Params, obs: Tensor, weight: Tensor) -> Blocks:
    """Return the factors of the parameters of a policy, summed over b tasks.

    Args:
        policy: the policy.
        params: the parameters of each task, stacked (b, ...).
        obs: observations, (b, N, obs_dim).
        weight: weight of each observation, (b, N), with the sum 1 for each task, over all queries.
    """
    blocks: Blocks = {}
    inputs = policy.layer_inputs(params, obs)
    one = weight.sum().double().reshape(1, 1)  # covariance of the constant 1
    directions = output_directions(obs, policy.sizes[-1])
    derivative = policy(params, obs).fisher_root(directions)  # (b, N, out)
    for number in reversed(range(policy.num_layers)):
        rows = policy.layer_rows(params, number, inputs[number])
        factors = Factors(
            covariance(torch.cat([*rows.values()], -1), weight), covariance(derivative, weight)
        )
        blocks[tuple(rows)] = factors
        if number:
            slope = policy.activation_slope(inputs[number])
            derivative = slope * (derivative @ params[f"weight{number}"].mT)
    if "input" in params:
        effect = policy.input_effect(params)  # (b, k, units)
        blocks["input",] = Factors(one, covariance(derivative @ effect.mT, weight))
    if "log_std" in params:
        size = params["log_std"].shape[-1]
        blocks["log_std",] = Factors(one, LOG_STD_FISHER * one * torch.eye(size).to(one))
    return blocks


def summed(parts: Sequence[Blocks]) -> Blocks:
    """Return the sums of the factors of the same parameters."""
    return {
        names: Factors(
            total([part[names].inputs for part in parts]),
            total([part[names].outputs for part in parts]),
        )
        for names in parts[0]
    }


class KFACPreconditioner:
    """An approximate inverse of the Fisher matrix of the adapted policies, mean over tasks.

    Parameters that are not the policy's own, such as learned step sizes, are left as they are.
    """

    def __init__(self, blocks: Blocks, num_tasks: int, damping: float, like: Params) -> None:
        """Invert the factors.

        Args:
            blocks: factors, summed over tasks.
            num_tasks: number of these tasks.
            damping: about the constant that is added to the diagonal of the matrix.
            like: the meta-parameters.

        Raises:
            NotFinite: if a factor is not finite.
        """
        self._like = like
        self._inverses = {
            names: Factors(each.inputs / num_tasks, each.outputs / num_tasks).inverse(damping)
            for names, each in blocks.items()
        }

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product of the inverse and a vector, (P,)."""
        params = unflatten(vector, self._like)
        found = dict(params)
        for names, inverse in self._inverses.items():
            rows = [params[name] for name in names]
            product = inverse.times(torch.cat(rows))
            pieces = product.split([len(row) for row in rows])
            found |= dict(zip(names, pieces, strict=True))
        return concatenate(found.values())


def kfac_preconditioner(
    policy: MLPPolicy,
    meta: Params,
    microbatches: Sequence[MetaMicrobatch],
    pool: MicrobatchPool,
    damping: float,
) -> KFACPreconditioner:
    """Return the preconditioner of the policies that adapted to the tasks of a meta-batch.

    Args:
        policy: the policy.
        meta: the meta-parameters.
        microbatches: the tasks, with their queries.
        pool: the threads that process the microbatches.
        damping: as in `KFACPreconditioner`.

    Raises:
        NotFinite: if a factor is not finite.
    """

    @torch.no_grad()
    def work(microbatch: MetaMicrobatch) -> Blocks:
        parts = []
        for query in microbatch.queries:
            batch = query.batch.every(STRIDE)
            weight = query.weight * batch.weight
            parts.append(policy_factors(policy, query.adapted, batch.obs, weight))
        return summed(parts)

    blocks = summed(pool.map(work, microbatches))
    num_tasks = sum(microbatch.num_tasks for microbatch in microbatches)
    return KFACPreconditioner(blocks, num_tasks, damping, meta)
