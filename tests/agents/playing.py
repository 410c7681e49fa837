"""What the tests of all kinds of agents do: change some settings, and play a meta-batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarl.agents import Rollout
from metarl.agents.rollouts import adaptation_rollouts
from metarl.config import Config
from metarl.core.rng import Purpose
from metarl.core.timer import Timer


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an agent with some changed, section by section."""
    return {
        name: {**settings.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in {**settings, **changes}.items()
    }


def play(config: Config, agent, tasks=None, iteration=0, **settings) -> list[Rollout]:
    """The rollouts of an iteration of training, by default on the first four training tasks."""
    tasks = config.env.tasks("train", 4) if tasks is None else tasks
    return list(
        adaptation_rollouts(
            agent,
            config.env.make_batch(len(tasks) * config.sampling.num_episodes),
            tasks,
            config.sampling.adaptation_steps,
            seed=0,
            iteration=iteration,
            purpose=Purpose.TRAIN_EPISODES,
            training=True,
            timer=Timer(),
            **settings,
        )
    )
