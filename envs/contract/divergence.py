"""Check of a batch environment: what an episode that diverges does to the others."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Discrete

from metarl.envs.base import BatchEnv, SimulationDiverged, TaskFamily
from metarl.envs.contract.batches import RESULTS
from metarl.envs.contract.recording import expect, some_actions, some_tasks, streams

BROKEN = 1  # the episode of three that is given an action of NaN


def divergence(family: TaskFamily) -> str:
    """Episodes go on as ever, to the bit, when another one diverges."""
    if isinstance(family.action_space, Discrete):
        return "nothing made it diverge: its actions are choices"
    env, healthy = (_begin(family) for _ in range(2))
    acts = some_actions(family, 3)
    wrong = acts[0].copy()
    wrong[BROKEN] = np.nan
    try:
        env.step(wrong)
        return "nothing made it diverge: it took an action of NaN"
    except ValueError:
        return "nothing made it diverge: it refuses an action of NaN"
    except SimulationDiverged as error:
        ids, result = error.ids, error.result
    expect(
        ids.tolist() == [BROKEN],
        f"SimulationDiverged: ids: expected [{BROKEN}], the one episode whose action was NaN, got "
        f"{ids.tolist()}",
    )
    if result is None:
        return (
            "SimulationDiverged has no `result`: on_failure drop_episode and skip_update stop as "
            "stop does"
        )
    others = np.array([i for i in range(3) if i != BROKEN])
    for step, action in enumerate(acts):
        expected = healthy.step(action, others if step else None)
        for name, ours, theirs in zip(RESULTS, expected, result, strict=True):
            expect(
                np.array_equal(ours[others], theirs[others]),
                f"SimulationDiverged: {name} of the other episodes {step} steps later are not what "
                "they are where nothing diverges; step them all, then raise with their result",
            )
        others = others[~expected[2][others]]
        if not others.size or step + 1 == len(acts):
            break
        try:
            result = env.step(acts[step + 1], others)
        except SimulationDiverged as error:
            expect(
                False,
                f"SimulationDiverged: raised for episodes {error.ids.tolist()} again, though they "
                f"were not among those stepped, {others.tolist()}",
            )
    return ""


def _begin(family: TaskFamily) -> BatchEnv:
    """A batch environment at the beginning of three episodes."""
    env = family.make_batch(3)
    env.reset(some_tasks(family, 3), streams(range(3)))
    return env
