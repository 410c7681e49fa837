"""Episodes under known tasks, streams and actions, recorded to be compared."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.envs.base import BatchEnv, TaskFamily

NUM_STEPS = 8  # control steps of most comparisons, at most


class Violation(Exception):
    """A family breaks its contract: what was expected, what was found, and the remedy."""


class Skipped(Exception):
    """A check cannot be made here, or makes no sense for this family."""


def expect(condition: object, reason: str) -> None:
    """Raise a `Violation` with the reason if the condition is false."""
    if not condition:
        raise Violation(reason)


def first_line(message: object) -> str:
    """Return the first line of a message, without the colours of a terminal."""
    plain = re.sub(r"\x1b\[\d+m", "", str(message))
    return plain.strip().partition("\n")[0]


@dataclass(frozen=True)
class Recording:
    """What N episodes of up to T steps showed. An episode that ended is not stepped again, and what
    follows its end is 0.

    Attributes:
        state: what a scene draws, (T + 1, N, k).
        obs: (T + 1, N, obs_dim).
        reward: (T, N).
        terminated: (T, N).
        live: which episodes were stepped, (T, N).
    """

    state: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    live: np.ndarray

    def of(self, episodes: list[int]) -> Recording:
        """Return the recording of these episodes only."""
        return Recording(*(getattr(self, field.name)[:, episodes] for field in fields(self)))

    def difference(self, other: Recording) -> str:
        """Say where another recording differs first, '' where it is the same to the bit."""
        found = []
        for order, field in enumerate(fields(self)):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if ours.shape != theirs.shape:
                return f"{field.name} of shape {ours.shape[2:]}, then {theirs.shape[2:]}"
            same = (ours == theirs) | ((ours != ours) & (theirs != theirs))  # NaN equals NaN here
            if not same.all():
                at = tuple(np.argwhere(~same)[0])
                # What a step returns stands at its number, what is seen after it one further.
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
        rngs: the streams of the episodes, N.
    """
    num_steps, num_episodes = actions.shape[:2]
    first = np.array(env.reset(tasks, rngs))
    obs = np.zeros((num_steps + 1, *first.shape), first.dtype)
    obs[0] = first
    state = [drawn_states(env)]
    reward = np.zeros((num_steps, num_episodes))
    terminated, live = np.zeros((2, num_steps, num_episodes), bool)
    for step, (active, result) in enumerate(step_through(env, actions)):
        live[step] = active
        obs[step + 1][active] = result[0][active]
        reward[step][active] = result[1][active]
        terminated[step][active] = result[2][active]
        state.append(drawn_states(env))
    state += [np.zeros_like(state[0])] * (num_steps + 1 - len(state))
    return Recording(np.stack(state), obs, reward, terminated, live)


def step_through(
    env: BatchEnv, actions: np.ndarray
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Step until the actions, (T, N, action_dim), or the episodes come to their end.

    Yields:
        Which episodes were stepped, (N,) bool, and what `step` returned.
    """
    active = np.ones(env.num_episodes, bool)
    for action in actions:
        if not active.any():
            return
        result = env.step(action, None if active.all() else np.flatnonzero(active))
        yield active.copy(), result
        active &= ~result[2]


def drawn_states(env: BatchEnv) -> np.ndarray:
    """Return what is drawn of all episodes as they stand, (N, k)."""
    return np.stack([np.array(env.drawn_state(i)) for i in range(env.num_episodes)])


def streams(episodes: Iterable[int], seed: int = 0) -> list[np.random.Generator]:
    """Return the random streams of these episodes, by their numbers."""
    return [np.random.default_rng([seed, episode]) for episode in episodes]


def some_tasks(family: TaskFamily, num_tasks: int, seed: int = 0) -> np.ndarray:
    """Return tasks from the family's distribution, (num_tasks, task_dim)."""
    return family.sample_tasks(np.random.default_rng([2, seed]), num_tasks)


def some_actions(
    family: TaskFamily, num_episodes: int, num_steps: int = NUM_STEPS, seed: int = 0
) -> np.ndarray:
    """Return actions from all of the space, for at most an episode, (T, N, action_dim) float32."""
    rng, space = np.random.default_rng([3, seed]), family.action_space
    shape = (min(num_steps, family.horizon), num_episodes, family.action_dim)
    if isinstance(space, Discrete):
        return rng.integers(space.n, size=shape).astype(np.float32)
    return rng.uniform(*finite_bounds(space), shape).astype(np.float32)


def finite_bounds(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return low and high of a Box of actions, -1 and 1 where it has no bound."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return np.where(np.isfinite(low), low, -1.0), np.where(np.isfinite(high), high, 1.0)


def record(
    family: TaskFamily, num_episodes: int = 3, num_threads: int = 1, seed: int = 0
) -> Recording:
    """Play a few steps of a few episodes in a new batch environment."""
    env = family.make_batch(num_episodes, num_threads)
    tasks, actions = some_tasks(family, num_episodes), some_actions(family, num_episodes)
    return play(env, tasks, actions, streams(range(num_episodes), seed))


# What is watched here are the legacy generators, which a family must not use.
# ruff: noqa: NPY002
@contextlib.contextmanager
def watched_globals(seed: int) -> Iterator[None]:
    """Seed the global generators of numpy and random for the block, which may not use them.

    Raises:
        Violation: if the block used one. They are set back in any case.
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
