"""Check of the physics: MuJoCo resets a simulation that diverges to a finite state by itself."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator

import mujoco
import numpy as np
from gymnasium.spaces import Box

from metarl.envs.base import BatchEnv, TaskFamily
from metarl.envs.contract.recording import (
    expect,
    finite_bounds,
    make_rngs,
    random_actions,
    random_tasks,
    step_through,
)
from metarl.envs.errors import SimulationDiverged
from metarl.envs.mujoco.models import quiet

NUM_STEPS = 200  # a simulation may need some time to diverge
REMEDY = (
    "MuJoCo goes on with a state of its own, so that results stay finite: raise SimulationDiverged "
    "where MjData.warning counts it, as MujocoFamily does, or take shorter physics steps"
)
UNSTABLE = re.compile(r"Nan, Inf or huge value in (QPOS|QVEL|QACC) ")
"""MuJoCo's warnings about a state, after which it resets the simulation."""


@contextlib.contextmanager
def mujoco_warnings() -> Iterator[list[str]]:
    """Collect MuJoCo's warnings in place of printing them and writing MUJOCO_LOG.TXT.

    Yields:
        The warnings of all simulations of this process, on any thread, as they come.
    """
    found: list[str] = []
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(found.append)
    try:
        with quiet():
            yield found
    finally:
        mujoco.set_mju_user_warning(before)


def unstable(warnings: list[str]) -> str:
    """Return the first warning about a state that is not finite or huge; '' if there is none."""
    return next(filter(UNSTABLE.match, warnings), "")


def stability(family: TaskFamily) -> str:
    """MuJoCo, if the family uses it, never resets a simulation by itself."""
    num_episodes = 3
    env, tasks = family.make_batch(num_episodes), random_tasks(family, num_episodes)
    actions = random_actions(family, num_episodes, NUM_STEPS)
    constant = np.repeat(actions[:1], len(actions), axis=0)
    if isinstance(family.action_space, Box):
        constant[:] = finite_bounds(family.action_space)[1]  # leads further
    for each in (actions, constant):
        with mujoco_warnings() as found, contextlib.suppress(SimulationDiverged):
            env.reset(tasks, make_rngs(range(num_episodes)))
            expect(not unstable(found), f"reset: MuJoCo warns: {unstable(found)} {REMEDY}")
            _expect_stable(env, each, found)
    return ""


def _expect_stable(env: BatchEnv, actions: np.ndarray, found: list[str]) -> None:
    """Raise a `Violation` at the first step with a warning among those `found`."""
    stepping = step_through(env, actions)
    for step in itertools.count():
        # A step that tells of the divergence raises SimulationDiverged here.
        if next(stepping, None) is None:
            return
        expect(not unstable(found), f"step {step}: MuJoCo warns: {unstable(found)} {REMEDY}")
