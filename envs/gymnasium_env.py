"""A task of a family as an ordinary Gymnasium environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from metarl.envs.base import TaskFamily
from metarl.envs.mujoco.family import MujocoBatchEnv, MujocoFamily
from metarl.envs.registry import make_family
from metarl.envs.rendering import Renderer


class TaskEnv(gymnasium.Env[np.ndarray, np.ndarray | np.int64]):
    """One task: the family's batch environment with N = 1, so that both always behave identically.

    Attributes:
        family: the task family.
        task: the task, (task_dim,); if none was given, each reset draws a new one.
    """

    def __init__(
        self,
        family: TaskFamily,
        task: Sequence[float] | None = None,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"render_mode: expected rgb_array or None, got {render_mode!r}; `metarl render` "
                "makes videos"
            )
        self.family = family
        self.render_mode = render_mode
        self.observation_space = family.observation_space
        self.action_space = family.action_space
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": round(family.frames_per_second),
        }
        self._fixed_task = None if task is None else family.check_task(task)
        self.task = self._fixed_task
        self.batch_env = family.make_batch(1)
        self._size = width, height
        self._renderer: Renderer | None = None
        self._states: list[np.ndarray] = []

    @property
    def draws_tasks(self) -> bool:
        """Whether each reset draws a task, as none was given."""
        return self._fixed_task is None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode. `options={"task": ...}` sets the task of this episode."""
        super().reset(seed=seed)
        task = (options or {}).get("task")
        task = self._fixed_task if task is None else task
        if task is None:
            task = self.family.sample_tasks(self.np_random, 1)[0]
        self.task = self.family.check_task(task)
        obs = self.batch_env.reset(self.task[None], [self.np_random])[0]
        self._states = [self.batch_env.render_state(0)]
        return obs, {"task": self.task.copy()}

    def step(
        self, action: np.ndarray | np.integer | int
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one control step; truncated after `family.horizon` of them, if not before.
        The info has the task, and as `is_success` whether the episode has succeeded so far, if the
        environment defines success.

        The action is (action_dim,), or the index itself where the space is Discrete.
        """
        assert self.task is not None, "call reset() before step()"
        row = np.atleast_1d(action)
        if row.shape != (self.action_space.shape or (1,)):
            raise ValueError(f"action: expected one of {self.action_space}, got {action!r}")
        obs, reward, terminated = self.batch_env.step(row[None])
        self._states.append(self.batch_env.render_state(0))
        cut = self.batch_env.truncated
        truncated = len(self._states) > self.family.horizon or bool(cut is not None and cut[0])
        info: dict[str, Any] = {"task": self.task.copy()}
        if (success := self.batch_env.success) is not None:
            info["is_success"] = bool(success[0])
        return obs[0], float(reward[0]), bool(terminated[0]), truncated, info

    def render(self) -> np.ndarray | None:
        """Return the image of the current state of the episode, (height, width, 3) uint8.

        None if `render_mode` is None.
        """
        if self.render_mode is None:
            return None
        assert self.task is not None, "call reset() before render()"
        if self._renderer is None:
            self._renderer = self.family.make_renderer(*self._size)
        return self._renderer.draw(np.stack(self._states), self.task)

    def close(self) -> None:
        """End the renderer, and the worker processes of an external environment."""
        self.batch_env.close()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


class MujocoTaskEnv(TaskEnv):
    """One task of a MuJoCo family."""

    family: MujocoFamily
    batch_env: MujocoBatchEnv

    @property
    def dt(self) -> float:
        """Seconds of simulated time per control step."""
        return self.family.dt

    def state_vector(self) -> np.ndarray:
        """Return qpos and qvel, (nq + nv,)."""
        return self.batch_env.render_state(0)

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Set the positions, (nq,), and velocities, (nv,)."""
        self.batch_env.set_state(0, qpos, qvel)
        self._states[-1:] = [self.batch_env.render_state(0)]


def make(
    family: str,
    task: Sequence[float] | None = None,
    render_mode: str | None = None,
    width: int = 480,
    height: int = 480,
    **fields: Any,
) -> TaskEnv:
    """Entry point of the registered environments: `fields` are as for `make_family`."""
    return task_env(make_family(family, **fields), task, render_mode, width, height)


def task_env(
    family: TaskFamily,
    task: Sequence[float] | None = None,
    render_mode: str | None = None,
    width: int = 480,
    height: int = 480,
) -> TaskEnv:
    """Return a task of a family as an environment; without a task each reset draws a new one."""
    kind = MujocoTaskEnv if isinstance(family, MujocoFamily) else TaskEnv
    return kind(family, task, render_mode, width, height)
