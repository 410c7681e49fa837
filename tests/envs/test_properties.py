"""What holds for episodes of every family, with any tasks, random numbers, actions and sizes."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from gymnasium.spaces import Discrete
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.envs import FAMILIES, BatchEnv, TaskFamily, make_family
from metarl.envs.contract import UNAVAILABLE
from metarl.envs.contract.recording import finite_bounds, play, render_states, step_through

every_family = pytest.mark.parametrize("name", FAMILIES)
few = settings(max_examples=6, deadline=None)
seeds = st.integers(0, 2**32 - 1)
lengths = st.integers(1, 6)


@functools.cache
def family_of(name: str) -> TaskFamily:
    """A registered family."""
    return make_family(name)


@functools.cache
def env_of(name: str, num_episodes: int, number: int = 0) -> BatchEnv:
    """A batch environment, made once: the examples come one after another, as in training.

    Where it cannot be made, its tests are skipped.
    """
    try:
        return family_of(name).make_batch(num_episodes, num_threads=1 + number)
    except UNAVAILABLE as error:
        pytest.skip(f"{name}: {error}")


def episodes(name: str, seed: int, num_episodes: int, num_steps: int):
    """Tasks (N, task_dim), actions (T, N, action_dim) and the seeds of the generators, (N,)."""
    family, rng = family_of(name), np.random.default_rng(seed)
    tasks, space = family.sample_tasks(rng, num_episodes), family.action_space
    shape = (min(num_steps, family.horizon), num_episodes, family.action_dim)
    if isinstance(space, Discrete):
        actions = rng.integers(space.n, size=shape).astype(np.float32)
    else:
        low, high = finite_bounds(space)
        # Some beyond the bounds, and about as many at them.
        actions = rng.uniform(1.5 * low - 0.5 * high, 1.5 * high - 0.5 * low, shape)
        actions = np.where(rng.random(shape) < 0.2, high, actions).astype(np.float32)
    return tasks, actions, rng.integers(2**32, size=num_episodes)


def make_rngs(numbers: np.ndarray) -> list[np.random.Generator]:
    return [np.random.default_rng(number) for number in numbers]


@every_family
@few
@given(seed=seeds, other_seed=seeds, num_steps=lengths, places=st.permutations(range(4)))
def test_an_episode_does_not_depend_on_its_company(name, seed, other_seed, num_steps, places):
    """Alone, among others, and elsewhere among yet others on two threads, it is the same."""
    env = env_of(name, 4)
    tasks, actions, numbers = episodes(name, seed, 4, num_steps)
    together = play(env, tasks, actions, make_rngs(numbers))
    alone = play(env_of(name, 1), tasks[:1], actions[:, :1], make_rngs(numbers[:1]))
    assert together.select([0]).difference(alone) == ""

    # Episodes 0 and 1 go to other places; all the others are replaced.
    kept = [places[0], places[1]]
    other_tasks, other_actions, other_numbers = episodes(name, other_seed, 4, num_steps)
    other_tasks[kept], other_numbers[kept] = tasks[:2], numbers[:2]
    other_actions[:, kept] = actions[:, :2]
    elsewhere = play(env_of(name, 4, 1), other_tasks, other_actions, make_rngs(other_numbers))
    assert together.select([0, 1]).difference(elsewhere.select(kept)) == ""


@every_family
@few
@given(seed=seeds, num_steps=lengths, data=st.data())
def test_stepping_parts_equals_stepping_all(name, seed, num_steps, data):
    """Whichever episodes are stepped first; the others stay where they are meanwhile."""
    whole, parts = env_of(name, 4), env_of(name, 4, 1)
    tasks, actions, numbers = episodes(name, seed, 4, num_steps)
    first = whole.reset(tasks, make_rngs(numbers))
    assert np.array_equal(first, parts.reset(tasks, make_rngs(numbers)))
    for step, (active, result) in enumerate(step_through(whole, actions)):
        chosen = np.array(data.draw(st.lists(st.booleans(), min_size=4, max_size=4)))
        for part in (active & chosen, active & ~chosen):
            ids = np.flatnonzero(part)
            if not ids.size:
                continue
            before = render_states(parts)
            got = parts.step(actions[step], ids)
            assert np.array_equal(before[~part], render_states(parts)[~part])
            for ours, theirs in zip(result, got, strict=True):
                assert np.array_equal(ours[ids], theirs[ids])


@every_family
@few
@given(seed=seeds, num_episodes=st.sampled_from([1, 4]), num_steps=lengths, data=st.data())
def test_observations_lie_in_their_space_and_rewards_are_finite(
    name, seed, num_episodes, num_steps, data
):
    """Under sampled tasks and under those of every task set that the family has."""
    family, env = family_of(name), env_of(name, num_episodes)
    tasks, actions, numbers = episodes(name, seed, num_episodes, num_steps)
    split = data.draw(st.sampled_from(["sampled", *family.splits]))
    if split != "sampled":
        tasks = family.tasks(split, num_episodes)
    recording = play(env, tasks, actions, make_rngs(numbers))
    seen = [*recording.obs[0], *recording.obs[1:][recording.active]]
    assert all(family.observation_space.contains(obs) for obs in seen)
    assert np.isfinite(recording.reward).all()
