"""Fisher-vector products through the adaptation, with graphs that are built once."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.agents.maml.microbatch import MetaMicrobatch
from metarl.core.jacobian import Jacobian
from metarl.core.params import Params, concatenate, leaves
from metarl.core.policies import MLPPolicy


class FisherMicrobatch:
    """The contribution of one microbatch of b tasks to the Fisher-vector product.

    KL(old || new) and its gradient are 0 at the old meta-parameters. Its Hessian is therefore
    exactly J^T F J, where J is the Jacobian of the outputs of the adapted policies with respect to
    the meta-parameters, through the adaptation, and F is the Fisher matrix of the action
    distributions with respect to these outputs (Schulman et al. 2015, appendix C, for a policy
    without adaptation).
    """

    def __init__(
        self, policy: MLPPolicy, start: Params, adapted: Params, microbatch: MetaMicrobatch
    ) -> None:
        """Build the graphs.

        Args:
            policy: the policy.
            start: the meta-parameters, leaves of the graph.
            adapted: the adapted parameters in the graph of `start`, stacked (b, ...).
            microbatch: the tasks; F is evaluated on the query batch, at `microbatch.adapted`.
        """
        self._adaptation = Jacobian(list(adapted.values()), list(start.values()))
        # F is evaluated at the parameters adapted by all data, not by the subsampled support batch.
        end = leaves(microbatch.adapted)
        self._policy = policy(end, microbatch.query.obs)
        self._outputs = Jacobian(list(self._policy.outputs), list(end.values()))
        self._weight = microbatch.query.weight

    def product(self, vector: Params) -> Tensor:
        """Return the sum over tasks of J^T F J v, (P,), for v shaped like the meta-parameters."""
        # J = J_outputs J_adaptation, from right to left
        adapted = self._adaptation.jvp(list(vector.values()))
        directions = self._outputs.jvp(adapted)
        with torch.no_grad():
            cotangents = self._policy.fisher_vector_product(directions, self._weight)
        return concatenate(self._adaptation.vjp(self._outputs.vjp(cotangents)))
