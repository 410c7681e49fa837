"""What the tests of environments in worker processes share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metarl.envs import ExternalFamily, GymnasiumFamily

WALK = '''
"""An environment for tests: a walk on a line with noise, and ways to go wrong."""

import os
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

{preamble}

class Walk(gymnasium.Env):
    observation_space = Box(-np.inf, np.inf, (1, 2))
    action_space = Discrete(3, start=-1)
    pull = 0.0

    def __init__(self, pull=0.0, steps=1000):
        self.pull, self.steps = pull, steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.pull = (options or dict()).get("pull", self.pull)
        self.x, self.t = self.np_random.normal(), 0
        return self.observe(), dict()

    def observe(self):
        return np.array([[self.x, self.pull]], np.float32)

    def step(self, action):
        self.t += 1
        self.before_step(action)
        self.x += float(np.sum(action)) + self.pull + 0.1 * self.np_random.normal()
        info = dict(success=abs(self.x) > 3)
        return self.observe(), -abs(self.x), bool(self.x > 8), self.t >= self.steps, info

    def before_step(self, action):
        {before_step}


class Push(Walk):
    action_space = Box(np.array([-1, 0, -np.inf]), np.array([1, 10, np.inf]), dtype=np.float64)


class Count(Walk):
    action_space = Box(0, 10, (2,), dtype=np.int32)


class Unfit(Walk):
    observation_space = Dict(dict(x=Discrete(2)))


def make(**kwargs):
    return Walk(**kwargs)
'''


@pytest.fixture
def walk(tmp_path) -> Callable[..., ExternalFamily]:
    """Makes families of the environment above, which does something before each step."""

    def make(
        before_step: str = "pass", *, cls: str = "Walk", preamble: str = "", **fields
    ) -> ExternalFamily:
        file: Path = tmp_path / "walk.py"
        file.write_text(WALK.format(before_step=before_step, preamble=preamble))
        usual = {"parameters": {"pull": (-1.0, 1.0)}, "horizon": 30, "timeout": 20.0}
        return GymnasiumFamily(env_id=f"{file}:{cls}", **{**usual, **fields})

    return make


@pytest.fixture
def history() -> Callable[..., np.ndarray]:
    """Plays all episodes of a batch and returns all that came back, (steps + 1, N, obs_dim + 3)."""

    def play(
        family: ExternalFamily,
        num_episodes: int = 5,
        num_workers: int = 2,
        *,
        steps: int = 12,
        between: Callable[[int, list[int]], None] = lambda step, pids: None,
    ) -> np.ndarray:
        env = family.make_batch(num_episodes, num_workers)
        streams = [np.random.default_rng(i) for i in range(num_episodes)]
        obs = env.reset(family.tasks("test", num_episodes), streams)
        rows = [np.concatenate([obs, np.zeros((num_episodes, 3))], axis=1)]
        rng, active = np.random.default_rng(0), np.ones(num_episodes, bool)
        for step in range(steps):
            between(step, env.pool.pids)
            space = family.action_space
            shape = (num_episodes, family.action_dim)
            is_index = hasattr(space, "n")
            action = rng.integers(space.n, size=shape) if is_index else rng.normal(size=shape)
            obs, reward, ended = env.step(action.astype(float), np.flatnonzero(active))
            succeeded = np.zeros(num_episodes) if env.success is None else env.success
            row = np.concatenate([obs, np.stack([reward, ended, succeeded], axis=1)], axis=1)
            rows.append(np.where(active[:, None], row, rows[-1]))
            active &= ~ended
            if not active.any():
                break
        return np.stack(rows)

    return play
