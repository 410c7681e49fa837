"""Evaluation of few-episode adaptation to the tasks of a fixed set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from metarl.agents import MetaAgent, is_available
from metarl.agents.optional import check_actions
from metarl.agents.rollouts import adaptation_rollouts
from metarl.config import PlayedConfig
from metarl.core.errors import check, check_amount, check_flag, warn
from metarl.core.parallel import keep_freed_memory, single_threaded_math
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import BatchEnv, TaskFamily
from metarl.evaluation.config import check_settings
from metarl.evaluation.tasks import (
    Tasks,
    chosen_tasks,
    is_number_of_tasks,
    split_of,
)
from metarl.rollout.episodes import Episodes, known_success
from metarl.rollout.failures import EpisodeDiverged, Failure, OnFailure
from metarl.runs.result import Evaluation
from metarl.runs.run import Run

Score: TypeAlias = tuple[np.ndarray, np.ndarray | None]
"""Returns and success of the episodes of a phase, each (B, E); None where success is unknown."""


def evaluate(
    agent: MetaAgent,
    family: TaskFamily,
    *,
    split: str = "test",
    tasks: Tasks = 40,
    episodes: int = 20,
    steps: int = 3,
    seed: int = 0,
    threads: int = 1,
    on_failure: OnFailure = "stop",
    deterministic: bool = False,
    on_step: Callable[[BatchEnv], None] | None = None,
) -> Evaluation:
    """Measure the return before and after each adaptation to fixed tasks.

    The agent adapts to each task from the meta-parameters. With the same seed, all methods play the
    same tasks, from the same initial states, with the same action noise.

    Args:
        agent: a meta-agent.
        family: the task family.
        split: name of the task set, which is not used for tasks of one's own.
        tasks: number of tasks of the task set, B; or tasks of one's own, (B, task_dim), or (B,)
            where a task is one number. The split of their result is `custom`.
        episodes: episodes per task, before and after each adaptation; an adaptation uses the
            episodes that were played directly before it.
        steps: number of successive adaptations, at most `agent.max_adaptations`.
        seed: seed of the episodes.
        threads: number of threads of the physics; no influence on results.
        on_failure: `stop` raises an error if an episode fails; `skip_update` and `drop_episode`
            leave the episode out, and its trial where the agent remembers.
        deterministic: whether the measured episodes have deterministic actions, such as the mean of
            the policy's distribution. Adaptation learns from further episodes, which explore as
            usual: the adapted states are those of the evaluation without `deterministic`.
        on_step: called with the environment after each reset and step; no influence on results.

    Returns:
        The evaluation, with returns (B, number of adaptations + 1, episodes).

    Raises:
        ConfigError: if a number is out of range, a split is given with tasks of one's own, or there
            is no agent or no task family.
        EpisodeDiverged: if an episode fails and `on_failure` is `stop`, or if no task is left.
        UserError: if the task set is unknown, or not defined for the family; if a task is not one
            of the family's; or if the agent has no deterministic actions.
    """
    check_played(agent, family)
    split = split_of(split, tasks)
    check_settings(episodes, steps, seed, threads, on_failure)
    check_flag("deterministic", deterministic)
    amounts = {"episodes": episodes, "env.horizon": family.horizon}
    if is_number_of_tasks(tasks):  # before this many tasks are drawn
        check_amount({"tasks": int(tasks), **amounts})
    rows = chosen_tasks(family, split, tasks)
    check_amount({"tasks": len(rows), **amounts})
    keep_freed_memory()
    failures: list[Failure] = []
    unseen: list[Score] = []
    with single_threaded_math():
        rollouts = adaptation_rollouts(
            agent,
            family.make_batch(len(rows) * episodes, threads),
            rows,
            possible_adaptations(agent, steps),
            seed=seed,
            purpose=Purpose.EVALUATION_EPISODES,
            timer=Timer(),
            failures=None if on_failure == "stop" else failures,
            deterministic=deterministic,
            on_step=on_step,
            on_support_step=on_step,
            on_support=lambda episodes: unseen.append(score(episodes)),
        )
        scores = [score(episodes) for _, episodes in rollouts]
    if agent.remembers:
        scores = whole_trials(scores, unseen)
    return complete_result(
        family,
        rows,
        **arranged(scores, stack),
        split=split,
        seed=int(seed),
        failures=tuple(failures),
        deterministic=deterministic,
    )


def score(episodes: Episodes) -> Score:
    """Return what is measured of the episodes of a phase, so that the rest can be freed."""
    return episodes.returns, episodes.success


def whole_trials(scores: Sequence[Score], unseen: Sequence[Score]) -> list[Score]:
    """Return the scores of phases without the trials that lost an episode, of an agent whose
    episodes follow one another, so that the means of all phases are over the same trials.

    Args:
        scores: the scores of all phases.
        unseen: those of the episodes of experience that a deterministic evaluation plays beside
            the measured ones.
    """
    lost = np.any([np.isnan(returns) for returns, _ in (*scores, *unseen)], axis=0)  # (B, E)
    return without(scores, lost)


def without(scores: Sequence[Score], lost: np.ndarray) -> list[Score]:
    """Return the scores of phases, (B, E) each, without those of a mask that is broadcast to it."""
    return [(np.where(lost, np.nan, returns), success) for returns, success in scores]


def stack(phases: Sequence[np.ndarray]) -> np.ndarray:
    """Return the arrays (B, E) of P phases as one, (B, P, E)."""
    return np.stack(phases, axis=1)


def arranged(
    scores: Sequence[Score], arrange: Callable[[list[np.ndarray]], np.ndarray]
) -> dict[str, Any]:
    """Return the fields `returns` and `success` of an evaluation.

    Args:
        scores: the scores of all phases, in the order in which they were played.
        arrange: makes one array (B, P, episodes) of an array for each of the phases.
    """
    success = known_success([each for _, each in scores])
    return {
        "returns": arrange([returns for returns, _ in scores]),
        "success": None if success is None else arrange(success),
    }


def complete_result(family: TaskFamily, rows: np.ndarray, **fields: Any) -> Evaluation:
    """Return the evaluation on tasks, and check that it has a complete sequence of them.

    Args:
        family: the task family.
        rows: the tasks, (B, task_dim).
        fields: the other fields of the evaluation.

    Raises:
        EpisodeDiverged: if every sequence has a task without episodes at some x.
    """
    result = Evaluation.on_tasks(family, rows, **fields)
    if not result.complete_tasks.any():
        unit = "sequence of tasks" if result.sequence_length > 1 else "task"
        note = f"; no {unit} is left that was played to the end"
        raise EpisodeDiverged(result.failures, note)
    return result


def check_played(agent: MetaAgent, family: TaskFamily) -> None:
    """Check that what is to be played is an agent and a task family with its actions.

    Raises:
        ConfigError: if it is anything else, such as the folder of a run or the name of a family.
        UserError: if the actions of the family are others than the agent's.
    """
    is_agent = hasattr(agent, "initial_state")
    check(is_agent, "agent", "a meta-agent, such as metarl.load returns", agent)
    is_family = isinstance(family, TaskFamily)
    check(is_family, "family", "a task family, such as `env` of a config", family)
    check_actions(agent, family.action_space)


def possible_adaptations(agent: MetaAgent, wanted: int) -> int:
    """Return the smaller of `wanted` and the maximum number of adaptations of an agent."""
    most = agent.max_adaptations
    return wanted if most is None else min(wanted, most)


def open_to_evaluate(directory: Path, **overrides: Any) -> Run:
    """Open the folder of a run for an evaluation or a video, as `Run.open`. The run's settings of
    training need not fit the values of `overrides`.

    If this machine does not have the run's device and `overrides` name no other one, the device is
    the CPU, and a warning says so.
    """
    run = Run.open(directory, config_class=PlayedConfig, **overrides)
    device = run.config.device
    if "device" in overrides or is_available(torch.device(device)):
        return run
    warn(f"{directory}: its device {device} is not available here; cpu is used instead")
    return Run(run.directory, run.config.replace(device="cpu"))
