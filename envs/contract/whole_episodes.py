"""A check of long episodes, since some faults show after the few steps of the other checks."""

from __future__ import annotations

import time

import numpy as np

from metarl.envs.base import TaskFamily
from metarl.envs.contract.batches import expect_finite_rewards, expect_observations
from metarl.envs.contract.recording import (
    NUM_STEPS,
    Recording,
    Skipped,
    begin,
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
    tasks, episodes = random_tasks(family, NUM_EPISODES), range(NUM_EPISODES)
    actions = random_actions(family, NUM_EPISODES, LONG_STEPS)
    used, _ = begin(family, NUM_EPISODES)  # whose start, as of workers, is not timed
    start = time.perf_counter()
    play(used, tasks, actions[:NUM_STEPS], make_rngs(episodes))
    seconds = (time.perf_counter() - start) / len(actions[:NUM_STEPS])
    actions = actions[: max(NUM_STEPS, int(BUDGET / seconds))]
    env, threaded = family.make_batch(NUM_EPISODES), family.make_batch(NUM_EPISODES, 2)
    try:
        together = play(env, tasks, actions, make_rngs(episodes))
    except SimulationDiverged as error:
        raise Skipped(f"random actions make it diverge: {error.reason}") from error
    for step, active in enumerate(together.active):
        expect_observations(family, together.obs[step + 1], active, f"step {step}")
        expect_finite_rewards(together.reward[step], active, f"step {step}")
    success, active = together.success, together.active
    went_back = np.argwhere(success[:-1] & ~success[1:] & active[1:])
    expect(
        not len(went_back),
        "success: expected whether an episode has succeeded so far, but it went back to False at "
        f"(step, episode) {[(int(step) + 1, int(row)) for step, row in went_back[:1]]}",
    )
    others = {"after others in the same environment": used, "on 2 threads": threaded}
    for where, other in others.items():
        again = play(other, tasks, actions, make_rngs(episodes))
        _expect_same(together, again, where, len(actions))
    single = family.make_batch(1)
    for i in episodes:
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
