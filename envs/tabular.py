"""Finite Markov decision processes, drawn at random. No physics engine needed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from PIL import Image, ImageColor, ImageDraw

from metarl.envs.base import BatchEnv, StepResult, TaskFamily
from metarl.envs.errors import TaskError
from metarl.envs.rendering import frame_at

MAX_TASK_SIZE = 10**6  # numbers of a task
TOLERANCE = 1e-6  # how far from 1 the sum of a row of probabilities may be, for rounding

BACKGROUND, WORST, BEST = "#f7f7f5", "#ffffff", "#2a6fbb"
VISITED, CURRENT = "#1d2430", "#c0392b"


@dataclass(frozen=True)
class TabularMDP(TaskFamily):
    """Explore and exploit a finite MDP whose mean rewards and transitions are drawn at random.

    A task is the mean rewards, (S, A), standard normal around 1, followed by the probabilities of
    the next state, (S, A, S), each row uniform over all distributions. Every episode begins in
    state 0. States are observed one-hot.
    """

    horizon: int = 10
    """Length of an episode in control steps."""
    num_states: int = 10
    """S, the number of states."""
    num_actions: int = 5
    """A, the number of actions."""
    reward_std: float = 1.0
    """Standard deviation of the Gaussian noise on each reward; 0 for none."""

    name: ClassVar[str] = "tabular_mdp"
    source: ClassVar[str] = "Duan et al. 2016 (RL2)"
    no_ood_reason: ClassVar[str] = "its tasks are all MDPs there are"
    knows_expected_reward: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("num_states", "num_actions"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}: expected at least 1, got {getattr(self, field)}")
        numbers = self.num_states * self.num_actions * (1 + self.num_states)
        if numbers > MAX_TASK_SIZE:
            raise ValueError(
                f"num_states: expected MDPs of at most {MAX_TASK_SIZE:,} numbers, got {numbers:.2g}"
            )
        if not self.reward_std >= 0:
            raise ValueError(f"reward_std: expected at least 0, got {self.reward_std}")

    @property
    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (self.num_states,), np.float64)

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.num_actions)

    @property
    def task_space(self) -> Box:
        pairs = self.num_states * self.num_actions
        sizes = [pairs, pairs * self.num_states]
        return Box(
            np.repeat([-np.inf, 0.0], sizes), np.repeat([np.inf, 1.0], sizes), None, np.float64
        )

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        pairs = self.num_states * self.num_actions
        rewards = rng.normal(1.0, 1.0, (num_tasks, pairs))
        transitions = rng.dirichlet(np.ones(self.num_states), (num_tasks, pairs))
        return np.concatenate([rewards, transitions.reshape(num_tasks, -1)], axis=1)

    def tables(self, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split tasks, (..., task_dim), into mean rewards and transition probabilities.

        Returns:
            Mean rewards, (..., S, A), and the probabilities of the next state, (..., S, A, S),
            which sum to 1 over the last axis.
        """
        shape = (*np.shape(tasks)[:-1], self.num_states, self.num_actions)
        rewards, transitions = np.split(tasks, [self.num_states * self.num_actions], axis=-1)
        return rewards.reshape(shape), transitions.reshape(*shape, self.num_states)

    def check_task(self, task: Sequence[float] | np.ndarray) -> np.ndarray:
        row = self._task_numbers(task)
        if row.shape != self.task_space.shape:
            raise self._wrong_size(f"the shape {row.shape}")
        rewards, transitions = self.tables(row)
        if not np.isfinite(rewards).all():
            raise TaskError(f"the mean rewards of a task of {self.name} are finite numbers")
        sums = transitions.sum(axis=-1)
        # NaN in a row makes its sum NaN, which is not close to 1.
        fine = (transitions >= 0).all(axis=-1) & (np.abs(sums - 1) <= TOLERANCE)
        if not fine.all():
            state, action = np.argwhere(~fine)[0]
            raise TaskError(
                f"in a task of {self.name} the probabilities of the next state are not negative "
                f"and add up to 1, but for state {state} and action {action} they are "
                f"{transitions[state, action].tolist()}"
            )
        return row

    def expected_reward(self, tasks: np.ndarray, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Return mean rewards, minus that of the best actions, averaged over states."""
        rewards, _ = self.tables(tasks)  # (n, S, A)
        trial = np.arange(len(tasks))[:, None]
        found = rewards[trial, obs.argmax(axis=-1), action[..., 0].astype(np.int64)]
        return found - rewards.max(axis=2).mean(axis=1, keepdims=True)

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> TabularBatchEnv:
        return TabularBatchEnv(self, num_episodes, num_threads)

    def make_renderer(self, width: int, height: int) -> TabularRenderer:
        return TabularRenderer(self, width, height)

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        rewards, _ = self.tables(task)
        here = int(state[0])
        return f"state {here}, best action's mean reward {rewards[here].max():+.1f}"


class TabularBatchEnv(BatchEnv):
    """N walks through MDPs.

    The noise of an episode is drawn at its reset, for `horizon` steps. Steps beyond the horizon,
    which only speed measurements take, repeat the noise.
    """

    family: TabularMDP

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        horizon = self.family.horizon
        self.rewards, transitions = self.family.tables(np.asarray(tasks, np.float64))
        cumulative = transitions.cumsum(axis=-1)
        # The last entry is exactly 1, so that every uniform number below 1 selects a state.
        self.cumulative = cumulative / cumulative[..., -1:]  # (N, S, A, S)
        # Reward noise is drawn even if reward_std is 0, so that transitions do not depend on it.
        noise = [(rng.random(horizon), rng.standard_normal(horizon)) for rng in rngs]
        self.uniforms, self.normals = np.stack(noise, axis=1)  # (N, T) each
        self.state = np.zeros(self.num_episodes, np.int64)
        self.action = np.full(self.num_episodes, -1)  # none so far
        self.steps_taken = np.zeros(self.num_episodes, np.int64)
        return self._observe()

    def _observe(self) -> np.ndarray:
        return np.eye(self.family.num_states)[self.state]

    def _stepped(self, ids: np.ndarray | None) -> np.ndarray:
        return np.arange(self.num_episodes) if ids is None else ids

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        start = time.perf_counter()
        rows, index = self._stepped(ids), self.action_indices(action, ids)
        uniform = self.uniforms[rows, self.steps_taken[rows] % self.family.horizon]
        cumulative = self.cumulative[rows, self.state[rows], index]  # (n, S)
        self.state[rows] = (cumulative <= uniform[:, None]).sum(axis=1)
        self.action[rows] = index
        self.steps_taken[rows] += 1
        self.physics_seconds += time.perf_counter() - start

    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        before, steps_before = self.state.copy(), self.steps_taken % self.family.horizon
        self.advance(action, ids)
        rows = self._stepped(ids)
        noise = self.family.reward_std * self.normals[rows, steps_before[rows]]
        reward = np.zeros(self.num_episodes)
        reward[rows] = self.rewards[rows, before[rows], self.action[rows]] + noise
        return self._observe(), reward, np.zeros(self.num_episodes, bool)

    def render_state(self, episode: int) -> np.ndarray:
        return np.array([self.state[episode], self.action[episode]])


class TabularRenderer:
    """Renders an episode on a table of the mean rewards of states (columns) and actions (rows).

    Higher rewards are darker. A render state is the state and the action that led to it, (2,).

    The current state has a red frame. A dot marks an action taken; its size grows with the count.
    """

    def __init__(self, family: TabularMDP, width: int, height: int) -> None:
        self._family, self._size = family, (width, height)
        self._cell = min(width / (family.num_states + 1), height / (family.num_actions + 1))

    def _box(self, state: int, action: int, num_actions: int = 1) -> tuple[float, ...]:
        """Return left, top, right and bottom, pixels, of the cells of `num_actions` actions."""
        cell, (width, height) = self._cell, self._size
        left = width / 2 + cell * (state - self._family.num_states / 2)
        top = height / 2 + cell * (action - self._family.num_actions / 2)
        return left, top, left + cell, top + cell * num_actions

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the image of the states, (t, 2), up to a time, and the task, (task_dim,).

        Args and errors are those of `Renderer.draw`.
        """
        states = states[: frame_at(states, time)[0] + 1]
        rewards, _ = self._family.tables(task)
        shade = (rewards - rewards.min()) / max(np.ptp(rewards), 1e-9)  # (S, A), from 0 to 1
        worst, best = (np.array(ImageColor.getrgb(colour)) for colour in (WORST, BEST))
        colours = np.rint(worst + shade[..., None] * (best - worst)).astype(int)
        image = Image.new("RGB", self._size, BACKGROUND)
        canvas = ImageDraw.Draw(image)
        for state, action in np.ndindex(rewards.shape):
            canvas.rectangle(self._box(state, action), tuple(colours[state, action]), BACKGROUND)
        taken = np.zeros(rewards.shape, int)
        np.add.at(taken, (states[:-1, 0], states[1:, 1]), 1)
        for state, action in np.argwhere(taken):
            left, top, right, bottom = self._box(state, action)
            radius = self._cell * min(0.4, 0.12 * math.sqrt(taken[state, action]))
            canvas.circle(((left + right) / 2, (top + bottom) / 2), radius, VISITED)
        frame = self._box(states[-1, 0], 0, self._family.num_actions)
        canvas.rectangle(frame, outline=CURRENT, width=max(2, round(self._cell / 12)))
        return np.asarray(image)

    def close(self) -> None:
        """Nothing to free."""
