"""The actor of RL2 in rollouts: the recurrent network in float32 NumPy.

B is the number of tasks, E the number of trials of each task, T the horizon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from metarl.agents.rl2.inputs import InputEncoder
from metarl.agents.rl2.network import NetworkConfig
from metarl.core.actors import check_obs_size


class RecurrentActor:
    """Plays one episode of each trial, and keeps the memory of the trials while it does.

    Attributes:
        memory: the memory after the steps so far, (B, E, memory_size); that of an episode that has
            ended stays as it is.
    """

    def __init__(
        self,
        config: NetworkConfig,
        params: Mapping[str, np.ndarray],
        encoder: InputEncoder,
        bound: np.ndarray | None,
        state: Mapping[str, np.ndarray],
        obs_dim: int,
        *,
        deterministic: bool,
    ) -> None:
        """Set up the actor.

        Args:
            config: the settings of the network.
            params: its parameters, float32.
            encoder: makes the inputs.
            bound: bound of continuous actions, (action_dim,); None for discrete actions.
            state: `memory` (B, E, memory_size), `action` (B, E, ...), `reward` (B, E) and `anew`
                (B, E) before the first step; E may be 1 for any number of trials.
            obs_dim: size of an observation.
            deterministic: whether to take the mean or the mode of the distributions.
        """
        self._config, self._params, self._encoder, self._bound = config, params, encoder, bound
        self._obs_dim, self._deterministic = obs_dim, deterministic
        self.memory, self._action = state["memory"], state["action"]
        self._reward, self._anew = state["reward"], state["anew"]
        self._num_outputs = params[f"policy.bias{len(config.hidden)}"].shape[0]
        if bound is not None:
            low = math.log(config.min_std)
            self._std = np.exp(np.maximum(params["policy.log_std"], low))
        self._first = True

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        shape = (horizon, self._num_outputs)
        if self._bound is None:
            return rng.gumbel(size=shape).astype(np.float32)
        return rng.standard_normal(shape, dtype=np.float32)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        check_obs_size(obs, self._obs_dim)
        if self._first:
            # One memory for all trials of a task becomes one for each.
            shape = active.shape
            for name in ("memory", "_action"):
                value = getattr(self, name)
                setattr(self, name, np.broadcast_to(value, (*shape, value.shape[-1])))
            last_reward = np.broadcast_to(self._reward, shape)
            anew = np.broadcast_to(self._anew, shape)
        else:
            anew = np.zeros(active.shape, bool)
        self._first = False
        inputs = self._encoder(obs, self._action, last_reward, anew)
        flat = inputs.reshape(-1, inputs.shape[-1])
        memory = self._next_memory(flat, self.memory.reshape(len(flat), -1))
        memory = memory.reshape(*active.shape, -1)
        outputs = self._outputs(memory[..., : self._config.size])
        ended = not active.all()
        self.memory = np.where(active[..., None], memory, self.memory) if ended else memory
        if self._bound is None:
            scores = outputs if self._deterministic else outputs + noise
            action = scores.argmax(-1, keepdims=True).astype(np.float32)
        else:
            action = outputs if self._deterministic else outputs + self._std * noise
        self._action = self._encoder.encode_action(action)
        return action

    def _next_memory(self, inputs: np.ndarray, memory: np.ndarray) -> np.ndarray:
        """Return the memory (N, memory_size) after inputs (N, num_inputs)."""
        params, size = self._params, self._config.size
        projected = inputs @ params["memory.input_weight"]
        projected += params["memory.input_bias"]
        product = memory[:, :size] @ params["memory.weight"]
        product += params["memory.bias"]
        if self._config.cell == "gru":
            gates = sigmoid(projected[:, : 2 * size] + product[:, : 2 * size])
            reset, update = gates[:, :size], gates[:, size:]
            new = reset * product[:, 2 * size :]
            new += projected[:, 2 * size :]
            np.tanh(new, out=new)
            after = memory - new
            after *= update
            after += new
            return after
        gates = projected
        gates += product
        for sigmoids in (gates[:, : 2 * size], gates[:, 3 * size :]):
            sigmoid(sigmoids)
        keep_in, forget, new, out = np.split(gates, 4, axis=1)
        cell = forget * memory[:, size:] + keep_in * np.tanh(new)
        return np.concatenate([out * np.tanh(cell), cell], axis=1)

    def _outputs(self, hidden: np.ndarray) -> np.ndarray:
        """Return the means or the logits, (B, E, num_outputs), of outputs of the memory."""
        x = hidden.reshape(-1, hidden.shape[-1])
        for layer in range(len(self._config.hidden) + 1):
            if layer:
                x = np.tanh(x) if self._config.activation == "tanh" else np.maximum(x, 0)
            x = x @ self._params[f"policy.weight{layer}"]
            x += self._params[f"policy.bias{layer}"]
        if self._bound is not None and self._config.action_bound == "tanh":
            x = self._bound * np.tanh(x)
        return x.reshape(*hidden.shape[:2], -1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Replace x by 1 / (1 + exp(-x)), by tanh, which does not overflow and is faster; return it."""
    x *= 0.5
    np.tanh(x, out=x)
    x *= 0.5
    x += 0.5
    return x
