"""A batch of episodes that worker processes play."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from gymnasium.spaces import Discrete

from metarl.envs.base import BatchEnv, SimulationDiverged, StepResult
from metarl.envs.external.process import WorkerError

if TYPE_CHECKING:
    from metarl.envs.external.family import ExternalFamily

MAX_SEED = 2**31 - 1  # what every environment takes


class ExternalBatchEnv(BatchEnv):
    """N episodes of an environment, shared out among processes, which start at the first reset.

    An episode's stream gives the seed of the environment's reset, from which the environment draws
    everything else. `advance` does what `step` does, but lets an episode that has ended begin
    again: only a measurement of speed goes on with one.

    Attributes:
        pool: the workers.
    """

    family: ExternalFamily

    def __init__(self, family: ExternalFamily, num_episodes: int, num_threads: int = 1) -> None:
        super().__init__(family, num_episodes, num_threads)
        num_workers = min(family.workers or num_threads, num_episodes)
        self.pool = family.make_pool(num_episodes, num_workers)

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        self._seeds = np.array([rng.integers(MAX_SEED) for rng in rngs])
        self._actions = np.zeros_like(self.pool.views["action"])
        self._steps_taken = np.zeros(self.num_episodes, np.int64)
        self.success = None
        self.pool.reset(np.asarray(tasks, np.float64), self._seeds)
        return self.pool.views["obs"].copy()

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        self._advance(action, ids)

    def _advance(self, action: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Step the episodes, and return which, (N,) bool."""
        active = np.zeros(self.num_episodes, bool)
        active[slice(None) if ids is None else ids] = True
        if isinstance(self.family.action_space, Discrete):
            self._actions[active, 0] = self.action_indices(action, np.flatnonzero(active))
        else:
            self._actions[active] = self.family.control(action)[active]
        start = time.perf_counter()
        self.pool.step(self._actions, active)
        self.physics_seconds += time.perf_counter() - start
        self._steps_taken += active
        return active

    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        active, views = self._advance(action, ids), self.pool.views
        obs, reward = views["obs"].copy(), views["reward"].copy()
        terminated = views["terminated"].astype(bool)
        self._check_not_cut(active & ~terminated & views["truncated"].astype(bool))
        self._note_success(active)
        finite = np.isfinite(obs).all(axis=1) & np.isfinite(reward)
        if (active & ~finite).any():
            lost = np.flatnonzero(active & ~finite)
            reason = "the environment's observation or reward is not finite"
            raise SimulationDiverged(lost, reason, (obs, reward, terminated))
        return obs, reward, terminated

    def _check_not_cut(self, cut: np.ndarray) -> None:
        early = np.flatnonzero(cut & (self._steps_taken < self.family.horizon))
        if early.size:
            steps = self._steps_taken[early[0]]
            raise WorkerError(
                f"{self.family.environment.name}: cut episode {early[0]} short after {steps} steps "
                f"(truncated), before env.horizon ({self.family.horizon}). Set env.horizon to "
                f"{steps}, or lift the environment's own limit with env.kwargs"
            )

    def _note_success(self, active: np.ndarray) -> None:
        success = self.pool.views["success"]
        told = active & ~np.isnan(success)
        if told.any():
            before = np.zeros(self.num_episodes, bool) if self.success is None else self.success
            self.success = before | (told & (success > 0.5))

    def drawn_state(self, episode: int) -> np.ndarray:
        """Return the seed of the episode and its last action, (1 + action_dim,): with those before
        them all that it takes to play the episode again."""
        return np.append(float(self._seeds[episode]), self._actions[episode])
