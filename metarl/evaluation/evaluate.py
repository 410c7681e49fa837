"""Few-episode adaptation on held-out tasks."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.agents.base import MetaAgent, make_agent
from metarl.core.errors import UserError, check, check_amount, check_known, shown
from metarl.core.parallel import keep_freed_memory, single_threaded_torch
from metarl.core.rng import MAX_SEED, Purpose, make_rng
from metarl.core.statistics import interquartile_mean, mean_interval
from metarl.core.timer import Timer
from metarl.envs import SPLITS, TaskFamily
from metarl.rollout.collect import adaptation
from metarl.rollout.failures import EpisodeDiverged, Failure, OnFailure
from metarl.runs.run import Run

SCHEDULES = ("constant", "halving", "geometric")


@dataclass(frozen=True)
class Evaluation:
    """What adaptation to some tasks came to.

    Episodes that failed count nowhere, and neither does a task that has lost all its episodes at
    some point: statistics at different points are over the same tasks.

    Attributes:
        family: name of the task family.
        split: name of the task set.
        task_hash: fingerprint of family and tasks.
        tasks: (B, task_dim).
        returns: undiscounted, (B, P, episodes), at the P points of `axis`; NaN where an episode
            failed.
        step_scales: factor on each adaptation step.
        seed: of the episodes.
        success: (B, P, episodes) bool, whether the episodes succeeded; None where the environment
            knows no success.
        axis: what the points count.
        points: (P,).
        failures: of the episodes that failed.
    """

    family: str
    split: str
    task_hash: str
    tasks: np.ndarray
    returns: np.ndarray
    step_scales: tuple[float, ...] = ()
    seed: int = 0
    success: np.ndarray | None = None
    axis: str = "adaptation steps"
    points: tuple[int, ...] = ()
    failures: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        if not self.points:
            object.__setattr__(self, "points", tuple(range(self.returns.shape[1])))

    @property
    def success_rate(self) -> np.ndarray | None:
        """Share of the episodes that succeeded at each point, (P,), if that is known."""
        if self.success is None:
            return None
        counted = np.isfinite(self.returns) & self.complete[:, None, None]
        return self.success.mean(axis=(0, 2), where=counted)

    @property
    def by_task(self) -> np.ndarray:
        """Mean return of each task at each point, (B, P); NaN where no episode is left."""
        counted = np.isfinite(self.returns)
        sums, counts = np.where(counted, self.returns, 0).sum(axis=2), counted.sum(axis=2)
        return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)

    @property
    def complete(self) -> np.ndarray:
        """Which tasks have episodes at every point, (B,) bool: those that statistics are over."""
        return np.asarray(np.isfinite(self.by_task).all(axis=1))

    @property
    def scores(self) -> np.ndarray:
        """`by_task` of the tasks that are complete."""
        return self.by_task[self.complete]

    @property
    def mean(self) -> np.ndarray:
        """Mean over tasks at each point, (P,)."""
        return self.scores.mean(axis=0)

    @functools.cached_property
    def interval(self) -> np.ndarray:
        """Bootstrap 95% interval of `mean` over tasks, (P, 2)."""
        rng = make_rng(0, Purpose.BOOTSTRAP)
        return np.array([mean_interval(values, rng) for values in self.scores.T])

    @property
    def iqm(self) -> np.ndarray:
        """Interquartile mean over tasks at each point, (P,)."""
        return np.array([interquartile_mean(values) for values in self.scores.T])

    @property
    def worse(self) -> np.ndarray:
        """Share of the tasks whose return is below that before adaptation, (P,)."""
        return (self.scores < self.scores[:, :1]).mean(axis=0)

    @property
    def remark(self) -> str:
        """What was left out, in words; '' if nothing was."""
        if not self.failures:
            return ""
        lost = int((~self.complete).sum())
        tasks = f" and {lost} of {len(self.tasks)} tasks" if lost else ""
        return f"{len(self.failures)} episodes{tasks} left out (first: {self.failures[0]})"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a result file."""
        returns = self.returns.astype(object)
        returns[np.isnan(self.returns)] = None  # JSON has no NaN
        return {
            "family": self.family,
            "split": self.split,
            "task_hash": self.task_hash,
            "tasks": self.tasks.tolist(),
            "step_scales": self.step_scales,
            "axis": self.axis,
            "points": self.points,
            "seed": self.seed,
            "returns": returns.tolist(),
            "mean": self.mean.tolist(),
            "interval": self.interval.tolist(),
            "iqm": self.iqm.tolist(),
            "worse": self.worse.tolist(),
            **({} if self.success is None else {"success": self.success.tolist()}),
            **({} if self.success_rate is None else {"success_rate": self.success_rate.tolist()}),
            **({"failures": [asdict(each) for each in self.failures]} if self.failures else {}),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Evaluation:
        """Make what a result file holds into an evaluation again.

        Raises:
            KeyError, TypeError, ValueError: if it is not what `to_dict` returns.
        """
        texts = {name: content[name] for name in ("family", "split", "task_hash", "axis")}
        for name, text in texts.items():
            if not isinstance(text, str) or not text.isprintable():
                raise ValueError(f"{name}: expected text, got {shown(text)}")
        tasks, returns = (np.array(content[name], np.float64) for name in ("tasks", "returns"))
        success = np.array(content["success"], bool) if "success" in content else None
        points = tuple(content["points"])
        if not all(type(point) is int for point in points):
            raise ValueError(f"points: expected whole numbers, got {shown(points)}")
        if not (tasks.ndim == 2 and returns.ndim == 3 and returns.size):
            raise ValueError(f"tasks and returns have the shapes {tasks.shape}, {returns.shape}")
        if returns.shape[:2] != (len(tasks), len(points)):
            raise ValueError(f"{len(tasks)} tasks, {len(points)} points, returns {returns.shape}")
        if success is not None and success.shape != returns.shape:
            raise ValueError(f"success has the shape {success.shape}, returns {returns.shape}")
        # A return is null, and so NaN, where an episode was left out.
        if not np.isfinite(tasks).all() or np.isinf(returns).any():
            raise ValueError("tasks and returns: expected finite numbers")
        return cls(
            **texts,
            tasks=tasks,
            returns=returns,
            step_scales=tuple(content["step_scales"]),
            seed=content["seed"],
            success=success,
            points=points,
            failures=tuple(
                Failure(**{**each, "task": tuple(each["task"])})
                for each in content.get("failures", ())
            ),
        )


def evaluate(
    agent: MetaAgent,
    family: TaskFamily,
    *,
    split: str = "test",
    tasks: int = 40,
    episodes: int = 20,
    steps: int = 3,
    scales: Sequence[float] | None = None,
    seed: int = 0,
    threads: int = 1,
    on_failure: OnFailure = "stop",
) -> Evaluation:
    """Adapt to tasks of a fixed set, each from the meta-parameters.

    The same seed gives every method the same tasks, initial states and action noise.

    Args:
        agent: a meta-agent.
        family: the task family.
        split: the name of the task set.
        tasks: how many of its tasks.
        episodes: per task, before and after each step; adaptation sees those of the step before.
        steps: adaptation steps.
        scales: a factor on each step; None for 1.
        seed: of the episodes.
        threads: for the physics; no influence on the result.
        on_failure: `stop` raises where an episode fails, `skip_update` and `drop_episode` leave it
            out.

    Raises:
        ConfigError: if a count is too small.
        EpisodeDiverged: if an episode fails, or so many that no task is left.
        UserError: if the split is unknown, or not one of the family's.
    """
    check(episodes >= 1, "episodes", "at least 1", episodes)
    check(steps >= 0, "steps", "at least 0", steps)
    check(0 <= seed <= MAX_SEED, "seed", f"between 0 and {MAX_SEED}", seed)
    check_amount(tasks * episodes, family.horizon)
    rows = chosen_tasks(family, split, tasks)
    keep_freed_memory()
    failures: list[Failure] = []
    scales = tuple(scales) if scales is not None else (1.0,) * steps
    check(len(scales) == steps, "scales", f"one for each of the {steps} steps", scales)
    with single_threaded_torch():
        phases = adaptation(
            agent,
            family.make_batch(tasks * episodes, threads),
            rows,
            steps,
            seed=seed,
            purpose=Purpose.EVALUATION_EPISODES,
            scales=scales,
            timer=Timer(),
            failures=None if on_failure == "stop" else failures,
        )
        played = [(episodes.returns, episodes.success) for _, episodes in phases]
    returns = np.stack([each for each, _ in played], axis=1)
    successes = [success for _, success in played if success is not None]
    result = Evaluation(
        family=family.name,
        split=split,
        task_hash=family.task_hash(rows),
        tasks=rows,
        returns=returns,
        step_scales=scales,
        seed=seed,
        success=np.stack(successes, axis=1) if len(successes) == len(played) else None,
        failures=tuple(failures),
    )
    check_complete(result)
    return result


def check_complete(result: Evaluation, sequence: int = 1) -> None:
    """Refuse a result of which nothing is left.

    Raises:
        EpisodeDiverged: if no `sequence` tasks in a row are complete.
    """
    if not result.complete.reshape(-1, sequence).all(axis=1).any():
        what = "sequence of tasks" if sequence > 1 else "task"
        remark = f"; no {what} is left that was played to the end"
        raise EpisodeDiverged(result.failures, remark)


def chosen_tasks(family: TaskFamily, split: str, num_tasks: int) -> np.ndarray:
    """Return the first tasks of a task set, (num_tasks, task_dim).

    Raises:
        ConfigError: if the number is too small.
        UserError: if the split is unknown, or the family does not have it, or not so many tasks.
    """
    check(num_tasks >= 1, "tasks", "at least 1", num_tasks)
    check_known(split, SPLITS, "unknown split")
    try:
        return family.tasks(split, num_tasks)
    except ValueError as error:
        raise UserError(f"split: {error}") from error


def step_scales(schedule: str, steps: int) -> list[float]:
    """Return the factor on each adaptation step.

    `halving` is the MAML paper's: the whole step at first and half of it afterwards. `geometric`
    halves every step anew: 1, 1/2, 1/4.

    Raises:
        UserError: if the schedule is unknown.
    """
    check_known(schedule, SCHEDULES, "unknown schedule")
    if schedule == "geometric":
        return [0.5**step for step in range(steps)]
    return [1.0 if schedule == "constant" or step == 0 else 0.5 for step in range(steps)]


def load(directory: str | Path, checkpoint: str = "latest", **overrides: Any) -> MetaAgent:
    """Load the agent of a run.

    Args:
        directory: the run's folder.
        checkpoint: `latest`, `best`, an iteration, or `average`.
        overrides: values that replace those of the run's config, such as device="cpu".

    Raises:
        UserError: if the run or the checkpoint is missing or damaged.
    """
    run = Run.open(Path(directory), **overrides)
    return make_agent(run.config, run.load(checkpoint).agent)
