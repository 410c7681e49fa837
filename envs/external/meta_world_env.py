"""Meta-World for workers, and the list of its tasks.

Needs metaworld alone: workers load this file under the Python of Meta-World's own environment. As a
script, `python -I meta_world_env.py ML1 reach-v3 42`, it prints a benchmark's tasks.
"""

# Meta-World is not installed beside this project.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import os
import pickle
import sys
from typing import Any

import gymnasium
import metaworld
import numpy as np

GOAL_DIM = 6  # numbers that place objects and goal; some environments need only 3
VALIDATION_OFFSET = 2  # added to the seed; Meta-World itself adds 1 for the test tasks of ML1
CAMERA = "corner2"


class MetaWorldEnv(gymnasium.Env):
    """One environment of Meta-World after another: the options of a reset choose environment and
    goal. The goal is hidden, as in all ML benchmarks."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (Gymnasium's)

    def __init__(self, names: list[str], render_mode: str | None = None) -> None:
        self.names, self.render_mode = names, render_mode
        self.name = ""
        self.env: Any = None
        self.use(names[0])
        self.action_space = self.env.action_space
        # The bounds of all environments: the positions of their objects have none.
        self.observation_space = self.env.observation_space

    def use(self, name: str) -> None:
        """Switch to the environment of that name."""
        if name == self.name:
            return
        if self.env is not None:
            idle.setdefault((self.name, self.render_mode), []).append(self.env)
        kept = idle.get((name, self.render_mode))
        self.name, self.env = name, kept.pop() if kept else self.create(name)

    def create(self, name: str) -> Any:
        """Make an environment."""
        options = {}
        if self.render_mode:
            options = {"render_mode": self.render_mode, "camera_name": CAMERA}
            display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
            if sys.platform.startswith("linux") and not display:
                os.environ.setdefault("MUJOCO_GL", "egl")
        return metaworld.ALL_V3_ENVIRONMENTS[name](**options)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        assert options is not None, "the options say which environment, and which goal"
        super().reset(seed=seed)
        values = list(options.values())
        self.use(self.names[int(values[0])])
        size = self.env._random_reset_space.low.size
        data = {
            "rand_vec": np.array(values[1 : 1 + size]),
            "env_cls": type(self.env),
            "partially_observable": True,
        }
        self.env.set_task(metaworld.Task(self.name, pickle.dumps(data)))
        return self.env.reset()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.env.step(action)

    def render(self) -> np.ndarray:
        return np.rot90(self.env.render(), 2)  # the camera is mounted upside down

    def close(self) -> None:
        self.env.close()


# Environments not in use, by name and render mode, kept because making one is slow.
idle: dict[tuple[str, str | None], list[Any]] = {}


def rows(names: list[str], tasks: list[Any]) -> list[list[float]]:
    """Turn tasks into rows: the number of the environment, and its goal, with zeros behind."""
    found = []
    for task in tasks:
        goal = [float(value) for value in pickle.loads(task.data)["rand_vec"]]  # noqa: S301 (Meta-World's own)
        padding = [0.0] * (GOAL_DIM - len(goal))
        found.append([float(names.index(task.env_name)), *goal, *padding])
    return found


def benchmark_tasks(benchmark: str, env_name: str, seed: int) -> dict[str, list[list[float]]]:
    """Return the rows of the train, validation and test tasks."""
    names = sorted(metaworld.ALL_V3_ENVIRONMENTS)
    arguments = [env_name] if benchmark == "ML1" else []
    make = getattr(metaworld, benchmark)
    own, other = make(*arguments, seed=seed), make(*arguments, seed=seed + VALIDATION_OFFSET)
    return {
        "train": rows(names, own.train_tasks),
        "validation": rows(names, other.train_tasks),
        "test": rows(names, own.test_tasks),
    }


if __name__ == "__main__":
    print(json.dumps(benchmark_tasks(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
