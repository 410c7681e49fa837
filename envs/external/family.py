"""Task families whose episodes run in worker processes."""

from __future__ import annotations

import os
import sys
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import BatchEnv, StepResult, TaskFamily
from metarl.envs.control import action_of_zero
from metarl.envs.errors import SimulationDiverged
from metarl.envs.external.description import Description, Environment, query_environment
from metarl.envs.external.pool import Pool
from metarl.envs.external.process import WorkerError
from metarl.envs.external.rendering import ExternalRenderer

TRIAL_STEPS = 5
TRIAL_RESULTS = ("obs", "reward", "terminated", "truncated")
"""What is compared of two episodes that should be the same."""

Truncation = Literal["refuse", "bootstrap"]

MAX_SEED = 2**31 - 1  # accepted by every environment


@dataclass(frozen=True)
class ExternalFamily(TaskFamily):
    """Tasks on an environment that runs in worker processes.

    A subclass defines `environment`, `task_space` and `sample_tasks`. Results depend neither on the
    number of workers nor on whether one is lost.
    """

    action_scale: float = 1.0
    """The policy action that reaches the bounds of a Box action space: the interval from minus to
    plus this value maps onto low to high; values beyond are clipped. Unbounded actions are passed
    unchanged."""
    workers: int = 0
    """Worker processes; 0 for one per thread. No influence on the results."""
    timeout: float = 60.0
    """Seconds that one call of the environment may take before its worker is restarted."""
    truncation: ClassVar[Truncation] = "refuse"
    """The reaction to an environment that truncates an episode before the horizon."""
    python: str = ""
    """The Python interpreter that runs the workers; empty for the one that runs metarl."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("action_scale", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if self.workers < 0:
            raise ValueError(f"workers: expected at least 0, got {self.workers}")

    @property
    @abstractmethod
    def environment(self) -> Environment:
        """The environment that the workers make, and how tasks are passed to it."""

    @property
    def interpreter(self) -> str:
        """The path of the interpreter that runs the workers."""
        return os.path.expanduser(self.python) or sys.executable

    @property
    def middle_task(self) -> np.ndarray:
        """The task under which the environment is first made, (task_dim,): the middle of the task
        space."""
        return (self.task_space.low + self.task_space.high) / 2

    @property
    def description(self) -> Description:
        """The spaces and the frame rate of the environment, queried once.

        Raises:
            WorkerError: if it does not exist or cannot be used; the message names a remedy.
        """
        trial = self.middle_task.tolist()
        return query_environment(self.environment, trial, self.interpreter, self.timeout)

    @property
    def observation_space(self) -> Box:
        found = self.description
        return Box(found.obs_low, found.obs_high, dtype=np.float64)

    @property
    def action_space(self) -> Box | Discrete:
        found = self.description
        if found.num_actions is not None:
            return Discrete(found.num_actions)
        bounded, scale = self._bounded(found), self.action_scale
        low = np.where(bounded, -scale, found.action_low).astype(np.float32)
        return Box(low, np.where(bounded, scale, found.action_high).astype(np.float32))

    @staticmethod
    def _bounded(found: Description) -> np.ndarray:
        return np.isfinite(found.action_low) & np.isfinite(found.action_high)

    def control(self, action: np.ndarray) -> np.ndarray:
        """Map policy actions, (N, action_dim), to actions of the environment, float64."""
        found, action = self.description, np.asarray(action, np.float64)
        bounded = self._bounded(found)
        low, high = (np.where(bounded, x, 0) for x in (found.action_low, found.action_high))
        unit = np.clip(action / self.action_scale, -1.0, 1.0)
        scaled = (high + low) / 2 + unit * ((high - low) / 2)
        # Also of what is scaled: a sum may be rounded to beyond a bound.
        mapped = np.where(bounded, scaled, action)
        return np.clip(mapped, found.action_low, found.action_high)

    @property
    def zero_action(self) -> np.ndarray:
        space = self.action_space
        if isinstance(space, Discrete):
            return super().zero_action
        return action_of_zero(space, self.control)

    @property
    def frames_per_second(self) -> float:
        return float(self.description.frames_per_second or 20.0)

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> ExternalBatchEnv:
        return ExternalBatchEnv(self, num_episodes, num_threads)

    def make_pool(self, num_episodes: int, num_workers: int, *, render: bool = False) -> Pool:
        """Make workers for a number of episodes; with `render` they can be rendered, too."""
        found = self.description
        sizes = {
            "episodes": num_episodes,
            "workers": num_workers,
            "obs": len(found.obs_low),
            "action": found.action_dim,
            "task": len(self.environment.parameters),
        }
        return Pool(self.environment, sizes, self.interpreter, self.timeout, render)

    def check_repeatable(self) -> None:
        """Check that two short episodes of one environment with the same task, seed and actions are
        the same, the second while another environment of the same process is stepped too.

        Raises:
            WorkerError: if they are not, or the environment fails.
        """
        pool = self.make_pool(2, 1)
        try:
            first, second = (self._trial_episode(pool, others=others) for others in (False, True))
        finally:
            pool.close()
        for step, rows in enumerate(zip(first, second, strict=False)):
            for name, one, other in zip(TRIAL_RESULTS, *rows, strict=False):
                if not np.array_equal(one, other, equal_nan=True):
                    same = np.isclose(one, other, 0.0, 0.0, equal_nan=True)
                    at = np.flatnonzero(~same)[0]
                    when = f"after {step} steps" if step else "at the reset"
                    raise WorkerError(
                        f"{self.environment.name}: two episodes with one seed differ: {when} its "
                        f"{name} is {one[at]:g}, then {other[at]:g}, so that resume and evaluation "
                        "would differ from training; expected a reset that forgets earlier episodes"
                        " and draws only from its seed, and no random numbers that environments "
                        "share, such as np.random's (in place of NormalizeObservation set "
                        "agent.normalize_observations to true)"
                    )

    def _trial_episode(self, pool: Pool, *, others: bool) -> list[list[np.ndarray]]:
        """Play a short episode of the middle task in the first of two environments; return the
        first observation, and `TRIAL_RESULTS` after each step.

        Args:
            pool: the two environments.
            others: whether the second one, which is reset in any case, is stepped too.
        """

        def result(*names: str) -> list[np.ndarray]:
            return [pool.views[name][0].copy().ravel() for name in names]

        rng, space = np.random.default_rng(0), self.action_space
        pool.reset(np.stack([self.middle_task] * 2), np.arange(2))
        active = np.array([True, others])
        results = [result("obs")]
        for _ in range(min(TRIAL_STEPS, self.horizon)):
            if isinstance(space, Discrete):
                action = rng.integers(space.n, size=(2, 1)).astype(float)
            else:
                action = self.control(rng.uniform(-1.0, 1.0, (2, *space.shape)))
            pool.step(action, active)
            results.append(result(*TRIAL_RESULTS))
            over = (pool.views["terminated"] | pool.views["truncated"]).astype(bool)
            if over[0]:
                break
            active &= ~over
        return results

    def make_renderer(self, width: int, height: int) -> ExternalRenderer:
        return ExternalRenderer(self, width, height)

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        names = self.environment.parameters
        return ", ".join(f"{n} {value:.3g}" for n, value in zip(names, task, strict=True))

    def task_settings(self) -> dict[str, Any]:
        # Where and how the environment runs is no part of a task.
        return {**super().task_settings(), "workers": 0, "timeout": 60.0, "python": ""}


class ExternalBatchEnv(BatchEnv):
    """N episodes of an environment, divided among processes, which start at the first reset.

    An episode's random number generator gives the seed of the environment's reset, the only source
    of randomness. `advance` also restarts an episode that has ended: only speed measurements
    continue one.

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
        self.success = self.truncated = None
        self.pool.reset(np.asarray(tasks, np.float64), self._seeds)
        return self.pool.views["obs"].copy()

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        self._advance(action, ids)

    def _advance(self, action: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Step the episodes; return which were stepped, (N,) bool."""
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
        truncated = active & ~terminated & views["truncated"].astype(bool)
        if self.family.truncation == "bootstrap":
            self.truncated = truncated
        else:
            self._check_not_truncated(truncated)
        self._update_success(active)
        finite = np.isfinite(obs).all(axis=1) & np.isfinite(reward)
        if (active & ~finite).any():
            diverged = np.flatnonzero(active & ~finite)
            reason = "the environment's observation or reward is not finite"
            raise SimulationDiverged(diverged, reason, (obs, reward, terminated))
        return obs, reward, terminated

    def _check_not_truncated(self, truncated: np.ndarray) -> None:
        early = np.flatnonzero(truncated & (self._steps_taken < self.family.horizon))
        if early.size:
            steps = self._steps_taken[early[0]]
            raise WorkerError(
                f"{self.family.environment.name}: cut episode {early[0]} short after {steps} steps "
                f"(truncated), before env.horizon ({self.family.horizon}). Set env.horizon to "
                f"{steps} if it cuts all episodes there, lift its limit with env.kwargs, or set "
                "env.truncation to bootstrap: the value of the last state continues the return"
            )

    def _update_success(self, active: np.ndarray) -> None:
        success = self.pool.views["success"]
        reported = active & ~np.isnan(success)
        if reported.any():
            before = np.zeros(self.num_episodes, bool) if self.success is None else self.success
            self.success = before | (reported & (success > 0.5))

    def close(self) -> None:
        self.pool.close()

    def render_state(self, episode: int) -> np.ndarray:
        """Return the seed of the episode and its last action, (1 + action_dim,).

        The render states of all its steps suffice to replay an episode.
        """
        return np.append(float(self._seeds[episode]), self._actions[episode])
