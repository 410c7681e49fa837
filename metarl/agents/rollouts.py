"""Rollouts of an agent on new tasks: collect, adapt, collect, adapt, ..., collect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from metarl.agents.base import MetaAgent, Rollout
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import BatchEnv
from metarl.rollout.collect import collect, episode_rngs
from metarl.rollout.failures import Failure


def adaptation_rollouts(
    agent: MetaAgent,
    env: BatchEnv,
    tasks: np.ndarray,
    num_adaptations: int,
    *,
    seed: int,
    purpose: Purpose,
    iteration: int = 0,
    training: bool = False,
    task_ids: np.ndarray | None = None,
    timer: Timer,
    on_step: Callable[[BatchEnv], None] | None = None,
    failures: list[Failure] | None = None,
) -> Iterator[Rollout]:
    """Alternate collection and adaptation on new tasks; yields `num_adaptations` + 1 rollouts.

    Every task starts from the meta-parameters.

    Args:
        agent: a meta-agent.
        env: a batch environment of B * E episodes.
        tasks: (B, task_dim).
        num_adaptations: number of adaptations.
        seed, purpose, iteration: as in `metarl.core.rng.make_rng`.
        training: whether `MetaAgent.update` will be called with the rollouts.
        task_ids: (B,) int64, ids of tasks from a finite set.
        timer: measures the sections `reset`, `policy`, `environment` and `adaptation`.
        on_step, failures: as in `collect`. A task without any remaining episode before an
            adaptation cannot be adapted to, and is not played again.

    Yields:
        Rollouts of all B tasks: the states, and the episodes played from the states.

    Raises:
        EpisodeDiverged, UserError: as `collect`.
    """
    num_tasks, num_episodes = len(tasks), env.num_episodes // len(tasks)
    state = agent.initial_state(num_tasks, training=training)
    task_mask = np.ones(num_tasks, bool)
    for step in range(num_adaptations + 1):
        with timer("reset"):
            rngs = episode_rngs(seed, purpose, num_tasks, num_episodes, iteration, step)
        with timer("policy"):
            actor = agent.actor(state)
        episodes = collect(
            env,
            actor,
            tasks,
            rngs,
            timer,
            on_step,
            failures=failures,
            adaptation_step=step,
            task_mask=task_mask,
            task_ids=task_ids,
        )
        task_mask = episodes.task_mask
        yield Rollout(state, episodes)
        if step < num_adaptations:
            with timer("adaptation"):
                state = agent.adapt(state, episodes)
