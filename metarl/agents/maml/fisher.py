"""Fisher-vector products through the adaptation, over graphs that are built once."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.agents.maml.microbatch import MetaMicrobatch
from metarl.core.jacobian import Jacobian
from metarl.core.params import Params, concatenate, leaves
from metarl.core.policies import MLPPolicy


class FisherMicrobatch:
    """The part of the Fisher-vector product of some tasks.

    KL(old || new) and its gradient vanish at the old parameters, so its Hessian there is exactly
    J^T F J, with J the Jacobian of the outputs of the adapted policies with respect to the
    meta-parameters, through the adaptation, and F the Fisher matrix of the distributions.
    """

    def __init__(
        self, policy: MLPPolicy, start: Params, adapted: Params, microbatch: MetaMicrobatch
    ) -> None:
        """Build the graphs.

        Args:
            policy: the policy.
            start: the meta-parameters, leaves of the graph.
            adapted: the adapted parameters in the graph of `start`, stacked (b, ...).
            microbatch: its query batch is the data of F, which is taken at `microbatch.adapted`.
        """
        self._adaptation = Jacobian(list(adapted.values()), list(start.values()))
        # The Fisher matrix is taken at the parameters adapted with all the data.
        end = leaves(microbatch.adapted)
        self._policy = policy(end, microbatch.query.obs)
        self._outputs = Jacobian(list(self._policy.outputs), list(end.values()))
        self._weight = microbatch.query.weight

    def product(self, vector: Params) -> Tensor:
        """Return the sum over the tasks of J^T F J v, (P,), for v shaped like the parameters."""
        adapted = self._adaptation.jvp(list(vector.values()))
        directions = self._outputs.jvp(adapted)
        with torch.no_grad():
            cotangents = self._policy.fisher_vector_product(directions, self._weight)
        return concatenate(self._adaptation.vjp(self._outputs.vjp(cotangents)))
