"""Rollouts of an agent on new tasks: collect, adapt, collect, adapt, ..., collect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from metarl.agents.base import MetaAgent, Rollout, measuring_actor
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import BatchEnv
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import Failure
from metarl.rollout.sampler import EpisodeRngs, Sampler, sample
from metarl.rollout.sampling import Phase, sequence_phases


def adaptation_rollouts(
    agent: MetaAgent,
    env: BatchEnv | Sampler,
    tasks: np.ndarray,
    num_adaptations: int,
    *,
    phases: Sequence[Phase] | None = None,
    seed: int,
    purpose: Purpose,
    iteration: int = 0,
    training: bool = False,
    task_ids: np.ndarray | None = None,
    timer: Timer,
    on_step: Callable[[BatchEnv], None] | None = None,
    failures: list[Failure] | None = None,
    deterministic: bool = False,
    on_support_step: Callable[[BatchEnv], None] | None = None,
    on_support: Callable[[Episodes], None] | None = None,
) -> Iterator[Rollout]:
    """Alternate collection and adaptation on new tasks; yields `num_adaptations` + 1 rollouts.

    Every task starts from the meta-parameters. In a sequence of tasks, the first one does, and
    every other one starts from the state after the task before; the rollouts are those of
    `metarl.rollout.sampling.sequence_phases`. An agent that remembers goes on from the episodes of
    every rollout, others from those of support phases. Nothing tells an agent that a task drifts.

    Args:
        agent: a meta-agent.
        env: a batch environment of B * E episodes, or a sampler of as many.
        tasks: (B, task_dim); or B sequences of L tasks, or tasks in L versions, (B, L, task_dim).
        num_adaptations: number of adaptations to each task.
        phases: the phases; None for those of tasks, or of sequences of tasks, that do not drift.
        seed, purpose, iteration: as in `metarl.core.rng.make_rng`.
        training: whether `MetaAgent.update` will be called with the rollouts.
        task_ids: (B,) or (B, L) int64, ids of tasks from a finite set.
        timer: measures the sections `reset`, `policy`, `environment` and `adaptation`.
        on_step, failures: as in `collect`. A task without any remaining episode before an
            adaptation cannot be adapted to, and is not played again.
        deterministic: whether the yielded episodes have deterministic actions. An adaptation then
            learns from further episodes, which explore as usual and are not yielded, so that the
            states are the same either way. The episodes of both kinds begin alike.
        on_support_step: like `on_step`, for the episodes that are not yielded.
        on_support: called with the episodes of a phase that are not yielded.

    Yields:
        Rollouts of all B tasks: the states, and the episodes played from the states.

    Raises:
        EpisodeDiverged, UserError: as `collect`; UserError also if the agent has no deterministic
            actions.
    """
    assert not (training and deterministic)
    num_tasks, num_episodes = len(tasks), env.num_episodes // len(tasks)
    sequences = tasks if tasks.ndim == 3 else tasks[:, None]  # (B, L, task_dim)
    ids = None if task_ids is None else task_ids.reshape(sequences.shape[:2])
    state = agent.initial_state(num_tasks, training=training)
    task_mask = np.ones(num_tasks, bool)

    def play(
        number: int, task: int, deterministic: bool, on_step: Callable[[BatchEnv], None] | None
    ) -> Episodes:
        with timer("policy"):
            actor = measuring_actor(agent, state, deterministic)
        return sample(
            env,
            actor,
            sequences[:, task],
            EpisodeRngs(seed, purpose, num_episodes, iteration, number, num_adapted),
            timer,
            on_step,
            failures=failures,
            task_mask=task_mask,
            task_ids=None if ids is None else ids[:, task],
        )

    phases = phases or sequence_phases(num_adaptations, sequences.shape[1])
    num_adapted, before = 0, None  # adaptations so far, kind of the phase before
    for number, (task, kind) in enumerate(phases):
        if (before, kind) == ("query", "support"):
            state = agent.next_task(state)
        before = kind
        episodes = play(number, task, deterministic, on_step)
        if not deterministic:  # what an adaptation does not learn from does not end it
            task_mask = episodes.task_mask
        yield Rollout(state, episodes)
        if kind == "support" or (number < len(phases) - 1 and agent.remembers):
            if deterministic:
                episodes = play(number, task, False, on_support_step)
                task_mask = episodes.task_mask
                if on_support is not None:
                    on_support(episodes)
            with timer("adaptation"):
                state = agent.adapt(state, episodes)
            num_adapted += 1
