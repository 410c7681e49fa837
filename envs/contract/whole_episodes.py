"""A check of long episodes, since some faults show after the few steps of the other checks."""

from __future__ import annotations

import time

import numpy as np

from metarl.envs.base import TaskFamily
from metarl.envs.contract.batches import expect_observations
from metarl.envs.contract.recording import (
    NUM_STEPS,
    Recording,
    Skipped,
    Violation,
    expect,
    make_rngs,
    play,
    random_actions,
    random_tasks,
)
from metarl.envs.errors import SimulationDiverged

NUM_EPISODES = 3
LONG_STEPS = 200  # at most
BUDGET = 3.0  # s, for playing all episodes once; a slow environment takes fewer steps


def whole_episodes(family: TaskFamily) -> str:
    """Long episodes stay in their space, and are the same alone, after others and on 2 threads."""
    tasks, used = random_tasks(family, NUM_EPISODES), family.make_batch(NUM_EPISODES)
    actions = random_actions(family, NUM_EPISODES, LONG_STEPS)
    start = time.perf_counter()
    play(used, tasks, actions[:NUM_STEPS], make_rngs(range(NUM_EPISODES)))
    seconds = (time.perf_counter() - start) / len(actions[:NUM_STEPS])
    actions = actions[: max(NUM_STEPS, int(BUDGET / seconds))]
    rngs = range(NUM_EPISODES)
    try:
        together = play(family.make_batch(NUM_EPISODES), tasks, actions, make_rngs(rngs))
    except SimulationDiverged as error:
        raise Skipped(f"random actions make it diverge: {error.reason}") from error
    _expect_in_range(family, together)
    others = {
        "after others in the same environment": play(used, tasks, actions, make_rngs(rngs)),
        "on 2 threads": play(family.make_batch(NUM_EPISODES, 2), tasks, actions, make_rngs(rngs)),
    }
    for where, other in others.items():
        _expect_same(together, other, where, len(actions))
    single = family.make_batch(1)
    for i in rngs:
        alone = play(single, tasks[[i]], actions[:, [i]], make_rngs([i]))
        where = f"alone, as number {i + 1} of its environment"
        _expect_same(together.select([i]), alone, where, len(actions))
    return f"{len(actions)} steps: in their space, the same alone, after others and on 2 threads"


def _expect_same(together: Recording, other: Recording, where: str, steps: int) -> None:
    found = together.difference(other)
    expect(
        not found,
        f"over {steps} steps an episode {where} is another ({found}); it must not depend on other "
        "episodes, on threads or on what was before",
    )


def _expect_in_range(family: TaskFamily, recording: Recording) -> None:
    """Raise a `Violation` if an observation is outside of its space or a reward is not finite."""
    for step, active in enumerate(recording.active):
        expect_observations(family, recording.obs[step + 1], active, f"step {step}")
        bad = np.flatnonzero(~np.isfinite(recording.reward[step]) & active)
        if bad.size:
            value = recording.reward[step][bad[0]]
            raise Violation(
                f"step {step}: the reward of episode {bad[0]} is {value}; it must be finite"
            )
