"""Rollouts of an agent on new tasks: collect, adapt, collect, adapt, ..., collect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from metarl.agents.base import MetaAgent, Rollout, measuring_actor
from metarl.core.rng import Purpose
from metarl.core.timer import Timer
from metarl.envs import BatchEnv
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import Failure
from metarl.rollout.sampler import EpisodeStreams, Sampler, sample


def adaptation_rollouts(
    agent: MetaAgent,
    env: BatchEnv | Sampler,
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
    deterministic: bool = False,
    on_support_step: Callable[[BatchEnv], None] | None = None,
) -> Iterator[Rollout]:
    """Alternate collection and adaptation on new tasks; yields `num_adaptations` + 1 rollouts.

    Every task starts from the meta-parameters.

    Args:
        agent: a meta-agent.
        env: a batch environment of B * E episodes, or a sampler of as many.
        tasks: (B, task_dim).
        num_adaptations: number of adaptations.
        seed, purpose, iteration: as in `metarl.core.rng.make_rng`.
        training: whether `MetaAgent.update` will be called with the rollouts.
        task_ids: (B,) int64, ids of tasks from a finite set.
        timer: measures the sections `reset`, `policy`, `environment` and `adaptation`.
        on_step, failures: as in `collect`. A task without any remaining episode before an
            adaptation cannot be adapted to, and is not played again.
        deterministic: whether the yielded episodes have deterministic actions. An adaptation then
            learns from further episodes, which explore as usual and are not yielded, so that the
            states are the same either way. The episodes of both kinds begin alike.
        on_support_step: like `on_step`, for the episodes that are not yielded.

    Yields:
        Rollouts of all B tasks: the states, and the episodes played from the states.

    Raises:
        EpisodeDiverged, UserError: as `collect`; UserError also if the agent has no deterministic
            actions.
    """
    assert not (training and deterministic)
    num_tasks, num_episodes = len(tasks), env.num_episodes // len(tasks)
    state = agent.initial_state(num_tasks, training=training)
    task_mask = np.ones(num_tasks, bool)

    def play(
        step: int, deterministic: bool, on_step: Callable[[BatchEnv], None] | None
    ) -> Episodes:
        with timer("policy"):
            actor = measuring_actor(agent, state, deterministic)
        return sample(
            env,
            actor,
            tasks,
            EpisodeStreams(seed, purpose, num_episodes, iteration, step),
            timer,
            on_step,
            failures=failures,
            task_mask=task_mask,
            task_ids=task_ids,
        )

    for step in range(num_adaptations + 1):
        episodes = play(step, deterministic, on_step)
        task_mask = episodes.task_mask
        yield Rollout(state, episodes)
        if step < num_adaptations:
            if deterministic:
                episodes = play(step, False, on_support_step)
                task_mask = episodes.task_mask
            with timer("adaptation"):
                state = agent.adapt(state, episodes)
