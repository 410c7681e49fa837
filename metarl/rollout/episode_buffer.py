"""The arrays that `metarl.rollout.collect.collect` fills while it plays episodes.

B is the number of tasks, E the number of episodes of each task, T the horizon.
"""

from __future__ import annotations

import numpy as np

from metarl.envs import TaskFamily
from metarl.envs.base import StepResult
from metarl.rollout.episodes import Episodes


class EpisodeBuffer:
    """E episodes of each of B tasks, filled step by step.

    Attributes:
        shape: (B, E).
        obs: the observation before each step, (T + 1, B, E, obs_dim) float32; 0 where the episode
            has ended.
        last_reward: the reward of the last step, (B, E) float32; 0 before the first.
        left_out: mask of the episodes that are not part of the result, (B, E) bool.
    """

    def __init__(self, family: TaskFamily, num_tasks: int, num_episodes: int) -> None:
        """Allocate the arrays of B tasks with E episodes each."""
        self.shape = shape = (num_tasks, num_episodes)
        self._endless, horizon = not family.finite_horizon, family.horizon
        # (T, B, E, ...), since they are filled step by step; transposed at the end
        self.obs = np.zeros((horizon + 1, *shape, family.observation_space.shape[0]), np.float32)
        self._action = np.zeros((horizon, *shape, family.action_dim), np.float32)
        self._reward = np.zeros((horizon, *shape), np.float32)
        self._mask = np.zeros((horizon, *shape), bool)
        self._terminated, self._truncated, self.left_out = np.zeros((3, *shape), bool)
        self._last_obs = np.zeros_like(self.obs[0])
        self.last_reward = np.zeros(shape, np.float32)

    @property
    def active(self) -> np.ndarray:
        """Mask of the episodes that go on, (B, E) bool, a fresh array."""
        return ~(self._terminated | self._truncated | self.left_out)

    def begin(self, obs: np.ndarray) -> None:
        """Set the first observations, (B * E, obs_dim)."""
        self.obs[0] = np.where(self.left_out[..., None], 0, obs.reshape(*self.shape, -1))
        self._last_obs[:] = self.obs[0]

    def add(
        self,
        step: int,
        active: np.ndarray,
        action: np.ndarray,
        result: StepResult,
        truncated: np.ndarray | None,
    ) -> None:
        """Add a step of the episodes in which it took place.

        Args:
            step: its number, from 0.
            active: mask of these episodes, (B, E) bool.
            action: (B, E, action_dim).
            result: the results of the environment.
            truncated: as in `BatchEnv.truncated`.
        """
        obs, reward, terminated = result
        self._action[step][active] = action[active]
        self._reward[step][active] = reward.reshape(self.shape)[active]
        self._mask[step] = active
        self._last_obs[active] = obs.reshape(*self.shape, -1)[active]
        self._terminated |= active & terminated.reshape(self.shape)
        if truncated is not None:
            self._truncated |= active & ~self._terminated & truncated.reshape(self.shape)
        self.obs[step + 1] = np.where(self.active[..., None], self._last_obs, 0)
        self.last_reward = self._reward[step]

    def episodes(
        self,
        tasks: np.ndarray,
        task_ids: np.ndarray | None,
        success: np.ndarray | None,
        memory: np.ndarray | None,
    ) -> Episodes:
        """Return the episodes, with 0 where an episode was left out.

        Args:
            tasks, task_ids: as in `Episodes`.
            success: as in `BatchEnv.success`.
            memory: the memory of the actor, (B, E, k), or (B, 1, k) if nothing was played.
        """
        out = self.left_out
        if out.any():
            for array in (self.obs, self._action, self._reward, self._mask):
                array[:, out] = 0
            self._last_obs[out], self._terminated[out] = 0, False
        if memory is not None:
            memory = np.broadcast_to(memory, (*self.shape, memory.shape[2]))
            memory = np.where(out[..., None], 0, memory) if out.any() else memory
        return Episodes(
            obs=episode_major(self.obs[:-1]),
            action=episode_major(self._action),
            reward=episode_major(self._reward),
            mask=episode_major(self._mask),
            last_obs=self._last_obs,
            terminated=self._terminated,
            bootstrap=~(self._terminated | out) & (self._truncated | self._endless),
            tasks=np.asarray(tasks, np.float64),
            task_ids=task_ids,
            success=None if success is None else success.reshape(self.shape) & ~out,
            memory=memory,
        )


def episode_major(array: np.ndarray) -> np.ndarray:
    """Return an array (T, B, E, ...) as a contiguous array (B, E, T, ...)."""
    return np.ascontiguousarray(np.moveaxis(array, 0, 2))
