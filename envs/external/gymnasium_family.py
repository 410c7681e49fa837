"""Any Gymnasium environment as a task family, defined by its config alone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box

from metarl.envs.external.description import Description, Environment, Route
from metarl.envs.external.family import ExternalFamily, Truncation
from metarl.envs.external.process import EnvironmentRefused
from metarl.envs.task_distribution import MARGIN

INCLUDED = Path(__file__).parent
"""The folder of the environments that come with metarl."""
CARTPOLE = "cartpole.py:CartPole"
OF_CARTPOLE = {"length": (0.25, 1.5), "gravity": (5.0, 15.0)}
"""The environment and the parameters that differ between tasks, where none are given."""


@dataclass(frozen=True)
class GymnasiumFamily(ExternalFamily):
    """Any Gymnasium environment, under tasks that set some of its parameters at random.

    By default CartPole with poles of different lengths under different gravity. Out of
    distribution are tasks with some parameter above its range by up to half the range.
    """

    horizon: int = 200
    """Length of an episode in control steps; the environment's own time limit is taken off."""
    env_id: str = CARTPOLE
    """A Gymnasium id such as CartPole-v1, or package:Id-v0, which imports the package first, or
    package.module:Class, or path/to/file.py:Class (or a function). The path of a file counts from
    the folder of the config, or else from the current folder, and is kept absolute.
    cartpole.py:CartPole is CartPole-v1 with parameters that may be set."""
    parameters: Mapping[str, tuple[float, float]] = field(default_factory=lambda: OF_CARTPOLE)
    """The parameters that differ between tasks, with their lowest and highest values; uniform
    between them."""
    route: Route = "attribute"
    """How a task is passed to the environment: as keyword arguments of the constructor, attributes
    of the unwrapped environment (set before each reset), or options of the reset."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the constructor, the same for all tasks."""
    finite_horizon: bool = True  # pyright: ignore[reportIncompatibleVariableOverride]
    """Whether the value of the state at the horizon is 0; if false, it is bootstrapped."""

    truncation: Truncation = "refuse"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The reaction to an environment that truncates an episode: `refuse` stops if that is before
    the horizon; `bootstrap` ends the episode and continues its return by the value of its last
    state, at the horizon too."""

    name: ClassVar[str] = "gymnasium"
    source: ClassVar[str] = "Gymnasium, or your own"
    dynamics_tasks: ClassVar[bool] = True
    uniform_tasks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parameters:
            raise ValueError("parameters: expected at least one that differs between tasks")
        if not isinstance(self.parameters, Mapping):
            raise ValueError(f"parameters: expected names and ranges, got {self.parameters!r}")
        ranges = {name: numbers_of(name, each) for name, each in self.parameters.items()}
        if all(low == high for low, high in ranges.values()):
            raise ValueError(
                "parameters: expected a range with low < high, so that tasks differ, got "
                f"{dict(self.parameters)}"
            )
        if not isinstance(self.env_id, str):
            raise ValueError(f"env_id: expected a text, got {self.env_id!r}")
        try:
            kwargs = json.loads(json.dumps(dict(self.kwargs)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"kwargs: expected plain values, fit for JSON: {error}") from error
        # The dataclass is frozen.
        object.__setattr__(self, "parameters", ranges)
        object.__setattr__(self, "kwargs", kwargs)
        object.__setattr__(self, "env_id", locate(self.env_id))

    @property
    def description(self) -> Description:
        try:
            return super().description
        except EnvironmentRefused as error:
            usual = {
                "env.env_id": self.env_id == locate(CARTPOLE),
                "env.parameters": dict(self.parameters) == OF_CARTPOLE,
            }
            missing = [key for key, is_usual in usual.items() if is_usual]
            is_of_parameters = re.search("has no attribute|keyword arguments", str(error))
            if len(missing) == 1 and is_of_parameters:
                hint = f"{missing[0]} is not given, and that of CartPole is used"
                raise EnvironmentRefused(f"{error}; {hint}") from error
            raise

    @property
    def environment(self) -> Environment:
        name = f"{INCLUDED}/{self.env_id}" if is_included(self.env_id) else self.env_id
        return Environment(name, tuple(self.parameters), self.route, self.kwargs)

    @property
    def task_space(self) -> Box:
        low, high = np.array(list(self.parameters.values())).T
        return Box(low, high, dtype=np.float64)

    @property
    def ood_space(self) -> Box:
        space = self.task_space
        high = space.low + MARGIN * (space.high - space.low)
        return Box(space.low, high, dtype=np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        space = self.task_space
        return rng.uniform(space.low, space.high, (num_tasks, *space.shape))

    def task_settings(self) -> dict[str, Any]:
        # Of a file, only its name: tasks are the same wherever the file is.
        file, colon, attribute = self.env_id.rpartition(":")
        name = Path(file).name if is_file_name(self.env_id) else file
        return {**super().task_settings(), "env_id": f"{name}{colon}{attribute}"}


def numbers_of(name: str, values: Any) -> tuple[float, float]:
    """Return the lowest and the highest value of a parameter.

    Raises:
        ValueError: if they are not two finite numbers in order.
    """
    try:
        low, high = map(float, values)
    except (TypeError, ValueError):
        low = high = np.nan
    if not -np.inf < low <= high < np.inf:
        raise ValueError(f"parameters.{name}: expected [low, high] with low <= high, got {values}")
    return low, high


def locate(name: str, *folders: Path) -> str:
    """Return the name of an environment, with the file in it, if any, as an absolute path.

    A file is searched in the folders, then in the current folder. The name of a file that comes
    with metarl, such as `cartpole.py:CartPole`, is returned as it is if no folder has such a file.
    """
    if not is_file_name(name):
        return name
    file, _, attribute = name.rpartition(":")
    paths = [os.path.abspath(Path(each, os.path.expanduser(file))) for each in (*folders, "")]
    found = next((path for path in paths if os.path.isfile(path)), None)
    if found is None and is_included(name):
        return name
    return f"{found or paths[0]}:{attribute}"


def is_file_name(name: str) -> bool:
    """Return whether the name of an environment is `path/to/file.py:Name`."""
    return name.rpartition(":")[0].endswith(".py")


def is_included(name: str) -> bool:
    """Return whether the name of an environment names a file that comes with metarl."""
    file = name.rpartition(":")[0]
    return is_file_name(name) and Path(file).name == file and os.path.isfile(INCLUDED / file)
