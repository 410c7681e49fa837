"""Few-episode adaptation on held-out tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.agents.base import MetaAgent, make_agent
from metarl.core.errors import UserError, check, check_amount, check_known
from metarl.core.parallel import keep_freed_memory, single_threaded_torch
from metarl.core.rng import MAX_SEED, Purpose
from metarl.core.timer import Stopwatch
from metarl.envs import SPLITS, TaskFamily
from metarl.evaluation.result import Evaluation, check_complete
from metarl.rollout.collect import adaptation
from metarl.rollout.failures import Failure, OnFailure
from metarl.runs.run import Run

SCHEDULES = ("constant", "halving", "geometric")


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
    """Measure the return before and after each adaptation to the tasks of a fixed set.

    Each task is adapted to from the meta-parameters. With the same seed, all methods play the same
    tasks from the same initial states with the same action noise.

    Args:
        agent: a meta-agent.
        family: the task family.
        split: the name of the task set.
        tasks: number of its tasks, B.
        episodes: episodes per task, before and after each adaptation; an adaptation sees the
            episodes that were played just before it.
        steps: number of adaptations, one after another.
        scales: a factor on the step size of each adaptation, (steps,); None for 1.
        seed: seed of the episodes.
        threads: threads for the physics; they do not influence the result.
        on_failure: `stop` raises where an episode fails; `skip_update` and `drop_episode` leave
            the episode out.

    Returns:
        Returns of shape (B, steps + 1, episodes).

    Raises:
        ConfigError: if a number is out of range.
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
            clock=Stopwatch(),
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


def chosen_tasks(family: TaskFamily, split: str, num_tasks: int) -> np.ndarray:
    """Return the first tasks of a task set, (num_tasks, task_dim).

    Raises:
        ConfigError: if `num_tasks` is below 1.
        UserError: if the split is unknown, or not one of the family's, or has fewer tasks.
    """
    check(num_tasks >= 1, "tasks", "at least 1", num_tasks)
    check_known(split, SPLITS, "unknown split")
    try:
        return family.tasks(split, num_tasks)
    except ValueError as error:
        raise UserError(f"split: {error}") from error


def step_scales(schedule: str, steps: int) -> list[float]:
    """Return the factor on the step size of each adaptation.

    `halving` is the MAML paper's (Finn et al. 2017): 1 at the first adaptation and 1/2 at all
    later ones. `geometric` halves the factor at every adaptation: 1, 1/2, 1/4. `constant` is 1.

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
