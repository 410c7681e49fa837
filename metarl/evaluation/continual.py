"""The protocol `continual`: sequences of tasks, and forgetting of the earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl.agents import MetaAgent, measuring_actor
from metarl.core.errors import UserError, check
from metarl.core.parallel import keep_freed_memory, single_threaded_math
from metarl.core.timer import Timer
from metarl.envs import TaskFamily
from metarl.evaluation.config import EvaluationConfig
from metarl.evaluation.evaluate import (
    arranged,
    complete_result,
    possible_adaptations,
    score,
    without,
)
from metarl.evaluation.tasks import chosen_tasks
from metarl.rollout.collect import collect
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import Failure
from metarl.runs.result import Evaluation, Results
from metarl.runs.result_content import TASKS_MET

SEQUENCE_LENGTH = 5
"""Number of successive tasks of a sequence of `continual`, L."""


def continual(agent: MetaAgent, family: TaskFamily, config: EvaluationConfig) -> Results:
    """Measure the return on all tasks of a sequence after 0, 1, ..., L of its tasks were met.

    The agent adapts to each task from the meta-parameters, or from its state after the previous
    task (`sequential`).

    Raises:
        ConfigError: if the tasks are no whole sequences of L, at least one.
        EpisodeDiverged: if an episode fails and `on_failure` is `stop`, or if no sequence without
            failed tasks is left.
        UserError: if the task set is unknown, or not defined for the family.
    """
    rows = chosen_tasks(family, config.split, config.tasks)
    num_sequences = number_of_sequences(rows)
    sequences = rows.reshape(num_sequences, SEQUENCE_LENGTH, -1)
    num_adaptations = possible_adaptations(agent, config.steps)
    keep_freed_memory()
    env = family.make_batch(num_sequences * config.episodes, config.threads)

    def play(
        state: Any,
        index: int,
        adaptation_step: int,
        task_mask: np.ndarray,
        failures: list[Failure],
        deterministic: bool = False,
    ) -> Episodes:
        """Play the task at `index` of every sequence."""
        found: list[Failure] = []
        episodes = collect(
            env,
            measuring_actor(agent, state, deterministic),
            sequences[:, index],
            config.episode_rngs(num_sequences, config.episodes, adaptation_step),
            Timer(),
            config.on_step,
            failures=config.failure_sink(found),
            adaptation_step=adaptation_step,
            task_mask=task_mask,
        )
        failures += [each.with_index(lambda row: row * SEQUENCE_LENGTH + index) for each in found]
        return episodes

    def play_sequences(sequential: bool) -> Evaluation:
        state, task_mask = agent.initial_state(num_sequences), np.ones(num_sequences, bool)
        scores, failures = [], []
        lost = np.zeros((num_sequences, config.episodes), bool)  # trials of a memory
        for met in range(SEQUENCE_LENGTH + 1):
            if met and not sequential:
                state, task_mask = agent.initial_state(num_sequences), np.ones(num_sequences, bool)
                lost = np.zeros_like(lost)
            state = agent.next_task(state)
            for step in range(num_adaptations if met else 0):
                adaptation_step = 1 + (met - 1) * config.steps + step
                episodes = play(state, met - 1, adaptation_step, task_mask, failures)
                state = agent.adapt(state, episodes)
                task_mask = task_mask & episodes.task_mask
                if agent.remembers:  # without this episode the trial has not met the task
                    lost = lost | np.isnan(episodes.returns)
            played = [
                score(play(state, index, 0, task_mask, failures, config.deterministic))
                for index in range(SEQUENCE_LENGTH)
            ]
            scores += without(played, lost)
        return complete_result(
            family,
            rows,
            sequence_length=SEQUENCE_LENGTH,
            **arranged(scores, by_task_and_met),
            x_label=TASKS_MET,
            x=tuple(range(SEQUENCE_LENGTH + 1)),
            failures=tuple(failures),
            **config.recorded,
        )

    with single_threaded_math():
        return {
            "from the meta-parameters": play_sequences(sequential=False),
            "sequential": play_sequences(sequential=True),
        }


def number_of_sequences(rows: np.ndarray) -> int:
    """Return how many sequences tasks (B, task_dim) are.

    Raises:
        ConfigError: if they are no whole sequences, at least one.
    """
    required = f"at least {SEQUENCE_LENGTH}, one sequence"
    check(len(rows) >= SEQUENCE_LENGTH, "tasks", required, len(rows))
    nearest = round(len(rows) / SEQUENCE_LENGTH) * SEQUENCE_LENGTH
    whole = f"whole sequences of {SEQUENCE_LENGTH} tasks (nearest: {nearest})"
    check(len(rows) % SEQUENCE_LENGTH == 0, "tasks", whole, len(rows))
    return len(rows) // SEQUENCE_LENGTH


def by_task_and_met(phases: Sequence[np.ndarray]) -> np.ndarray:
    """Return the arrays of S sequences and E episodes, (S, E), that were played on each of the L
    tasks after each number of tasks met, as one array, (S * L, L + 1, E)."""
    num_met, num_episodes = SEQUENCE_LENGTH + 1, phases[0].shape[1]
    by_met = np.reshape(phases, (num_met, SEQUENCE_LENGTH, -1, num_episodes))  # (L + 1, L, S, E)
    return by_met.transpose(2, 1, 0, 3).reshape(-1, num_met, num_episodes)


@dataclass(frozen=True)
class Forgetting:
    """Transfer to, and forgetting of, the earlier tasks of S sequences, from the returns R[s, i, j]
    on task j after the first i tasks of sequence s.

    Average and backward transfer are defined in Lopez-Paz and Ranzato 2017, section 2, forgetting
    in Chaudhry et al. 2018.

    Attributes:
        matrix: mean of R over sequences, (L + 1, L).
        plasticity: return on a task directly after it was met, averaged over all tasks, (S,).
        average: mean return on all tasks after the last task, (S,).
        backward_transfer: return on a task after the last task minus return on the task directly
            after it was met, averaged over all tasks but the last, (S,). Negative values are
            forgetting.
        forgetting: best return on a task between meeting it and the last task, minus its return
            after the last task, averaged over all tasks but the last, (S,).
    """

    matrix: np.ndarray
    plasticity: np.ndarray
    average: np.ndarray
    backward_transfer: np.ndarray
    forgetting: np.ndarray


def forgetting(result: Evaluation) -> Forgetting:
    """Compute transfer and forgetting from a part of `continual`, over sequences without failures.

    Args:
        result: returns on S * L tasks at L + 1 values of x.

    Raises:
        UserError: if every sequence has a failed task.
    """
    length = len(result.x) - 1
    # (S * L, L + 1) -> R (S, L + 1, L)
    matrix = np.swapaxes(result.by_task.reshape(-1, length, length + 1), 1, 2)
    matrix = matrix[np.isfinite(matrix).all(axis=(1, 2))]
    if not len(matrix):
        raise UserError(f"{result.family}: no sequence of tasks is left that was played to the end")
    met, last = matrix[:, 1:], matrix[:, -1]  # (S, L, L), (S, L)
    just_met = np.diagonal(met, axis1=1, axis2=2)  # (S, L)
    # The best return on a task after meeting it and before the last task, (S, L - 1)
    best = np.stack([met[:, j:-1, j].max(axis=1) for j in range(length - 1)], axis=1)
    return Forgetting(
        matrix=matrix.mean(axis=0),
        plasticity=just_met.mean(axis=1),
        average=last.mean(axis=1),
        backward_transfer=(last - just_met)[:, :-1].mean(axis=1),
        forgetting=(best - last[:, :-1]).mean(axis=1),
    )
