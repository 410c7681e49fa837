"""Check of a batch environment: an episode that diverges must not affect the others."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Discrete

from metarl.envs.base import TaskFamily
from metarl.envs.contract.batches import RESULTS
from metarl.envs.contract.physics import REMEDY, mujoco_warnings, unstable
from metarl.envs.contract.recording import begin, expect, random_actions
from metarl.envs.errors import SimulationDiverged
from metarl.envs.external.process import WorkerError

DIVERGING = 1  # the one of three episodes whose action is NaN


def divergence(family: TaskFamily) -> str:
    """Episodes stay bit-identical when another one diverges."""
    if isinstance(family.action_space, Discrete):
        return "nothing made it diverge: its actions are choices"
    (env, _), (healthy, _) = begin(family, 3), begin(family, 3)
    actions = random_actions(family, 3)
    wrong = actions[0].copy()
    wrong[DIVERGING] = np.nan
    try:
        with mujoco_warnings() as found:
            env.step(wrong)
        expect(not unstable(found), f"an action of NaN: MuJoCo warns: {unstable(found)} {REMEDY}")
        return "nothing made it diverge: it took an action of NaN"
    except (ValueError, WorkerError):  # in another process the environment itself refuses it
        return "nothing made it diverge: it refuses an action of NaN"
    except SimulationDiverged as error:
        ids, result = error.ids, error.result
    expect(
        ids.tolist() == [DIVERGING],
        f"SimulationDiverged: ids: expected [{DIVERGING}], the one episode whose action was NaN, "
        f"got {ids.tolist()}",
    )
    if result is None:
        return (
            "SimulationDiverged has no `result`: on_failure drop_episode and skip_update stop as "
            "stop does"
        )
    others = np.array([i for i in range(3) if i != DIVERGING])
    for step, action in enumerate(actions):
        expected = healthy.step(action, others if step else None)
        for name, ours, theirs in zip(RESULTS, expected, result, strict=True):
            expect(
                np.array_equal(ours[others], theirs[others]),
                f"SimulationDiverged: {name} of the other episodes {step} steps later are not what "
                "they are where nothing diverges; step them all, then raise with their result",
            )
        others = others[~expected[2][others]]
        if not others.size or step + 1 == len(actions):
            break
        try:
            result = env.step(actions[step + 1], others)
        except SimulationDiverged as error:
            expect(
                False,
                f"SimulationDiverged: raised for episodes {error.ids.tolist()} again, though they "
                f"were not among those stepped, {others.tolist()}",
            )
    return ""
