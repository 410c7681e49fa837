"""A Gymnasium environment of the user's, single or vector, as a batch environment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

from metarl.core.errors import UserError, check
from metarl.envs import BatchEnv, TaskFamily
from metarl.envs.base import StepResult
from metarl.envs.gymnasium_env import TaskEnv

MAX_ENV_SEED = 2**31


class LiveEnv(BatchEnv):
    """The episodes of an environment that is already there, under a task that only it knows.

    An episode that it cuts off at the horizon of the family ends as those of training do; one that
    it cuts off before is truncated.

    Attributes:
        env: the environment.
        actions: turns the actions of the policy into those of the environment.
        obs_shape: the shape of one observation.
    """

    def __init__(self, env: gymnasium.Env | VectorEnv, family: TaskFamily) -> None:
        """Wrap an environment.

        Args:
            env: the environment.
            family: the task family whose spaces the agent was made for.

        Raises:
            UserError: if it is no environment, draws another task at each reset, or its
                observations or actions have another size or kind.
        """
        made = hasattr(env, "step") and hasattr(env, "action_space")
        check(made, "env", "a Gymnasium environment, such as Run.make_env returns", env)
        for each in getattr(env, "envs", [env]):  # those of a SyncVectorEnv
            plain = getattr(each, "unwrapped", each)
            if isinstance(plain, TaskEnv) and plain.draws_tasks:
                raise UserError(
                    "env: draws another task at each reset; expected an environment of one task, "
                    "such as Run.make_env(task=...) returns"
                )
        self.env, self._vector = env, isinstance(env, VectorEnv)
        super().__init__(family, env.num_envs if isinstance(env, VectorEnv) else 1, 1)
        prefix = "single_" if self._vector else ""
        observations = getattr(env, f"{prefix}observation_space")
        self.actions = ActionUnits(family.action_space, getattr(env, f"{prefix}action_space"))
        found, expected = observations.shape, family.observation_space.shape
        if found is None or math.prod(found) != expected[0]:
            raise UserError(
                f"env: expected observations of {expected[0]} numbers, for which the policy was "
                f"made, got {observations}"
            )
        self.obs_shape = found

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        seeds: Any = [int(rng.integers(MAX_ENV_SEED)) for rng in rngs]
        obs, _ = self.env.reset(seed=seeds if self._vector else seeds[0])
        self.truncated, self._steps = np.zeros(self.num_episodes, bool), 0
        self._ended = np.zeros(self.num_episodes, bool)
        return self._rows(obs)

    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        own = self.actions.to_env(action)
        if self._ended.any() and self.env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED:
            self.env.reset(options={"reset_mask": self._ended})
        found: Any = self.env.step(own if self._vector else own[0])
        obs, *outcome, info = found
        reward, terminated, truncated = (np.atleast_1d(each) for each in outcome)
        rows = self._rows(obs)
        self._ended = terminated.astype(bool) | truncated.astype(bool)
        if self._vector and "final_obs" in info:  # `obs` is of the next episodes (SAME_STEP)
            for row in np.flatnonzero(self._ended):
                rows[row] = np.ravel(info["final_obs"][row])
        self._steps += 1
        self.truncated = truncated.astype(bool) & (self._steps < self.family.horizon)
        return rows, reward.astype(np.float64), terminated.astype(bool)

    def _rows(self, obs: np.ndarray) -> np.ndarray:
        return np.array(obs, np.float64).reshape(self.num_episodes, -1)

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        self.step(action, ids)

    def render_state(self, episode: int) -> np.ndarray:
        return np.zeros(0)  # the environment draws itself


class ActionUnits:
    """Turns the actions of a policy into those of an environment, whose bounds may be others.

    Attributes:
        policy, env: the action spaces.
        same: whether both have the same bounds.
    """

    def __init__(self, policy: Box | Discrete, env: gymnasium.Space) -> None:
        """Compare the action spaces of policy and environment.

        Raises:
            UserError: if they are of other kinds or sizes, or differ in a bound that is infinite.
        """
        self.env, self.policy = env, policy
        self.same = False
        if isinstance(policy, Discrete):
            fits = isinstance(env, Discrete) and env.n == policy.n
        else:
            fits = isinstance(env, Box) and math.prod(env.shape) == policy.shape[0]
            if fits and isinstance(env, Box):
                bounds = [(env.low.ravel(), policy.low), (env.high.ravel(), policy.high)]
                self.same = all(np.array_equal(one, other) for one, other in bounds)
                fits = self.same or bool(np.isfinite(bounds).all())
        if not fits:
            raise UserError(f"env: expected actions of {policy}, as the policy's, got {env}")

    def to_env(self, action: np.ndarray) -> np.ndarray:
        """Return actions of the environment, (N, ...), given the policy's, (N, action_dim).

        They are clipped to its bounds, as in training; between spaces with other bounds they are
        scaled before. Those of a space of integers are rounded to the nearest.
        """
        if isinstance(self.env, Discrete):
            return action[:, 0].astype(np.int64) + self.env.start
        assert isinstance(self.env, Box)
        assert isinstance(self.policy, Box)
        low, high = self.env.low.ravel(), self.env.high.ravel()
        if not self.same:
            share = (action - self.policy.low) / (self.policy.high - self.policy.low)
            action = low + share * (high - low)
        action = np.clip(action, low, high)
        if np.issubdtype(self.env.dtype, np.integer):
            action = np.rint(action)
        return action.reshape(-1, *self.env.shape).astype(self.env.dtype)
