"""The protocol `drift`: tasks that change while an agent adapts to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from metarl.agents import MetaAgent
from metarl.agents.rollouts import adaptation_rollouts
from metarl.core.errors import UserError, shown
from metarl.core.parallel import keep_freed_memory, single_threaded_math
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.envs import TaskError, TaskFamily
from metarl.evaluation.config import EvaluationConfig
from metarl.evaluation.evaluate import (
    Score,
    arranged,
    complete_result,
    possible_adaptations,
    score,
    stack,
    whole_trials,
)
from metarl.evaluation.tasks import chosen_tasks, own_tasks
from metarl.rollout.failures import Failure
from metarl.rollout.sampling import Phase, drift_phases, drifting
from metarl.runs.result import Evaluation, Results

DRIFT = 0.1
"""Standard deviation of the step from a version of a task to the next, as a fraction of the range
of each number of the task."""


def check_drifts(family: TaskFamily, rows: np.ndarray) -> None:
    """Check that tasks of a family, (B, task_dim), can drift.

    Raises:
        UserError: if there is a finite number of them, their numbers have no bounds, one of them is
            not of the distribution, whose bounds its next version would be moved into, or that
            version is no task.
    """
    bounds = family.task_space.low, family.task_space.high
    if family.all_tasks is not None or not np.isfinite(bounds).all():
        kind = "tasks without bounds" if family.all_tasks is None else "a finite number of tasks"
        ood = "ood, " if "ood" in family.splits else ""
        raise UserError(
            f"protocol drift: {family.name} has {kind}, which cannot drift; expected k_step, "
            f"few_episode, {ood}robust or continual"
        )
    outside = [row for row in rows if not family.in_distribution(row)]
    if outside:
        raise UserError(
            f"protocol drift: expected tasks of the distribution of {family.name}, whose bounds "
            f"they drift within, got {shown(outside[0].tolist())}"
        )
    later = drifting(family, np.random.default_rng(0), rows[:1], 2, DRIFT)[0, 1]
    try:
        family.check_task(later)
    except TaskError as error:
        raise UserError(
            f"protocol drift: tasks of {family.name} cannot drift, since {error}; expected another "
            "protocol"
        ) from error


def drift(agent: MetaAgent, family: TaskFamily, config: EvaluationConfig) -> Results:
    """Measure the return on each version of tasks that drift, as in training with `sampling.drift`.

    Every task of the set is the first of `config.steps` + 1 versions. The agent goes on adapting:
    what it has learned on a version is measured on the next one (`adapting`). Beside it, each
    version is played from the meta-parameters (`not adapting`). An agent that cannot adapt, such as
    an oracle, has the same returns in both.

    Raises:
        ConfigError, EpisodeDiverged: as `metarl.evaluation.evaluate.evaluate`.
        UserError: as it, and as `check_drifts`.
    """
    rows = chosen_tasks(family, config.split, config.tasks)
    check_drifts(family, rows)
    num_adaptations = possible_adaptations(agent, config.steps)
    num_versions = (num_adaptations or config.steps) + 1
    rng = make_rng(config.seed, Purpose.DRIFT)
    versions = drifting(family, rng, rows, num_versions, DRIFT)  # (B, V, task_dim)
    own_tasks(family, versions.reshape(-1, versions.shape[2]))  # raises if one is no task
    keep_freed_memory()
    env = family.make_batch(len(rows) * config.episodes, config.threads)

    unseen: list[Score] = []

    def play(tasks: np.ndarray, phases: list[Phase], failures: list[Failure]) -> Iterator[Score]:
        rollouts = adaptation_rollouts(
            agent,
            env,
            tasks,
            len(phases) - 1,
            phases=phases,
            seed=config.seed,
            purpose=Purpose.EVALUATION_EPISODES,
            timer=Timer(),
            failures=config.failure_sink(failures),
            deterministic=config.deterministic,
            on_step=config.on_step,
            on_support_step=config.on_step,
            on_support=lambda episodes: unseen.append(score(episodes)),
        )
        for _, episodes in rollouts:
            yield score(episodes)

    def evaluation(scores: list[Score], failures: list[Failure]) -> Evaluation:
        return complete_result(
            family,
            rows,
            **arranged(scores, stack),
            x_label="versions before",
            failures=tuple(failures),
            **config.recorded,
        )

    with single_threaded_math():
        results: Results = {}
        failures: list[Failure] = []
        if num_adaptations:
            scores = list(play(versions, drift_phases(num_adaptations), failures))
            scores = whole_trials(scores, unseen) if agent.remembers else scores
            results["adapting"] = evaluation(scores, failures)
        failures, scores = [], []
        for version in range(num_versions):
            alone: list[Failure] = []
            scores += play(versions[:, version], drift_phases(0), alone)
            failures += [replace(each, adaptation_step=version) for each in alone]
        anew = evaluation(scores, failures)
    return {"adapting": anew, **results, "not adapting": anew}
