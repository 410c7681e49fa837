"""The interface of a task family and of its batch environments.

A *task family* is a distribution over tasks that share their spaces and their horizon. A task is a
row of numbers (a goal, a direction, a scale). A family makes *batch environments*: N episodes, each
under its own task, stepped together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.fields import check_fields
from metarl.envs.rendering import Renderer
from metarl.envs.task_distribution import TaskDistribution

StepResult: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The results of a step: obs (N, obs_dim), reward (N,) and terminated (N,) bool."""


def is_class_variable(annotation: object) -> bool:
    """Return whether an annotation, or its text, is a ClassVar."""
    return str(annotation).removeprefix("typing.").startswith("ClassVar")


@dataclass(frozen=True)
class TaskFamily(TaskDistribution):
    """A distribution of tasks that share their spaces and their horizon, and the batch environments
    of their episodes. The dataclass fields of a family are the `env` keys of a config."""

    horizon: int
    """Length of an episode in control steps."""

    source: ClassVar[str] = ""
    """Where the task was published."""
    finite_horizon: ClassVar[bool] = True
    """Whether the value of the state at the horizon is 0. If false, the horizon truncates an
    endless task, and the value of the last state is bootstrapped."""
    knows_expected_reward: ClassVar[bool] = False
    """Whether `expected_reward` is defined."""
    visible_task: ClassVar[tuple[int, ...]] = ()
    """Indices of the numbers of a task that observations may show, such as the positions of visible
    objects. An agent has to adapt to the other numbers."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.horizon < 1:
            raise ValueError(f"horizon: expected at least 1, got {self.horizon}")

    @property
    @abstractmethod
    def observation_space(self) -> Box:
        """The space of one observation, (obs_dim,)."""

    @property
    @abstractmethod
    def action_space(self) -> Box | Discrete:
        """The space of one action: a Box, (action_dim,), into which actions beyond it are clipped,
        or a Discrete space that starts at 0."""

    @property
    def action_dim(self) -> int:
        """The size of a row of an action array; 1, for the index, if the space is Discrete."""
        space = self.action_space
        return 1 if isinstance(space, Discrete) else space.shape[0]

    @property
    def zero_action(self) -> np.ndarray:
        """The policy's action that is zero in the environment's own units, (action_dim,).

        It may lie beyond the action space: that of an environment whose range, such as [1, 2], has
        no zero is clipped to the nearest action.
        """
        return np.zeros(self.action_dim)

    @property
    def frames_per_second(self) -> float:
        """Default number of control steps per second of video."""
        return 20.0

    @abstractmethod
    def make_batch(self, num_episodes: int, num_threads: int = 1) -> BatchEnv:
        """Make an environment of `num_episodes` episodes, stepped on `num_threads` threads."""

    def check_repeatable(self) -> None:
        """Check that an episode is determined by its task, seed and actions, where the environment
        is not metarl's own; training begins with it. By default nothing is checked.

        Raises:
            RuntimeError: if it is not; the message names the difference and a remedy.
        """

    def expected_reward(self, tasks: np.ndarray, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Return the mean of the rewards of actions in their tasks, minus a number that the task
        alone determines, such as the mean reward of the best action; (n, L). Learning may take it
        in place of rewards, which vary more (`agent.update.reward`), where no episode ends early.

        Args:
            tasks: (n, task_dim).
            obs: observations before the actions, (n, L, obs_dim).
            action: (n, L, action_dim); for a Discrete space the indices, as floats.
        """
        raise NotImplementedError(f"{self.name} does not define expected_reward")

    @abstractmethod
    def make_renderer(self, width: int, height: int) -> Renderer:
        """Make a renderer of this family's episodes; the size of its images is in pixels.

        Raises:
            RenderingUnavailable: if the family cannot be rendered here. `draw` may raise it too.
        """

    @abstractmethod
    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        """Return one line of text on a render state, (k,), and its task, (task_dim,)."""


class BatchEnv(ABC):
    """N episodes of one family, each under its own task, stepped together.

    Attributes:
        family: the task family.
        num_episodes: N.
        num_threads: number of threads that step the physics; results do not depend on it.
        physics_seconds: time spent in the physics engine so far.
        success: whether each episode has succeeded so far, (N,) bool; None if the environment does
            not define success.
        truncated: whether the last step of each episode ended it by a truncation, after which its
            return is continued by the value of its last state, (N,) bool; None if only the horizon
            truncates episodes.
    """

    success: np.ndarray | None = None
    truncated: np.ndarray | None = None

    def __init__(self, family: TaskFamily, num_episodes: int, num_threads: int) -> None:
        self.family = family
        self.num_episodes = num_episodes
        self.num_threads = num_threads
        self.physics_seconds = 0.0

    @abstractmethod
    def reset(self, tasks: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Begin N episodes and return their first observations, (N, obs_dim).

        Args:
            tasks: the task of each episode, (N, task_dim).
            rngs: a random number generator for each episode, the only source of its initial state
                and of the noise of all its steps. All of it is drawn during this call, so that it
                does not depend on other episodes or on threads.
        """

    @abstractmethod
    def step(self, action: np.ndarray, ids: np.ndarray | None = None) -> StepResult:
        """Advance the episodes by one control step.

        Args:
            action: (N, action_dim); for a Discrete space the indices, as floats.
            ids: the episodes to step, (n,) integers; None for all. Other episodes keep their state.

        Returns:
            obs (N, obs_dim), reward (N,) and terminated (N,) bool, fresh arrays. The rows of
            episodes that were not stepped are undefined.

        Raises:
            SimulationDiverged: if the state of an episode that was stepped is no longer finite. All
                others were advanced, with the results in `result`; diverged episodes must not be
                stepped again before the next reset.
            ValueError: if the index of a Discrete action is not a whole number in range.
        """

    @abstractmethod
    def advance(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Step the dynamics only, without observations and rewards: the limit of `step`'s speed.

        Args and errors are those of `step`; the error has no `result`.
        """

    @abstractmethod
    def render_state(self, episode: int) -> np.ndarray:
        """Return the current state of an episode as its `Renderer` needs it, (k,), a copy."""

    def close(self) -> None:  # noqa: B027 (most environments hold nothing)
        """End what the environment holds, such as worker processes. It cannot be used afterwards.
        Without a call they end with the object."""

    def action_indices(self, action: np.ndarray, ids: np.ndarray | None = None) -> np.ndarray:
        """Return the indices, (n,) integers, of the stepped episodes' Discrete actions, (N, 1).

        Raises:
            ValueError: if the shape is another, or an index is not a whole number in range.
        """
        assert isinstance(self.family.action_space, Discrete)
        if np.shape(action) != (self.num_episodes, 1):
            raise ValueError(
                f"action: expected the shape {(self.num_episodes, 1)}, got {np.shape(action)}"
            )
        index = np.asarray(action, np.float64)[slice(None) if ids is None else ids, 0]
        last = self.family.action_space.n - 1
        # NaN is not in range, and an infinity is beyond it.
        wrong = ~((index >= 0) & (index <= last) & (index == np.floor(index)))
        if wrong.any():
            raise ValueError(
                f"action: expected a whole number from 0 to {last}, got {float(index[wrong][0])}"
            )
        return index.astype(np.int64)
