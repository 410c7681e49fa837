"""Checks that tasks and actions have an effect, and that observations do not reveal the task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from gymnasium.spaces import Discrete

from metarl.envs.base import BatchEnv, TaskFamily
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
from metarl.envs.wrappers.observed import TaskObserved

NUM_TASKS = 16
NUM_SEEDS = 3
NUM_ROLLOUTS, ROLLOUT_STEPS = 32, 200  # to find a difference where rewards are sparse
MAX_LINEAR = 500  # numbers of an observation that are combined
MAX_RESIDUAL = 1e-6  # share of a task coordinate that may be left if others determine it
MAX_CORRELATION = 1 - 1e-9  # above it, two numbers are equal up to scale and offset


def task_effect(family: TaskFamily) -> str:
    """Two tasks reward, move or end the same actions differently."""
    tasks = np.unique(random_tasks(family, NUM_TASKS), axis=0)
    expect(len(tasks) > 1, f"the {NUM_TASKS} tasks that were drawn are all the same")
    env = family.make_batch(len(tasks))
    expect(
        found := _difference(family, 1, lambda *given: _under_equal_conditions(env, tasks, *given)),
        f"{len(tasks)} tasks reward and move the same actions alike, {_tried(family)}; use the "
        "tasks that reset is given",
    )
    return found


def action_effect(family: TaskFamily) -> str:
    """Different actions are rewarded, move or end the same task differently."""
    if isinstance(family.action_space, Discrete) and family.action_space.n == 1:
        raise Skipped("there is only one action")
    env = family.make_batch(NUM_TASKS)

    def recorded(actions: np.ndarray, seed: int) -> Recording:
        tasks = np.repeat(random_tasks(family, 1, seed), NUM_TASKS, axis=0)
        return play(env, tasks, actions, [make_rngs([seed])[0] for _ in tasks])

    expect(
        found := _difference(family, NUM_TASKS, recorded),
        f"{NUM_TASKS} sequences of random actions are rewarded and move alike, {_tried(family)}; "
        "use the actions that step is given",
    )
    return found


def _difference(
    family: TaskFamily, num_sequences: int, recorded: Callable[[np.ndarray, int], Recording]
) -> str:
    """Return by what the episodes of a recording differ, '' if by nothing in `NUM_ROLLOUTS`.

    Args:
        family: the family.
        num_sequences: the number of sequences of random actions in a recording, N.
        recorded: plays actions, (T, N, action_dim), with a seed.
    """
    for seed in range(NUM_ROLLOUTS):
        steps = NUM_STEPS if seed == 0 else ROLLOUT_STEPS
        actions = random_actions(family, num_sequences, steps, seed)
        if seed % 4:
            actions[:] = actions[0]  # constant actions lead further
        recording = recorded(actions, seed)
        for name in ("reward", "terminated", "obs"):
            if not _same_for_all(getattr(recording, name)):
                return f"by {name}"
    return ""


def _tried(family: TaskFamily) -> str:
    """Return how long a difference was searched for."""
    return f"{NUM_ROLLOUTS} times for {min(ROLLOUT_STEPS, family.horizon)} steps"


def _under_equal_conditions(
    env: BatchEnv, tasks: np.ndarray, actions: np.ndarray, seed: int = 0
) -> Recording:
    """Play tasks, (N, task_dim), with the same random numbers and actions, (T, 1, action_dim)."""
    rngs = [make_rngs([seed])[0] for _ in tasks]
    return play(env, tasks, np.repeat(actions, len(tasks), axis=1), rngs)


def _same_for_all(values: np.ndarray) -> bool:
    """Return whether all episodes, the second axis, have equal values."""
    return np.array_equal(values, np.broadcast_to(values[:, :1], values.shape), equal_nan=True)


def hidden_task(family: TaskFamily) -> str:
    """Observations reveal the task only through the motion."""
    if isinstance(family, TaskObserved):
        raise Skipped("observe_task shows the task on purpose")
    tasks = np.unique(random_tasks(family, NUM_TASKS), axis=0)
    env, actions = family.make_batch(len(tasks)), random_actions(family, 1)
    actions[:] = actions[0]  # constant, so that observations change only with the state
    played = [_under_equal_conditions(env, tasks, actions, i) for i in range(NUM_SEEDS)]
    played = [_without_last_rewards(recording) for recording in played]
    first = np.stack([recording.obs[0] for recording in played])  # (seeds, N, obs_dim)
    note = ""
    if not _same_for_all(first):
        # What chance adds to the task hides it: every first observation has a generator of its own.
        rngs = (make_rngs(range(len(tasks)), seed) for seed in range(NUM_SEEDS))
        drawn = np.concatenate([np.array(env.reset(tasks, each)) for each in rngs])
        _expect_not_proportional(drawn, tasks, family.visible_task)
        _expect_no_linear_function(family)
        note = "the first observations differ between tasks, but none is a coordinate of the task"
        if family.visible_task:
            return (
                "observations show what the family calls visible of its tasks, and no more at first"
            )
    for recording in map(_common_steps, played):
        if _same_for_all(recording.obs):
            continue
        if not _same_for_all(recording.state):
            return note or "the task changes the motion, so it shows there"
        if not _state_moves(recording):
            return note or (
                "the first observation; render_state does not tell whether the motion differs"
            )
        _reject_difference(recording.obs)
    return note


def _expect_not_proportional(
    first: np.ndarray, tasks: np.ndarray, visible: tuple[int, ...]
) -> None:
    """Reject first observations, (seeds * N, obs_dim), that hold an affine function of a task
    coordinate that is not visible."""
    obs = first - first.mean(axis=0)
    task = np.tile(tasks - tasks.mean(axis=0), (NUM_SEEDS, 1))  # (seeds * N, task_dim)
    norms = np.outer(np.linalg.norm(obs, axis=0), np.linalg.norm(task, axis=0))
    correlation = np.abs(obs.T @ task) / np.where(norms > 0, norms, np.inf)
    correlation[:, list(visible)] = 0
    where = np.argwhere(correlation > MAX_CORRELATION)
    if len(where):
        raise Violation(
            f"number {where[0][0]} of the first observation tells number {where[0][1]} of the task "
            "(up to scale and offset); leave it out, or there is nothing to adapt to"
        )


def _expect_no_linear_function(family: TaskFamily) -> None:
    """Reject first observations of which a linear function, with a constant, is a task coordinate
    that is not visible. Of very long observations this is not looked at."""
    size = family.observation_space.shape[0]
    if size > MAX_LINEAR:
        return
    tasks = random_tasks(family, size + NUM_TASKS)
    env = family.make_batch(1)  # a batch of as many would be large
    first = np.concatenate(
        [np.array(env.reset(task[None], make_rngs([number]))) for number, task in enumerate(tasks)]
    )
    columns = np.column_stack([first, np.ones(len(first))]).astype(np.float64)
    columns /= np.maximum(np.abs(columns).max(axis=0), np.finfo(float).tiny)
    found = columns @ np.linalg.lstsq(columns, tasks, rcond=None)[0]
    left, spread = (
        np.linalg.norm(tasks - each, axis=0) for each in (found, tasks.mean(axis=0))
    )  # (task_dim,) each
    known = (left <= MAX_RESIDUAL * spread) & (spread > 0)
    known[list(family.visible_task)] = False
    if known.any():
        raise Violation(
            f"the first observation tells number {np.flatnonzero(known)[0]} of the task, as a sum "
            "of multiples of its numbers; leave it out, or there is nothing to adapt to"
        )


def _without_last_rewards(recording: Recording) -> Recording:
    """Return a recording without the numbers of observations that are the last reward, by which an
    agent may learn of its task."""
    told = recording.reward[..., None].astype(recording.obs.dtype)  # (T, N, 1)
    shown = (recording.obs[1:] == told) | ~recording.active[..., None]
    kept = ~shown.all(axis=(0, 1))
    return replace(recording, obs=recording.obs[..., kept]) if len(told) else recording


def _common_steps(recording: Recording) -> Recording:
    """Return the beginning of a recording, up to the first end of an episode."""
    steps = int(recording.active.all(axis=1).sum())
    return replace(recording, state=recording.state[: steps + 1], obs=recording.obs[: steps + 1])


def _state_moves(recording: Recording) -> bool:
    """Return whether the render state changes whenever the observation does; false if that cannot
    be told.

    The first step is left out: the observation may change because it shows the last action.
    """
    state, obs = recording.state[1:, 0], recording.obs[1:, 0]
    return len(obs) > 1 and all(
        np.array_equal(obs[i], obs[i + 1]) or not np.array_equal(state[i], state[i + 1])
        for i in range(len(obs) - 1)
    )


def _reject_difference(obs: np.ndarray) -> None:
    """Raise a `Violation` at the first observation, (T + 1, N, obs_dim), that differs."""
    step, _, number = np.argwhere(obs != obs[:, :1])[0]
    raise Violation(
        f"the tasks move alike, but number {number} of the observation after {step} steps "
        "depends on the task; leave it out, or there is nothing to adapt to"
    )
