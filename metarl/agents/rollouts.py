"""How an agent meets tasks for the first time: play, adapt, play, adapt, ..., play."""

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
    """Alternate collection and adaptation on new tasks.

    Every task starts from the meta-parameters, whatever was met before.

    Args:
        agent: a meta-agent.
        env: a batch environment of B * E episodes.
        tasks: (B, task_dim).
        num_adaptations: how often to adapt.
        seed, purpose, iteration: the address of the random streams.
        training: whether the agent is to learn from the rollouts.
        task_ids: (B,), of tasks from a finite set.
        timer: takes the times of `reset`, `policy`, `environment` and `adaptation`.
        on_step, failures: as in `collect`. A task that has lost all its episodes between two
            adaptations cannot be adapted to, and is not played any further.

    Yields:
        `num_adaptations` + 1 rollouts of all tasks.
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
