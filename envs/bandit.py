"""Bernoulli bandits: arms that pay 1 with unknown probabilities. No physics engine needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from PIL import Image, ImageDraw

from metarl.envs.base import BatchEnv, StepResult, TaskFamily
from metarl.envs.rendering import frame_at

MAX_ARMS = 10_000

BACKGROUND, CHANCE, BEST_CHANCE, SLOT = "#f7f7f5", "#a9c5e3", "#2a6fbb", "#ffffff"
PAID, NOT_PAID, PULLED = "#2e8b57", "#c0392b", "#1d2430"


@dataclass(frozen=True)
class Bandit(TaskFamily):
    """Pull one of K arms at every step: it pays 1 with its own probability, and 0 otherwise.

    A task is the probabilities of the arms, each drawn uniformly from 0 to 1. An episode is RL2's
    trial of n pulls: `horizon` is n, and the paper has 10, 100 and 500. Nothing is observed (the
    observation is always 0), so only an agent that remembers its actions and rewards can adapt
    within an episode. `metarl.envs.references.bandit` computes what a Bayes-optimal agent reaches.
    """

    horizon: int = 10
    """Length of an episode in control steps."""
    num_arms: int = 5
    """K, the number of arms."""

    name: ClassVar[str] = "bandit"
    source: ClassVar[str] = "Duan et al. 2016 (RL2)"
    uniform_tasks: ClassVar[bool] = True
    knows_expected_reward: ClassVar[bool] = True
    no_ood_reason: ClassVar[str] = "its tasks are all probabilities there are"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.num_arms <= MAX_ARMS:
            raise ValueError(f"num_arms: expected from 2 to {MAX_ARMS}, got {self.num_arms}")

    @property
    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (1,), np.float64)

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.num_arms)

    @property
    def frames_per_second(self) -> float:
        return 5.0

    @property
    def task_space(self) -> Box:
        return Box(0.0, 1.0, (self.num_arms,), np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return rng.random((num_tasks, self.num_arms))

    def expected_reward(self, tasks: np.ndarray, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Return minus the regret of each pull: how much rarer its arm pays than the best one."""
        chance = np.take_along_axis(tasks, action[..., 0].astype(np.int64), axis=1)
        return chance - tasks.max(axis=1, keepdims=True)

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> BanditBatchEnv:
        return BanditBatchEnv(self, num_episodes, num_threads)

    def make_renderer(self, width: int, height: int) -> BanditRenderer:
        return BanditRenderer(self, width, height)

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        pulls, paid = state[2:]
        return f"{paid:.0f} of {pulls:.0f} pulls paid, best arm {task.max():.0%}"


class BanditBatchEnv(BatchEnv):
    """N bandits.

    The noise of an episode is drawn at its reset, for `horizon` pulls. Pulls beyond the horizon,
    which only speed measurements make, repeat the noise.
    """

    family: Bandit

    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        self.tasks = np.array(tasks, np.float64)
        self.uniforms = np.stack([rng.random(self.family.horizon) for rng in rngs])  # (N, T)
        # The last arm (-1 for none), whether it paid, the number of pulls, and of those that paid
        self.state = np.tile([-1, 0, 0, 0], (self.num_episodes, 1))
        return np.zeros((self.num_episodes, 1))

    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        start = time.perf_counter()
        rows = np.arange(self.num_episodes) if ids is None else ids
        arm, (_, _, pulls, total) = self.action_indices(action, ids), self.state[rows].T
        paid = self.uniforms[rows, pulls % self.family.horizon] < self.tasks[rows, arm]
        self.state[rows] = np.stack([arm, paid, pulls + 1, total + paid], axis=1)
        self.physics_seconds += time.perf_counter() - start

    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        self.advance(action, ids)
        reward = self.state[:, 1].astype(np.float64)
        return np.zeros((self.num_episodes, 1)), reward, np.zeros(self.num_episodes, bool)

    def render_state(self, episode: int) -> np.ndarray:
        return self.state[episode].copy()


class BanditRenderer:
    """Renders a column for each arm: the probability that it pays, and below it its pulls.

    A render state is the last arm (-1 for none), whether it paid, the number of pulls, and the
    number of those that paid, (4,). The best arm's probability is darker. A pull that paid is a
    green block, one that did not a red block, and the arm that was pulled last has a frame.
    """

    def __init__(self, family: Bandit, width: int, height: int) -> None:
        self._family, self._image_size = family, (width, height)
        self._margin, self._column = 0.06 * height, width / (family.num_arms + 1)

    def _box(self, arm: int, top: float, bottom: float) -> tuple[float, float, float, float]:
        """Return the box of a part of an arm's column, from its top, 0, to its bottom, 1."""
        centre, half = self._column * (arm + 1), 0.4 * self._column
        tall = self._image_size[1] - 2 * self._margin
        return (
            centre - half,
            self._margin + top * tall,
            centre + half,
            self._margin + bottom * tall,
        )

    def draw(self, states: np.ndarray, task: np.ndarray, time: float | None = None) -> np.ndarray:
        """Return the image of the pulls, (t, 4), up to a time, and the probabilities, (K,).

        Args and errors are those of `Renderer.draw`.
        """
        states = states[: frame_at(states, time)[0] + 1].astype(int)
        image = Image.new("RGB", self._image_size, BACKGROUND)
        canvas = ImageDraw.Draw(image)
        line = max(2, round(self._column / 20))
        for arm, chance in enumerate(task):
            canvas.rectangle(self._box(arm, 0.0, 0.5), SLOT)
            colour = BEST_CHANCE if arm == task.argmax() else CHANCE
            canvas.rectangle(self._box(arm, 0.5 * (1 - chance), 0.5), colour)
            paid = states[states[:, 0] == arm, 1]
            for i, each in enumerate(np.sort(paid)[::-1]):
                # All pulls of an episode fit below each other.
                top, bottom = 0.52 + 0.48 * np.array([i, i + 1]) / self._family.horizon
                box = self._box(arm, top, bottom)
                outline = BACKGROUND if box[3] - box[1] > 3 else None
                canvas.rectangle(box, PAID if each else NOT_PAID, outline)
        if states[-1, 0] >= 0:
            frame = self._box(states[-1, 0], -0.02, 1.02)
            canvas.rectangle(frame, outline=PULLED, width=line)
        return np.asarray(image)

    def close(self) -> None:
        """Nothing to free."""
