"""Sampling of the tasks of a meta-batch, from a distribution or from a set of training tasks."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field

from metarl.core.errors import MAX_ADAPTATIONS, MAX_SEQUENCE, ConfigError, check
from metarl.core.schema import NotNegative, Section
from metarl.envs import Perturbed, TaskFamily
from metarl.rollout.risk import RiskConfig

Steps: TypeAlias = Annotated[int, Field(ge=0, le=1000)]


class NuisanceConfig(Section):
    """Domain randomisation in training: perturbations whose strength each episode draws uniformly
    from a range, low and high included. Evaluation is without them, or has its own (`robust`)."""

    observation_noise: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """Range of the standard deviation of normal noise on every number observed, in its own unit."""
    action_delay: tuple[Steps, Steps] = (0, 0)
    """Range of the number of control steps by which actions take effect late."""
    motor_strength: tuple[NotNegative, NotNegative] = (1.0, 1.0)
    """Range of the factor on actions, once they are clipped to the action space, which clips them
    again: an action at its limit gets no stronger by a factor above 1. For continuous actions
    only."""

    def applied(self, family: TaskFamily) -> TaskFamily:
        """Return the family with these perturbations; the family itself if there are none.

        Raises:
            ConfigError: if a range is not one, or the family cannot be perturbed so; names the key.
        """
        if self == NuisanceConfig():
            return family
        try:
            return Perturbed(family, **dict(self))
        except ValueError as error:
            raise ConfigError(f"sampling.nuisances.{error}") from error


class SamplingConfig(Section):
    """Numbers of tasks, episodes and adaptations of a meta-iteration."""

    num_tasks: Annotated[int, Field(ge=1)] = 40
    """Tasks per meta-batch."""
    num_episodes: Annotated[int, Field(ge=1)] = 20
    """Episodes per task, before and after each adaptation."""
    adaptation_steps: Annotated[int, Field(ge=0, le=MAX_ADAPTATIONS)] = 1
    """Adaptations in training; 0 trains one policy for all tasks."""
    train_tasks: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Number of fixed training tasks: the first tasks of the family's set `train`, with their index
    in the set as task id. 0 draws the tasks of each meta-batch from the task distribution."""
    sequence: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)] = 1
    """Length of the sequences of tasks in training. An agent adapts to the tasks of a sequence one
    after another, from its state after the task before, and finally plays the earlier tasks again
    (continual learning). `num_tasks` is the number of sequences then."""
    drift: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Drift of the tasks while an agent adapts, for tasks that are parameters of the dynamics: each
    phase is played on the task of the phase before, with every number moved by a normal step whose
    standard deviation is this fraction of the number's range, and kept in the range. The agent
    learns to adapt from one version of the environment to the next (Al-Shedivat et al. 2018)."""
    risk: RiskConfig = RiskConfig()
    nuisances: NuisanceConfig = NuisanceConfig()

    @property
    def phases(self) -> list[Phase]:
        """The phases of a meta-iteration, in order."""
        if self.drift:
            return drift_phases(self.adaptation_steps)
        return sequence_phases(self.adaptation_steps, self.sequence)

    @property
    def num_adaptations(self) -> int:
        """Number of adaptations in a meta-iteration, to all tasks of a sequence."""
        return self.adaptation_steps * self.sequence

    @property
    def single_task(self) -> bool:
        """Whether all phases of a row of the meta-batch are played on one task."""
        return self.sequence == 1 and not self.drift

    def max_steps(self, horizon: int) -> int:
        """Return the number of environment steps of a meta-iteration whose episodes all last
        `horizon` steps."""
        return self.num_tasks * self.num_episodes * len(self.phases) * horizon

    def check(self, family: TaskFamily) -> None:
        """Check that sequences of different tasks, and tasks that drift, are possible.

        Raises:
            ConfigError: if they are not; names the key.
        """
        if self.drift:
            self._check_drift(family)
        if self.sequence == 1:
            return
        check(self.risk.alpha == 1, "sampling.risk.alpha", "1 with sequences", self.risk.alpha)
        expected = "1 with sampling.adaptation_steps 0, which adapts to no task"
        check(self.adaptation_steps > 0, "sampling.sequence", expected, self.sequence)
        for number, source in (
            (self.train_tasks or None, "sampling.train_tasks"),
            (family.num_all_tasks, f"all tasks of {family.name}"),
        ):
            expected = f"at most {number}, the number of {source}, as its tasks differ"
            fits = number is None or self.sequence <= number
            check(fits, "sampling.sequence", expected, self.sequence)

    def _check_drift(self, family: TaskFamily) -> None:
        conditions = (
            (family.dynamics_tasks, f"{family.name}, whose tasks are no parameters of dynamics"),
            (family.all_tasks is None, f"{family.name}, which has a finite number of tasks"),
            (self.adaptation_steps > 0, "sampling.adaptation_steps 0, which adapts to no task"),
            (self.sequence == 1, "sampling.sequence above 1, whose tasks come back unchanged"),
            (self.train_tasks == 0, "sampling.train_tasks, which would drift to other tasks"),
            (self.risk.oversampling == 0, "sampling.risk.oversampling, whose tasks stay the same"),
        )
        for fits, reason in conditions:
            check(fits, "sampling.drift", f"0 with {reason}", self.drift)


class Phase(NamedTuple):
    """A phase of a meta-iteration: episodes of one task of each sequence, from one state.

    Attributes:
        task: place of the task in its sequence, from 0; or the version of a task that drifts.
        kind: `support`, whose episodes the state is adapted by; `query`, after all adaptations to
            the task; or `revisit`, after the adaptations to all tasks.
    """

    task: int
    kind: Literal["support", "query", "revisit"]


def sequence_phases(num_adaptations: int, length: int = 1) -> list[Phase]:
    """Return the phases of sequences of tasks.

    Each task has `num_adaptations` support phases and a query phase. After the last task, every
    earlier one is revisited.
    """
    phases = []
    for task in range(length):
        phases += [Phase(task, "support")] * num_adaptations + [Phase(task, "query")]
    return [*phases, *(Phase(task, "revisit") for task in range(length - 1))]


def drift_phases(num_adaptations: int) -> list[Phase]:
    """Return the phases of a task of which each phase has another version."""
    support = [Phase(version, "support") for version in range(num_adaptations)]
    return [*support, Phase(num_adaptations, "query")]


def sample_meta_batch(
    config: SamplingConfig, family: TaskFamily, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw the B tasks, or sequences of L tasks, of one meta-batch.

    Args:
        config: the numbers of tasks; B is `config.num_tasks`, L is `config.sequence`.
        family: the task family.
        rng: draws the tasks.

    Returns:
        Tasks, (B, task_dim); and task ids, (B,) int64, or None for tasks drawn from the
        distribution. Tasks of a fixed set are drawn without replacement if the set has at least B.
        If L is more than 1, tasks are (B, L, task_dim), ids are (B, L), and the tasks of a sequence
        differ. Tasks that drift are (B, number of phases, task_dim).

    Raises:
        ConfigError: as `training_tasks`.
    """
    num_tasks, length = config.num_tasks, config.sequence
    if config.train_tasks:
        tasks = training_tasks(config, family)
        if length == 1:
            repeat = num_tasks > config.train_tasks
            ids = rng.choice(config.train_tasks, num_tasks, replace=repeat)
        else:  # the set has a task several times if the family has fewer tasks
            _, first = np.unique(tasks, axis=0, return_index=True)
            ids = np.sort(first)[distinct_rows(rng, len(first), num_tasks, length)]
        return tasks[ids], ids
    if config.drift:
        tasks = family.sample_tasks(rng, num_tasks)
        return drifting(family, rng, tasks, len(config.phases), config.drift), None
    if length == 1:
        return family.sample_tasks(rng, num_tasks), None
    if family.all_tasks is not None:
        return family.all_tasks[distinct_rows(rng, len(family.all_tasks), num_tasks, length)], None
    return family.sample_sequences(rng, num_tasks, length), None


