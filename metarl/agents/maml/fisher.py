"""Fisher-vector products through the adaptation, with graphs that are built once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from metarl.agents.maml.microbatch import Query
from metarl.core.jacobian import Jacobian
from metarl.core.params import Params, concatenate, leaves
from metarl.core.policies import MLPPolicy


class FisherMicrobatch:
    """The contribution of one microbatch of b tasks to the Fisher-vector product.

    KL(old || new) and its gradient are 0 at the old meta-parameters. Its Hessian is therefore
    exactly J^T F J, where J is the Jacobian of the outputs of the adapted policies with respect to
    the meta-parameters, through the adaptation, and F is the Fisher matrix of the action
    distributions with respect to these outputs (Schulman et al. 2015, appendix C, for a policy
    without adaptation). Several queries add up by their weights.
    """

    def __init__(
        self,
        policy: MLPPolicy,
        start: Params,
        trajectory: Sequence[Params],
        queries: Sequence[Query],
    ) -> None:
        """Build the graphs.

        Args:
            policy: the policy.
            start: the meta-parameters, leaves of the graph.
            trajectory: the policy parameters before, between and after the adaptation steps, in the
                graph of `start`, stacked (b, ...).
            queries: the queries; F is evaluated on their batches, at the parameters that played.
        """
        adapted = [value for query in queries for value in trajectory[query.step].values()]
        self._adaptation = Jacobian(adapted, list(start.values()))
        # F is evaluated at the parameters adapted by all data, not by the subsampled support batch.
        ends = [leaves(query.adapted) for query in queries]
        self._policies = [
            policy(end, query.batch.obs) for end, query in zip(ends, queries, strict=True)
        ]
        self._outputs = Jacobian(
            [output for each in self._policies for output in each.outputs],
            [value for end in ends for value in end.values()],
        )
        self._weights = [query.weight * query.batch.weight for query in queries]

    def product(self, vector: Params) -> Tensor:
        """Return the sum over tasks of J^T F J v, (P,), for v shaped like the meta-parameters."""
        # J = J_outputs J_adaptation, from right to left
        adapted = self._adaptation.jvp(list(vector.values()))
        directions = iter(self._outputs.jvp(adapted))
        with torch.no_grad():
            cotangents = [
                cotangent
                for policy, weight in zip(self._policies, self._weights, strict=True)
                for cotangent in policy.fisher_vector_product(
                    tuple(islice(directions, len(policy.outputs))), weight
                )
            ]
        return concatenate(self._adaptation.vjp(self._outputs.vjp(cotangents)))
