"""The interface of a task family and of its batch environments.

A *task family* is a distribution over tasks that share their spaces and their horizon. A task is a
row of numbers (a goal, a direction, a scale). A family makes *batch environments*: N episodes, each
under its own task, stepped together.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.errors import TaskError
from metarl.envs.rendering import Renderer

SPLITS = ("train", "validation", "test", "ood")
"""The named task sets of a family. Not every family has tasks out of distribution (`ood`)."""

MARGIN = 1.5
"""Width of the range of tasks out of distribution, as a multiple of the task space's."""


StepResult: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The results of a step: obs (N, obs_dim), reward (N,) and terminated (N,) bool."""


@dataclass(frozen=True)
class TaskFamily(ABC):
    """A distribution of tasks. The dataclass fields of a family are the `env` keys of a config."""

    horizon: int
    """Length of an episode in control steps."""

    name: ClassVar[str]
    """The name under which configs and the command line know the family."""
    source: ClassVar[str]
    """Where the task was published."""
    finite_horizon: ClassVar[bool] = True
    """Whether the value of the state at the horizon is 0. If false, the horizon truncates an
    endless task, and the value of the last state is bootstrapped."""
    visible_task: ClassVar[tuple[int, ...]] = ()
    """Indices of the numbers of a task that observations may show, such as the positions of visible
    objects. An agent has to adapt to the other numbers."""
    dynamics_tasks: ClassVar[bool] = False
    """Whether the numbers of a task are parameters of the dynamics, which may drift while an agent
    adapts (`sampling.drift`)."""
    uniform_tasks: ClassVar[bool] = False
    """Whether tasks are drawn uniformly from the task space, each number for itself."""
    no_ood_reason: ClassVar[str] = "its tasks have no range that could be left"
    """Why a family whose `ood_space` is its task space has no tasks out of distribution."""

    def __init_subclass__(cls) -> None:
        """Take the coordinates of tasks from a class that draws its tasks in another way than its
        base class, and says nothing of coordinates."""
        super().__init_subclass__()
        own = vars(cls).keys()
        if "sample_tasks" in own and not own & {"uniform_tasks", "num_coordinates"}:
            cls.uniform_tasks = False
            cls.num_coordinates = TaskFamily.num_coordinates  # pyright: ignore[reportAttributeAccessIssue]

    def __post_init__(self) -> None:
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
    @abstractmethod
    def task_space(self) -> Box:
        """The space of one task, (task_dim,)."""

    @property
    def ood_space(self) -> Box:
        """The space of the tasks out of distribution: the task space and a margin around it.

        By default the task space itself: there are none.
        """
        return self.task_space

    @property
    def splits(self) -> tuple[str, ...]:
        """The named task sets that the family has."""
        return SPLITS if self.ood_space != self.task_space else SPLITS[:-1]

    @property
    def all_tasks(self) -> np.ndarray | None:
        """Every task of a finite distribution, (n, task_dim), all equally probable, in the order in
        which the task sets go through them again and again; None, the default, if there are
        infinitely many. A family with few tasks has to name them: else its task sets hold some more
        often than others, and training meets the tasks of the other sets.
        """
        return None

    @property
    def num_all_tasks(self) -> int | None:
        """Number of tasks of a finite distribution; None if there are infinitely many."""
        return None if self.all_tasks is None else len(self.all_tasks)

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
    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        """Draw tasks from the distribution, (num_tasks, task_dim) float64."""

    @property
    def num_coordinates(self) -> int:
        """Number k of the coordinates of a task (`tasks_at`); 0 for tasks without coordinates."""
        return self.task_space.shape[0] if self.uniform_tasks else 0

    def tasks_at(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the tasks at coordinates, (n, task_dim) float64.

        Args:
            coordinates: (n, k), in [0, 1]. Independent, uniform coordinates give tasks of the
                distribution of `sample_tasks`.
        """
        low, high = (np.asarray(x, np.float64) for x in (self.task_space.low, self.task_space.high))
        return low + (high - low) * coordinates

    def in_distribution(self, task: np.ndarray) -> bool:
        """Return whether `sample_tasks` could draw a task, (task_dim,)."""
        if self.all_tasks is not None:
            return bool((self.all_tasks == task).all(axis=1).any())
        low, high = self.task_space.low, self.task_space.high
        return bool(((task >= low) & (task <= high)).all())

    def sample_ood_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        """Draw tasks out of distribution, (num_tasks, task_dim): uniformly from `ood_space`.

        Raises:
            RuntimeError: if hardly any task there is out of distribution.
        """
        rows: list[np.ndarray] = []
        for _ in range(1000 * num_tasks):
            row = rng.uniform(self.ood_space.low, self.ood_space.high)
            if not self.in_distribution(row):
                rows.append(row)
            if len(rows) == num_tasks:
                return np.stack(rows)
        raise RuntimeError(
            f"{self.name}: in_distribution accepts nearly all tasks of ood_space; make that larger"
        )

    @abstractmethod
    def make_batch(self, num_episodes: int, num_threads: int = 1) -> BatchEnv:
        """Make an environment of `num_episodes` episodes, stepped on `num_threads` threads."""

    def check_repeatable(self) -> None:  # noqa: B027 (most families have nothing to check)
        """Check that an episode is determined by its task, seed and actions, where the environment
        is not metarl's own; training begins with it. By default nothing is checked.

        Raises:
            RuntimeError: if it is not; the message names the difference and a remedy.
        """

    @abstractmethod
    def make_renderer(self, width: int, height: int) -> Renderer:
        """Make a renderer of this family's episodes; the size of its images is in pixels.

        Raises:
            RenderingUnavailable: if the family cannot be rendered here. `draw` may raise it too.
        """

    @abstractmethod
    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        """Return one line of text on a render state, (k,), and its task, (task_dim,)."""

    def tasks(self, split: str, num_tasks: int) -> np.ndarray:
        """Return the first tasks of a fixed set, (num_tasks, task_dim).

        Task number i of a split does not depend on `num_tasks`. Training draws its tasks from the
        distribution by its own seed, and in a continuous task space practically never draws a
        validation or test task. The train split is for evaluation on tasks like those of training,
        `ood` for tasks beyond the range of all others. Where the distribution is finite, every set
        but `ood` goes through `all_tasks` in turn, so that each is there equally often.

        Raises:
            ValueError: if the split is unknown, the family does not have it, or no task is asked
                for.
        """
        if num_tasks < 1:
            raise ValueError(f"num_tasks: expected at least 1, got {num_tasks}")
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: expected one of {', '.join(self.splits)}")
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}: {self.no_ood_reason}")
        if self.all_tasks is not None and split != "ood":
            return self.all_tasks[np.arange(num_tasks) % len(self.all_tasks)]
        # The last word of the counter separates these numbers from those of training runs.
        key = [SPLITS.index(split), 0]
        philoxes = (np.random.Philox(key=key, counter=[0, i, 0, 1]) for i in range(num_tasks))
        sample = self.sample_ood_tasks if split == "ood" else self.sample_tasks
        rows = [sample(np.random.Generator(philox), 1) for philox in philoxes]
        return np.concatenate(rows)

    def task_settings(self) -> dict[str, Any]:
        """Return the fields that enter `task_hash`, all of them by default."""
        return asdict(self)

    def task_hash(self, tasks: np.ndarray) -> str:
        """Return a fingerprint, 16 hex digits, of the tasks, (n, task_dim), and their family.

        Only fields that differ from their defaults enter the hash, so that adding a field to a
        family does not change existing hashes.
        """
        defaults = {field.name: field.default for field in fields(self)}
        settings = self.task_settings().items()
        changed = {name: value for name, value in settings if value != defaults[name]}
        text = json.dumps({"family": self.name, **changed}, sort_keys=True)
        content = text.encode() + np.ascontiguousarray(tasks, np.float64).tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def check_task(self, task: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the task as a row, (task_dim,) float64.

        Raises:
            TaskError: if it has the wrong size or lies outside the task space and the space of
                the tasks out of distribution.
        """
        row = np.atleast_1d(np.array(task, np.float64))
        low, high = self.ood_space.low.astype(np.float64), self.ood_space.high.astype(np.float64)
        if row.shape != low.shape:
            raise TaskError(f"a task of {self.name} has {low.size} number(s), got {row.tolist()}")
        if not np.all((row >= low) & (row <= high)):
            raise TaskError(
                f"a task of {self.name} lies between {low.tolist()} and {high.tolist()}, "
                f"got {row.tolist()} (nearest: {np.clip(row, low, high).tolist()})"
            )
        return row


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
