"""Recordings of episodes under given tasks, random numbers and actions, for comparison."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import BatchEnv, TaskFamily

NUM_STEPS = 8  # maximum number of control steps of most comparisons


class Violation(Exception):
    """A family violates its contract; the message says what was expected, found, and a remedy."""


class Skipped(Exception):
    """A check cannot be made here, or does not apply to this family."""


def expect(condition: object, reason: str) -> None:
    """Raise a `Violation` with the reason if the condition is false."""
    if not condition:
        raise Violation(reason)


@dataclass(frozen=True)
class Recording:
    """N episodes of up to T steps. Entries after the end of an episode are 0.

    Attributes:
        state: the render states, (T + 1, N, k).
        obs: (T + 1, N, obs_dim).
        reward: (T, N).
        terminated: (T, N).
        truncated, success: (T, N); false where the environment does not define them.
        active: which episodes were stepped, (T, N).
    """

    state: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    active: np.ndarray

    def select(self, episodes: list[int]) -> Recording:
        """Return the recording of these episodes only."""
        return Recording(*(getattr(self, field.name)[:, episodes] for field in fields(self)))

    def difference(self, other: Recording) -> str:
        """Return where another recording first differs; '' if both are bit-identical."""
        found = []
        for order, field in enumerate(fields(self)):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if ours.shape != theirs.shape:
                return f"{field.name} of shape {ours.shape[2:]}, then {theirs.shape[2:]}"
            same = (ours == theirs) | ((ours != ours) & (theirs != theirs))  # NaN equals NaN here
            if not same.all():
                at = tuple(np.argwhere(~same)[0])
                # Arrays with T + 1 entries begin with the reset, arrays with T with the first step.
                steps = at[0] if len(ours) == len(self.obs) else at[0] + 1
                values = f"{float(ours[at])!r}, then {float(theirs[at])!r}"
                text = f"{field.name} of episode {at[1]} after {steps} steps: {values}"
                found.append((steps, order, text))
        return min(found)[2] if found else ""


def play(
    env: BatchEnv,
    tasks: np.ndarray,
    actions: np.ndarray,
    rngs: list[np.random.Generator],
) -> Recording:
    """Reset and step as training does: an episode that ended is not stepped again.

    Args:
        env: a batch environment of N episodes.
        tasks: (N, task_dim).
        actions: (T, N, action_dim).
        rngs: the random number generators of the episodes, N.
    """
    num_steps, num_episodes = actions.shape[:2]
    first = np.array(env.reset(tasks, rngs))
    obs = np.zeros((num_steps + 1, *first.shape), first.dtype)
    obs[0] = first
    first_state = render_states(env)
    state = np.zeros((num_steps + 1, *first_state.shape), first_state.dtype)
    state[0] = first_state
    reward = np.zeros((num_steps, num_episodes))
    terminated, truncated, success, active = np.zeros((4, num_steps, num_episodes), bool)
    for step, (rows, result) in enumerate(step_through(env, actions)):
        active[step] = rows
        obs[step + 1][rows] = result[0][rows]
        reward[step][rows] = result[1][rows]
        terminated[step][rows] = result[2][rows]
        for kept, known in ((truncated, env.truncated), (success, env.success)):
            if known is not None:
                kept[step][rows] = np.asarray(known)[rows]
        state[step + 1][rows] = render_states(env)[rows]
    return Recording(state, obs, reward, terminated, truncated, success, active)


def step_through(
    env: BatchEnv, actions: np.ndarray
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Step until the actions, (T, N, action_dim), are used up or all episodes have ended.

    Yields:
        Which episodes were stepped, (N,) bool, and the results of `step`.
    """
    active = np.ones(env.num_episodes, bool)
    for action in actions:
        if not active.any():
            return
        result = env.step(action, None if active.all() else np.flatnonzero(active))
        yield active.copy(), result
        active &= ~result[2]
        if env.truncated is not None:
            active &= ~env.truncated


def render_states(env: BatchEnv) -> np.ndarray:
    """Return the current render states of all episodes, (N, k)."""
    return np.stack([np.array(env.render_state(i)) for i in range(env.num_episodes)])


def begin(family: TaskFamily, num_episodes: int) -> tuple[BatchEnv, np.ndarray]:
    """Make and reset a batch environment; return it with its first observations."""
    env = family.make_batch(num_episodes)
    tasks = random_tasks(family, num_episodes)
    return env, env.reset(tasks, make_rngs(range(num_episodes)))


def make_rngs(episodes: Iterable[int], seed: int = 0) -> list[np.random.Generator]:
    """Return a random number generator for each of these episode numbers."""
    return [np.random.default_rng([seed, episode]) for episode in episodes]


def random_tasks(family: TaskFamily, num_tasks: int, seed: int = 0) -> np.ndarray:
    """Return tasks from the family's distribution, (num_tasks, task_dim)."""
    return family.sample_tasks(np.random.default_rng([2, seed]), num_tasks)


def random_actions(
    family: TaskFamily, num_episodes: int, num_steps: int = NUM_STEPS, seed: int = 0
) -> np.ndarray:
    """Return actions uniform in the action space, for at most one episode, (T, N, action_dim)
    float32."""
    rng, space = np.random.default_rng([3, seed]), family.action_space
    shape = (min(num_steps, family.horizon), num_episodes, family.action_dim)
    if isinstance(space, Discrete):
        return rng.integers(space.n, size=shape).astype(np.float32)
    return rng.uniform(*finite_bounds(space), shape).astype(np.float32)


def finite_bounds(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return low and high of a Box of actions, in place of missing bounds -1 and 1, or 2 away from
    the other bound if that is beyond them."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    below, above = np.isfinite(low), np.isfinite(high)
    found = np.where(below, low, np.where(above, np.minimum(high - 2, -1.0), -1.0))
    return found, np.where(above, high, np.where(below, np.maximum(low + 2, 1.0), 1.0))


def record(
    family: TaskFamily, num_episodes: int = 3, num_threads: int = 1, seed: int = 0
) -> Recording:
    """Play a few steps of a few episodes in a new batch environment."""
    env = family.make_batch(num_episodes, num_threads)
    tasks, actions = random_tasks(family, num_episodes), random_actions(family, num_episodes)
    return play(env, tasks, actions, make_rngs(range(num_episodes), seed))


# These are the legacy generators, which a family must not use.
# ruff: noqa: NPY002
@contextlib.contextmanager
def unused_global_rngs(seed: int) -> Iterator[None]:
    """Seed the global generators of numpy and random, which the block must not use.

    Raises:
        Violation: if the block used one. Their states are restored in any case.
    """
    before = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    numpy_state, python_state = _numpy_state(), random.getstate()
    try:
        yield
        for name, same in (
            ("np.random's", numpy_state == _numpy_state()),
            ("random's", python_state == random.getstate()),
        ):
            expect(same, f"it uses {name} global generator; draw from the generator that is given")
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])


def _numpy_state() -> tuple[bytes, int]:
    state = np.random.get_state(legacy=False)["state"]
    return state["key"].tobytes(), state["pos"]