def training_tasks(config: SamplingConfig, family: TaskFamily) -> np.ndarray:
    """Return the fixed training tasks, (config.train_tasks, task_dim).

    Raises:
        ConfigError: if the family has fewer of them.
    """
    try:
        return family.tasks("train", config.train_tasks)
    except ValueError as error:
        reason = str(error).removeprefix("num_tasks: ")
        raise ConfigError(f"sampling.train_tasks: {reason}") from error


def drifting(
    family: TaskFamily, rng: np.random.Generator, tasks: np.ndarray, num_versions: int, drift: float
) -> np.ndarray:
    """Return the versions of tasks that drift, (B, number of versions, task_dim).

    Args:
        family: the task family.
        rng: draws the steps.
        tasks: the first versions, (B, task_dim).
        num_versions: number of versions of each task.
        drift: standard deviation of the steps, as a fraction of the range of each number.
    """
    low, high = (x.astype(np.float64) for x in (family.task_space.low, family.task_space.high))
    versions = [tasks]
    for _ in range(num_versions - 1):
        step = drift * (high - low) * rng.standard_normal(tasks.shape)
        versions.append(np.clip(versions[-1] + step, low, high))
    return np.stack(versions, axis=1)


def distinct_rows(rng: np.random.Generator, number: int, num_rows: int, length: int) -> np.ndarray:
    """Return rows of `length` different indices below `number`, (num_rows, length) int64."""
    return np.stack([rng.choice(number, length, replace=False) for _ in range(num_rows)])
