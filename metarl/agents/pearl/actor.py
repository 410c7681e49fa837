"""The actor of PEARL in rollouts: posterior sampling, in float32 NumPy.

B is the number of tasks, E the number of trials of each task, Z the size of the latent variable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metarl.agents.pearl.networks import MAX_LOG_STD, MIN_LOG_STD
from metarl.core.actors import check_obs_size, mlp_outputs


class LatentActor:
    """Draws a latent for each episode, and acts by it until the episode's end.

    Its noise has A numbers for the action of a step, and Z for the latent, of which those of the
    first step are used.

    Attributes:
        z: the latents of the episodes, (B, E, Z); None before the first step.
    """

    def __init__(
        self,
        layers: Sequence[tuple[np.ndarray, np.ndarray]],
        mean: np.ndarray,
        variance: np.ndarray,
        centre: np.ndarray,
        half_width: np.ndarray,
        *,
        deterministic: bool,
    ) -> None:
        """Set up the actor.

        Args:
            layers: weight (in, out) and bias (out,) of each layer of the policy, float32.
            mean, variance: of the posteriors, (B, E, Z); E may be 1 for any number of episodes.
            centre, half_width: of the action space, (A,).
            deterministic: whether to take the means of the posterior and of the policy.
        """
        self._layers = layers
        self._mean, self._std = mean.astype(np.float32), np.sqrt(variance).astype(np.float32)
        self._centre, self._half_width = centre, half_width
        self._obs_dim = self._layers[0][0].shape[0] - mean.shape[-1]
        self._deterministic = deterministic
        self.z: np.ndarray | None = None

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        size = len(self._centre) + self._mean.shape[-1]
        return rng.standard_normal((horizon, size), dtype=np.float32)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        check_obs_size(obs, self._obs_dim)
        action_dim = len(self._centre)
        if self.z is None:
            drawn = self._mean if self._deterministic else self._posterior_sample(noise)
            self.z = np.broadcast_to(drawn, (*active.shape, self._mean.shape[-1]))
        x = np.concatenate([obs, self.z], axis=-1, dtype=np.float32)
        x = mlp_outputs(self._layers, x.reshape(-1, x.shape[-1]), relu=True)
        u, log_std = x[:, :action_dim], x[:, action_dim:]
        if not self._deterministic:
            std = np.exp(np.clip(log_std, MIN_LOG_STD, MAX_LOG_STD))
            u = u + std * noise[..., :action_dim].reshape(-1, action_dim)
        action = self._centre + self._half_width * np.tanh(u)
        return action.reshape(*active.shape, action_dim)

    def _posterior_sample(self, noise: np.ndarray) -> np.ndarray:
        return self._mean + self._std * noise[..., len(self._centre) :]
