"""Evaluation while training, on validation tasks (the section `evaluation` of the config)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarl.agents import MetaAgent
from metarl.config import Config
from metarl.evaluation.evaluate import evaluate
from metarl.rollout.failures import EpisodeDiverged, Failure
from metarl.runs.logs import VALIDATION
from metarl.runs.result import Evaluation

RETURN_AFTER = f"{VALIDATION}return_after"
LOST_TASKS = f"{VALIDATION}lost_tasks"
"""The metric with the number of tasks that were not played to the end, if there are any."""


def is_due(config: Config, iteration: int) -> bool:
    """Return whether an iteration, counted from 1, ends with an evaluation."""
    every = config.evaluation.every
    return every > 0 and (iteration % every == 0 or iteration == config.iterations)


def comparable_return(metrics: Mapping[str, Any]) -> float | None:
    """Return what agents are chosen by: the return after adaptation on validation tasks. None where
    it was not measured, or a task was lost, as the mean over the others is another measure.

    Args:
        metrics: the metrics of an iteration.
    """
    return None if metrics.get(LOST_TASKS) else metrics.get(RETURN_AFTER)


def validate(config: Config, agent: MetaAgent) -> tuple[dict[str, Any], list[Failure]]:
    """Measure the return of an agent before and after adaptation on validation tasks.

    It is the result of `metarl evaluate --split validation` with its default seed: tasks, initial
    states and action noise are the same at every iteration, and for every method and seed.

    Args:
        config: the config of the run.
        agent: the agent, which is not changed.

    Returns:
        The metrics: the mean returns over tasks before adaptation and after the last one, and the
        success rates if success is defined; None if no task was played to the end. Then the number
        of tasks that were not, if there are any. And the failed episodes.

    Raises:
        EpisodeDiverged: if an episode fails and `on_failure` is `stop`.
    """
    amounts = config.evaluation.amounts(config.sampling)
    try:
        result = evaluate(
            agent,
            config.env,
            split="validation",
            tasks=amounts["tasks"],
            episodes=amounts["episodes"],
            steps=amounts["steps"],
            threads=config.num_threads,
            on_failure=config.on_failure,
        )
    except EpisodeDiverged as error:
        if config.on_failure == "stop":
            raise
        return metrics_of(None), error.failures
    return metrics_of(result), list(result.failures)


def metrics_of(result: Evaluation | None) -> dict[str, Any]:
    """Return the metrics of an evaluation; their values are None if there is no result."""
    if result is None:
        return {f"{VALIDATION}return_{when}": None for when in ("before", "after")}
    places = {"before": 0, "after": -1}
    found = {f"{VALIDATION}return_{when}": float(result.mean[at]) for when, at in places.items()}
    if (rate := result.success_rate) is not None:
        found |= {f"{VALIDATION}success_{when}": float(rate[at]) for when, at in places.items()}
    if lost := int((~result.complete_tasks).sum()):
        found[LOST_TASKS] = lost
    return found
