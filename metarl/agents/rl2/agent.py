"""The agent of RL2 (Duan et al. 2016; Wang et al. 2016): a recurrent policy whose memory goes on
over the episodes of a trial."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import nn

from metarl.agents.recurrent.actor import NumPyParams
from metarl.agents.recurrent.agent import TrialAgent
from metarl.agents.recurrent.hypernetwork import HyperActorCritic


class RL2Agent(TrialAgent):
    """Adapts by the memory of a recurrent policy, which PPO trains as a whole: the policy's inputs
    are the memory's output, or this output generates the policy's weights; and the gradient goes
    back through all steps of a trial."""

    @property
    def _features(self) -> Callable[[NumPyParams, np.ndarray, np.ndarray], np.ndarray]:
        obs_dim = self._obs_dim if isinstance(self._head, HyperActorCritic) else 0
        return partial(policy_inputs, obs_dim)

    def _context_module(self, params: NumPyParams) -> nn.Module | None:
        return nn.Identity() if isinstance(self._head, HyperActorCritic) else None


def policy_inputs(
    obs_dim: int, params: NumPyParams, inputs: np.ndarray, output: np.ndarray
) -> np.ndarray:
    """Return the first `obs_dim` numbers of the inputs, (N, num_inputs), and the output of the
    memory, (N, H)."""
    return np.concatenate([inputs[:, :obs_dim], output], axis=1) if obs_dim else output
