"""The policy of an agent with a recurrent memory, adapted to one task, as a torch module."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agents.moments import LIMIT, Moments
from metarl.agents.recurrent.inputs import InputEncoder
from metarl.agents.recurrent.state import TrialState
from metarl.core.policy_module import Normalize, PolicyModule, PolicyStep


class RecurrentModule(PolicyModule):
    """Goes on from the memory of a trial. The state, (n, 1 + memory size + k), is whether the
    episode has begun, the memory, and the last action as a part of inputs, (n, k)."""

    uses_reward = True
    memory: Tensor
    action: Tensor
    reward: Tensor
    anew: Tensor

    def __init__(
        self,
        cell: nn.GRUCell | nn.LSTMCell,
        head: PolicyModule,
        encoder: InputEncoder,
        start: TrialState,
        obs_dim: int,
        context: nn.Module | None,
    ) -> None:
        """Set up the policy.

        Args:
            cell: the recurrent cell.
            head: the policy of its output, or of observation and context.
            encoder: makes the inputs of the cell.
            start: the state of one trial, with which each episode begins.
            obs_dim: size of an observation.
            context: what the policy sees beside the observation, as a function of the cell's
                output; None if it sees this output alone.
        """
        super().__init__(obs_dim, head.noise_size, discrete=head.discrete)
        self.cell, self.head, self.context = cell, head, context
        self.normalize_obs = normalization(encoder.obs)
        self.normalize_reward = normalization(encoder.reward, shift=False)
        for name in ("memory", "action", "reward", "anew"):
            self.constant(name, getattr(start, name)[0, 0].reshape(-1))
        self.state_size = 1 + len(self.memory) + len(self.action)

    def forward(
        self,
        obs: Tensor,
        noise: Tensor | None = None,
        reward: Tensor | None = None,
        state: Tensor | None = None,
    ) -> PolicyStep:
        if state is None:
            state = obs.new_zeros(obs.shape[0], self.state_size)
            reward = obs.new_zeros(obs.shape[0])
        if reward is None:
            raise ValueError("reward: expected the reward of the last step, which memory needs")
        begun, memory, action = state.split((1, len(self.memory), len(self.action)), -1)
        begun = begun > 0
        memory = torch.where(begun, memory, self.memory)
        action = torch.where(begun, action, self.action)
        reward = torch.where(begun, reward[:, None], self.reward)
        anew = torch.where(begun, 0.0, self.anew)
        obs = self.normalize_obs(obs)
        inputs = torch.cat([obs, action, self.normalize_reward(reward), anew], -1)
        if isinstance(self.cell, nn.GRUCell):
            memory = output = self.cell(inputs, memory)
        else:
            output, cell_state = self.cell(inputs, memory.chunk(2, -1))
            memory = torch.cat([output, cell_state], -1)
        if self.context is not None:
            output = torch.cat([obs, self.context(output)], -1)
        step = self.head(output, noise)
        last = step.action
        if self.discrete:
            last = (last == torch.arange(len(self.action))).float()
        state = torch.cat([torch.ones_like(begun, dtype=torch.float32), memory, last], -1)
        return step._replace(state=state)


def normalization(moments: Moments | None, *, shift: bool = True) -> nn.Module:
    """Return `Moments.normalise` as a module; the identity for None."""
    if moments is None:
        return nn.Identity()
    if shift:
        return Normalize(moments.mean, moments.std, LIMIT)
    return Normalize(np.zeros_like(moments.mean), moments.std, LIMIT, moments.mean / moments.std)
