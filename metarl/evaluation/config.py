"""The settings of an evaluation, the same for every protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral
from typing import Any, get_args

import numpy as np

from metarl.core.errors import (
    MAX_ADAPTATIONS,
    MAX_THREADS,
    check,
    check_amount,
    check_flag,
    check_known,
    check_whole,
)
from metarl.core.parsing import is_number
from metarl.core.rng import MAX_SEED, Purpose
from metarl.envs import BatchEnv
from metarl.evaluation.tasks import Tasks, is_number_of_tasks, split_of
from metarl.rollout.collect import episode_rngs
from metarl.rollout.failures import Failure, OnFailure

EXPERIENCE = (1, 2, 3, 5, 10, 20)
"""Numbers of episodes that `few_episode` measures after, by default."""
PERTURBATIONS: dict[str, tuple[float, ...]] = {
    "observation_noise": (0.05, 0.1, 0.2, 0.4),
    "action_delay": (1, 2, 4),
    "motor_strength": (0.8, 0.6, 0.4),
}
"""Perturbations of `robust`, by default: fields of `metarl.envs.Perturbed`, with strengths."""


MAX_DELAY, MAX_STRENGTH = 1000, 1e6
"""Largest strengths of `action_delay`, in control steps, and of the other perturbations."""


@dataclass(frozen=True, eq=False)
class EvaluationConfig:
    """The settings of an evaluation.

    Attributes:
        split: name of the task set; `custom` for tasks of one's own.
        tasks: number of tasks of the task set; or tasks of one's own, (B, task_dim).
        episodes: episodes per task, before and after each adaptation.
        steps: number of successive adaptations.
        seed: seed of the episodes.
        threads: number of threads of the physics; no influence on results.
        on_failure: whether a failed episode stops the evaluation (`stop`) or is left out.
        deterministic: whether the measured episodes have deterministic actions. Adaptation learns
            from episodes that explore either way.
        trials: number of independent repetitions of the experience of each task in `few_episode`.
        experience: numbers of episodes of experience, beside 0, that `few_episode` measures after,
            in increasing order.
        perturbations: strengths of each perturbation that `robust` measures under, one at a time:
            values of fields of `metarl.envs.Perturbed`.
        on_step: called with the environment after each reset and step; no influence on results.

    Raises:
        ConfigError: if a number is out of range, or a split is given with tasks of one's own.
    """

    split: str = "test"
    tasks: Tasks = 40
    episodes: int = 20
    steps: int = 3
    seed: int = 0
    threads: int = 1
    on_failure: OnFailure = "stop"
    deterministic: bool = False
    trials: int = 5
    experience: Sequence[int] = EXPERIENCE
    perturbations: Mapping[str, Sequence[float]] = field(default_factory=PERTURBATIONS.copy)
    on_step: Callable[[BatchEnv], None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", split_of(self.split, self.tasks))
        check_settings(self.episodes, self.steps, self.seed, self.threads, self.on_failure)
        check_flag("deterministic", self.deterministic)
        check_whole("trials", self.trials, 1)
        check_experience(self.experience)
        check_perturbations(self.perturbations)
        # Plain numbers in place of NumPy's, which JSON does not write
        names = ("episodes", "steps", "seed", "threads", "trials")
        plain = {name: int(getattr(self, name)) for name in names}
        plain |= {"experience": tuple(map(int, self.experience))}
        plain |= {"perturbations": plain_strengths(self.perturbations)}
        if is_number_of_tasks(self.tasks):
            plain["tasks"] = int(self.tasks)
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        num_tasks = self.tasks if is_number_of_tasks(self.tasks) else np.size(self.tasks)
        check_amount({"tasks": num_tasks, "episodes": self.episodes})

    @property
    def measured(self) -> dict[str, Any]:
        """The settings that influence results, by name, as plain values."""
        names = (each.name for each in fields(self) if each.name not in ("threads", "on_step"))
        values = {name: getattr(self, name) for name in names}
        values["experience"] = [*self.experience]
        own = None if is_number_of_tasks(self.tasks) else np.asarray(self.tasks, np.float64)
        return values if own is None else {**values, "tasks": own.tolist()}

    @property
    def recorded(self) -> dict[str, Any]:
        """The settings that are fields of an `Evaluation`, by name."""
        return {"split": self.split, "seed": self.seed, "deterministic": self.deterministic}

    def failure_sink(self, failures: list[Failure]) -> list[Failure] | None:
        """Return `failures` for `collect`; None if `on_failure` is `stop`, so `collect` raises."""
        return None if self.on_failure == "stop" else failures

    def episode_rngs(
        self, num_tasks: int, num_episodes: int, adaptation_step: int
    ) -> Sequence[np.random.Generator]:
        """Return the random number generators of episodes, task by task, (num_tasks *
        num_episodes,)."""
        purpose = Purpose.EVALUATION_EPISODES
        return episode_rngs(
            self.seed, purpose, num_tasks, num_episodes, adaptation_step=adaptation_step
        )


def check_settings(episodes: int, steps: int, seed: int, threads: int, on_failure: str) -> None:
    """Check the settings that every evaluation has; see `EvaluationConfig`.

    Raises:
        UserError: if a number is out of range, or `on_failure` is unknown.
    """
    check_whole("episodes", episodes, 1)
    check_whole("steps", steps, 0, MAX_ADAPTATIONS)
    check_whole("seed", seed, 0, MAX_SEED)
    check_whole("threads", threads, 1, MAX_THREADS)
    check_known(on_failure, get_args(OnFailure), "on_failure: unknown")


def check_experience(numbers: Sequence[int]) -> None:
    """Check numbers of episodes of experience.

    Raises:
        ConfigError: if they are not whole numbers in increasing order, or out of range.
    """
    expected = f"different whole numbers between 1 and {MAX_ADAPTATIONS}, in increasing order"
    listed = is_listed(numbers)
    check(listed, "experience", expected, numbers)
    whole = all(isinstance(x, Integral) and 1 <= x <= MAX_ADAPTATIONS for x in numbers)
    right = whole and len(numbers) > 0 and [*numbers] == sorted({*numbers})
    check(right, "experience", expected, [*numbers])


def is_listed(value: Any) -> bool:
    """Return whether a value is a list, a tuple or an array of one axis."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1)


def check_perturbations(perturbations: Mapping[str, Sequence[float]]) -> None:
    """Check perturbations and their strengths.

    Raises:
        UserError: if there is none, one is unknown, or a strength is out of range or is given
            twice.
    """
    is_mapping = isinstance(perturbations, Mapping) and len(perturbations) > 0
    check(is_mapping, "perturbations", "at least one, with strengths", perturbations)
    for name, strengths in perturbations.items():
        check_known(name, PERTURBATIONS, "perturbations: unknown name")
        whole = name == "action_delay"
        most = MAX_DELAY if whole else MAX_STRENGTH
        expected = f"different {'whole ' * whole}numbers between 0 and {most:g}"
        check(is_listed(strengths), f"perturbations: {name}", expected, strengths)
        plain = [*map(plain_number, strengths)]
        right = all(is_number(x) and 0 <= x <= most and (not whole or x % 1 == 0) for x in plain)
        right = right and 0 < len(plain) == len({f"{x:g}" for x in plain})
        check(right, f"perturbations: {name}", expected, plain)


def plain_strengths(perturbations: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return the strengths of perturbations as lists of Python's numbers."""
    return {name: [*map(plain_number, each)] for name, each in perturbations.items()}


def plain_number(value: Any) -> Any:
    """Return a number of NumPy as Python's, and any other value as it is."""
    return value.item() if isinstance(value, np.generic) else value
