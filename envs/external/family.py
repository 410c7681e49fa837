"""Any Gymnasium environment as a task family: its episodes run in worker processes."""

from __future__ import annotations

import json
import os
import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import MARGIN, TaskFamily
from metarl.envs.external.batch import ExternalBatchEnv
from metarl.envs.external.description import Description, Environment, Route, describe
from metarl.envs.external.pool import Pool
from metarl.envs.external.scene import ExternalScene

HERE = Path(__file__).parent


@dataclass(frozen=True)
class ExternalFamily(TaskFamily):
    """Tasks on an environment that worker processes play.

    A subclass says which environment, and which tasks: `environment`, `task_space` and
    `sample_tasks`. How many workers there are, and whether one is lost, changes no result.
    """

    action_scale: float = 1.0
    """The policy action that reaches the bounds of a Box action space: from minus to plus this it
    maps onto low to high, and what lies beyond is clipped. Unbounded actions stay as they are."""
    workers: int = 0
    """Worker processes; 0 for one per thread. No influence on the results."""
    timeout: float = 60.0
    """Seconds that one call of the environment may take until its worker is started again."""
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
        """What the workers make, and how a task reaches it."""

    @property
    def interpreter(self) -> str:
        """The path of the interpreter that runs the workers."""
        return os.path.expanduser(self.python) or sys.executable

    @property
    def middle_task(self) -> np.ndarray:
        """A task on which the environment is tried, (task_dim,): the middle of the task space."""
        return (self.task_space.low + self.task_space.high) / 2

    @property
    def description(self) -> Description:
        """What the environment says of itself, asked once.

        Raises:
            WorkerError: if it does not exist or cannot be used; says what helps.
        """
        trial = self.middle_task.tolist()
        return describe(self.environment, trial, self.interpreter, self.timeout)

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
        share = np.clip(action / self.action_scale, -1.0, 1.0)
        scaled = (high + low) / 2 + share * ((high - low) / 2)
        return np.where(bounded, scaled, np.clip(action, found.action_low, found.action_high))

    @property
    def frames_per_second(self) -> float:
        return float(self.description.frames_per_second or 20.0)

    def make_batch(self, num_episodes: int, num_threads: int = 1) -> ExternalBatchEnv:
        return ExternalBatchEnv(self, num_episodes, num_threads)

    def make_pool(self, num_episodes: int, num_workers: int, *, render: bool = False) -> Pool:
        """Make the workers that play a number of episodes, and draw them if asked to."""
        found = self.description
        sizes = {
            "episodes": num_episodes,
            "workers": num_workers,
            "obs": len(found.obs_low),
            "action": found.action_dim,
            "task": len(self.environment.parameters),
        }
        return Pool(self.environment, sizes, self.interpreter, self.timeout, render)

    def make_scene(self, width: int, height: int) -> ExternalScene:
        return ExternalScene(self, width, height)

    def describe(self, state: np.ndarray, task: np.ndarray) -> str:
        names = self.environment.parameters
        return ", ".join(f"{n} {value:.3g}" for n, value in zip(names, task, strict=True))

    def task_hash(self, tasks: np.ndarray) -> str:
        # Where and how the environment runs does not tell tasks apart.
        usual = replace(self, workers=0, timeout=60.0, python="")
        return super(ExternalFamily, usual).task_hash(tasks)


@dataclass(frozen=True)
class GymnasiumFamily(ExternalFamily):
    """Any Gymnasium environment, under tasks that set some of its parameters at random.

    By default CartPole with poles of different lengths under different gravity. Out of
    distribution are tasks of which some parameter is beyond its range, above it by up to half.
    """

    horizon: int = 200
    """Length of an episode in control steps; the environment's own time limit is taken off."""
    env_id: str = "cartpole.py:CartPole"
    """A Gymnasium id such as CartPole-v1, or package.module:Class, or path/to/file.py:Class (or a
    function). cartpole.py:CartPole is CartPole-v1 with parameters that may be set."""
    parameters: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: {"length": (0.25, 1.5), "gravity": (5.0, 15.0)}
    )
    """What differs between tasks, with its lowest and highest value; uniform between them."""
    route: Route = "attribute"
    """How a task reaches the environment: as a keyword argument of the constructor, an attribute of
    the unwrapped environment (set before each reset), or options of the reset."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the constructor, the same for all tasks."""
    finite_horizon: bool = True  # pyright: ignore[reportIncompatibleVariableOverride]
    """Whether nothing beyond the horizon counts; if false, the value of the last state does."""

    name: ClassVar[str] = "gymnasium"
    source: ClassVar[str] = "Gymnasium, or your own"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parameters:
            raise ValueError("parameters: expected at least one that differs between tasks")
        if self.route not in get_args(Route):
            known = ", ".join(get_args(Route))
            raise ValueError(f"route: expected one of {known}, got {self.route!r}")
        ranges = {name: (float(low), float(high)) for name, (low, high) in self.parameters.items()}
        for name, (low, high) in ranges.items():
            if not -np.inf < low <= high < np.inf:
                raise ValueError(
                    f"parameters.{name}: expected [low, high] with low <= high, got {[low, high]}"
                )
        try:
            kwargs = json.loads(json.dumps(dict(self.kwargs)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"kwargs: expected plain values, fit for JSON: {error}") from error
        # What is frozen is set this way.
        object.__setattr__(self, "parameters", ranges)
        object.__setattr__(self, "kwargs", kwargs)

    @property
    def environment(self) -> Environment:
        return Environment(locate(self.env_id), tuple(self.parameters), self.route, self.kwargs)

    @property
    def task_space(self) -> Box:
        low, high = np.array(list(self.parameters.values())).T
        return Box(low, high, dtype=np.float64)

    @property
    def ood_space(self) -> Box:
        space = self.task_space
        highest = space.low + MARGIN * (space.high - space.low)
        return Box(space.low, highest, dtype=np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        space = self.task_space
        return rng.uniform(space.low, space.high, (num_tasks, *space.shape))


def locate(name: str) -> str:
    """Return the name of an environment, a file of it by its whole path.

    A file is looked for in the current folder, then beside this one.
    """
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py"):
        return name
    ours = HERE / file
    path = ours if ours.is_file() and not Path(file).is_file() else Path(file).absolute()
    return f"{path}:{attribute}"
