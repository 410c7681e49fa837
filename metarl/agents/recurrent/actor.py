"""The actor of agents with a recurrent memory in rollouts: float32 NumPy.

B is the number of tasks, E the number of trials of each task, T the horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from metarl.agents.recurrent.actor_critic import ActorCritic
from metarl.agents.recurrent.inputs import InputEncoder
from metarl.agents.recurrent.memory import Memory
from metarl.agents.recurrent.state import TrialState
from metarl.core.actors import check_obs_size

NumPyParams = Mapping[str, np.ndarray]


class RecurrentActor:
    """Plays one episode of each trial, and keeps the memory of the trials while it does.

    Attributes:
        memory: the memory after the steps so far, (B, E, memory_size); that of an episode that has
            ended stays as it is.
    """

    def __init__(
        self,
        memory: Memory,
        head: ActorCritic,
        params: NumPyParams,
        encoder: InputEncoder,
        state: TrialState,
        obs_dim: int,
        features: Callable[[NumPyParams, np.ndarray, np.ndarray], np.ndarray],
        *,
        deterministic: bool,
    ) -> None:
        """Set up the actor.

        Args:
            memory: the memory as a function of its parameters.
            head: the policy.
            params: the parameters of both, float32.
            encoder: makes the inputs of the memory.
            state: the state before the first step.
            obs_dim: size of an observation.
            features: returns the inputs of the policy, (N, head.num_inputs), given the parameters,
                the inputs of the memory at a step, (N, memory.num_inputs), and its output after it,
                (N, memory.output_size).
            deterministic: whether to take the mean or the mode of the distributions.
        """
        self._step, self._head, self._params, self._encoder = memory.step, head, params, encoder
        self._output_size, self._features = memory.output_size, features
        self._obs_dim, self._deterministic = obs_dim, deterministic
        self.memory, self._action = state.memory, state.action
        self._reward, self._anew = state.reward, state.anew
        self._first = True

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return self._head.noise(rng, horizon)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        check_obs_size(obs, self._obs_dim)
        shape = active.shape  # (B, E)
        if self._first:
            # One memory for all trials of a task becomes one for each.
            self.memory = np.broadcast_to(self.memory, (*shape, self.memory.shape[-1]))
            self._action = np.broadcast_to(self._action, (*shape, self._action.shape[-1]))
            last_reward = np.broadcast_to(self._reward, shape)
            anew = np.broadcast_to(self._anew, shape)
        else:
            anew = np.zeros(shape, bool)
        self._first = False
        inputs = self._encoder(obs, self._action, last_reward, anew)
        inputs = inputs.reshape(-1, inputs.shape[-1])
        memory = self._step(self._params, inputs, self.memory.reshape(len(inputs), -1))
        features = self._features(self._params, inputs, memory[:, : self._output_size])
        memory = memory.reshape(*shape, -1)
        ended = not active.all()
        self.memory = np.where(active[..., None], memory, self.memory) if ended else memory
        features = features.reshape(*shape, -1)
        action = self._head.actions(self._params, features, None if self._deterministic else noise)
        self._action = self._encoder.encode_action(action)
        return action
