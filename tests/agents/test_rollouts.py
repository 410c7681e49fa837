"""metarl.agents.rollouts: play, adapt, play, ..., with any agent."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from metarl.agents.rollouts import adaptation_rollouts
from metarl.core.rng import Purpose
from metarl.envs import PointNav
from metarl.rollout.collect import collect, episode_rngs
from metarl.rollout.sampling import drift_phases

FAMILY = PointNav(horizon=5, action_scale=1.0)
TASKS = np.array([[0.4, 0.3], [-0.45, 0.2], [0.3, -0.5]])
ADDRESS = {"seed": 7, "purpose": Purpose.EVALUATION_EPISODES, "iteration": 2}


@dataclass
class Actor:
    """Moves by the noise, times the number of adaptations plus one."""

    factor: float

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return 0.1 * rng.standard_normal((horizon, 2), dtype=np.float32)

    def act(self, obs, noise, last_reward, active) -> np.ndarray:
        return np.float32(self.factor) * noise


@dataclass
class Counting:
    """An agent whose state is the number of its adaptations, and which notes its calls."""

    calls: list = field(default_factory=list)

    def initial_state(self, num_tasks: int, *, training: bool = False) -> int:
        self.calls.append(("initial_state", num_tasks, training))
        return 0

    def actor(self, state: int) -> Actor:
        return Actor(state + 1)

    def adapt(self, state: int, episodes) -> int:
        self.calls.append(("adapt", state, episodes))
        return state + 1


def rollouts(agent, timer, num_adaptations: int = 2, **options):
    env = FAMILY.make_batch(6)
    return list(
        adaptation_rollouts(agent, env, TASKS, num_adaptations, **ADDRESS, timer=timer, **options)
    )


@pytest.mark.parametrize("num_adaptations", [0, 1, 3])
def test_each_state_is_adapted_from_the_episodes_that_it_played(timer, num_adaptations):
    agent = Counting()
    found = rollouts(agent, timer, num_adaptations)
    assert [rollout.state for rollout in found] == list(range(num_adaptations + 1))
    start, *adaptations = agent.calls
    assert start == ("initial_state", 3, False)
    assert [state for _, state, _ in adaptations] == list(range(num_adaptations))
    for (_, _, given), rollout in zip(adaptations, found, strict=False):
        assert given is rollout.episodes
    sections = {"reset", "policy", "environment"} | ({"adaptation"} if num_adaptations else set())
    assert set(timer.seconds) == sections


def test_episodes_are_those_of_the_address_and_the_number_of_adaptations(timer):
    for step, rollout in enumerate(rollouts(Counting(), timer)):
        rngs = episode_rngs(7, Purpose.EVALUATION_EPISODES, 3, 2, 2, step)
        expected = collect(FAMILY.make_batch(6), Actor(step + 1), TASKS, rngs, timer)
        for name, array in expected.arrays.items():
            assert np.array_equal(rollout.episodes.arrays[name], array), name


def test_training_and_ids_are_passed_on(timer):
    agent, ids = Counting(), np.array([5, 0, 9])
    found = rollouts(agent, timer, training=True, task_ids=ids)
    assert agent.calls[0] == ("initial_state", 3, True)
    assert all(np.array_equal(rollout.episodes.task_ids, ids) for rollout in found)
    assert all(rollout.episodes.task_ids is None for rollout in rollouts(Counting(), timer))


def test_on_step_sees_each_rollout_from_its_beginning(timer):
    seen = []
    rollouts(Counting(), timer, on_step=seen.append)
    assert len(seen) == 3 * (1 + FAMILY.horizon)


def test_nothing_is_adapted_to_after_the_last_rollout_or_before_it_is_asked_for(timer):
    """A consumer that stops early costs no further episodes."""
    agent = Counting()
    env = FAMILY.make_batch(6)
    steps = adaptation_rollouts(agent, env, TASKS, 2, **ADDRESS, timer=timer)
    next(steps)
    assert [name for name, *_ in agent.calls] == ["initial_state"]


class Sequential(Counting):
    """Also notes when the next task begins, by 100 more."""

    def next_task(self, state: int) -> int:
        self.calls.append(("next_task", state, None))
        return state + 100


@pytest.mark.parametrize("remembers", [False, True])
def test_a_sequence_goes_on_from_the_state_after_the_task_before(timer, remembers):
    """Two adaptations to each of three tasks. One that remembers goes on from all episodes."""
    agent = Sequential()
    agent.remembers = remembers
    tasks = np.stack([TASKS, TASKS[[1, 2, 0]], TASKS[[2, 0, 1]]], axis=1)
    ids = np.arange(9).reshape(3, 3)
    found = list(
        adaptation_rollouts(
            agent, FAMILY.make_batch(6), tasks, 2, **ADDRESS, task_ids=ids, timer=timer
        )
    )
    places = [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1]
    assert [rollout.state for rollout in found] == (
        [0, 1, 2, 103, 104, 105, 206, 207, 208, 209, 210]
        if remembers
        else [0, 1, 2, 102, 103, 104, 204, 205, 206, 206, 206]
    )
    assert [name for name, *_ in agent.calls].count("next_task") == 2
    for number, (rollout, place) in enumerate(zip(found, places, strict=True)):
        assert np.array_equal(rollout.episodes.task_ids, ids[:, place])
        rngs = episode_rngs(7, Purpose.EVALUATION_EPISODES, 3, 2, 2, number)
        actor = Actor(rollout.state + 1)
        expected = collect(FAMILY.make_batch(6), actor, tasks[:, place], rngs, timer)
        for name in ("tasks", "action", "reward"):
            assert np.array_equal(rollout.episodes.arrays[name], expected.arrays[name]), name


def test_a_sequence_of_one_task_is_this_task(timer):
    one, other = (
        list(adaptation_rollouts(Counting(), FAMILY.make_batch(6), each, 1, **ADDRESS, timer=timer))
        for each in (TASKS, TASKS[:, None])
    )
    for (state, episodes), (other_state, others) in zip(one, other, strict=True):
        assert state == other_state
        for name, array in episodes.arrays.items():
            assert np.array_equal(array, others.arrays[name]), name


def test_a_task_that_drifts_has_another_version_in_each_phase(timer):
    """The agent is not told."""
    agent = Sequential()
    versions = np.stack([TASKS, 0.9 * TASKS, 0.8 * TASKS], axis=1)
    env = FAMILY.make_batch(6)
    found = list(
        adaptation_rollouts(agent, env, versions, 2, phases=drift_phases(2), **ADDRESS, timer=timer)
    )
    assert [state for state, _ in found] == [0, 1, 2]
    for number, (_, episodes) in enumerate(found):
        assert np.array_equal(episodes.tasks, versions[:, number])
    assert "next_task" not in [name for name, *_ in agent.calls]
