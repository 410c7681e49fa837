"""metarl.evaluation.beliefs: beliefs in trials, and how they are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metarl.agents.optional import Beliefs, beliefs, has_beliefs
from metarl.config import Config
from metarl.core.errors import UserError
from metarl.envs import PointNav
from metarl.evaluation.beliefs import Reading, first_tasks, fit_reading, trial_beliefs
from tests.agents.playing import play

FAMILY = PointNav(horizon=6, action_scale=1.0)
SAMPLING = {"num_tasks": 4, "num_episodes": 1, "adaptation_steps": 2, "train_tasks": 4}
AGENTS = {
    "varibad": {"kind": "varibad", "encoder": {"size": 6, "latent": 2}, "policy": {"hidden": [5]}},
    "pearl": {
        "kind": "pearl",
        "network": {"hidden": [4], "encoder_hidden": [4], "latent_dim": 2},
        "update": {"context": 4, "batch": 8},
    },
}


@pytest.fixture(params=AGENTS)
def config(request) -> Config:
    return Config(env=FAMILY, agent=AGENTS[request.param], sampling=SAMPLING, threads=1)


def test_a_linear_map_is_found_and_carries_a_gaussian_over():
    latent = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0], [4.0, 2.0]])
    tasks = 3.0 + 2.0 * latent[:, :1] - latent[:, 1:]
    reading = Reading.fit(Beliefs(latent, np.zeros_like(latent)), tasks)
    np.testing.assert_allclose(reading.slope, [[2.0], [-1.0]], rtol=1e-3)
    np.testing.assert_allclose(reading.offset, [3.0], rtol=1e-3)
    np.testing.assert_allclose(reading.error, [[0.0]], atol=1e-5)
    exact = Reading(np.array([[2.0], [-1.0]]), np.array([3.0]), np.array([[0.25]]))
    mean, covariance = exact(Beliefs(np.array([1.0, 4.0]), np.array([0.5, 3.0])))
    assert mean.tolist() == [1.0]
    assert covariance.tolist() == [[2.0**2 * 0.25 + 9.0 + 0.25]]


@pytest.mark.parametrize("noise", [2.0, 1.0, 0.2])
def test_the_posterior_of_a_gaussian_problem_is_read_as_itself(noise):
    """The task is the latent variable, N(0, 1), and is observed with noise: its posterior is known,
    and so must be the belief about the task, neither wider nor narrower."""
    rng = np.random.default_rng(0)
    task = rng.standard_normal((20_000, 1))
    seen = task + noise * rng.standard_normal((20_000, 1))
    variance = 1 / (1 + 1 / noise**2)
    exact = Beliefs(seen * variance / noise**2, np.full_like(seen, np.sqrt(variance)))
    mean, covariance = Reading.fit(exact, task)(exact)
    np.testing.assert_allclose(mean, exact.mean, atol=0.05)
    np.testing.assert_allclose(covariance, variance, rtol=0.03)


def test_beliefs_that_are_too_certain_are_read_with_the_error_they_have():
    """Half of the standard deviation is claimed: the other part of the variance is the map's."""
    rng = np.random.default_rng(0)
    belief = Beliefs(rng.standard_normal((20_000, 2)), np.full((20_000, 2), 0.5))
    tasks = belief.mean + rng.standard_normal((20_000, 2))
    reading = Reading.fit(belief, tasks)
    np.testing.assert_allclose(reading.error, 0.75 * np.eye(2), atol=0.03)
    np.testing.assert_allclose(
        reading(belief)[1], np.eye(2)[None] + 0 * tasks[:, :, None], atol=0.03
    )


def test_two_numbers_of_a_task_that_depend_on_one_latent_are_correlated():
    reading = Reading(np.array([[1.0, -2.0]]), np.zeros(2), np.zeros((2, 2)))
    _, covariance = reading(Beliefs(np.array([0.0]), np.array([3.0])))
    assert covariance.tolist() == [[9.0, -18.0], [-18.0, 36.0]]


def test_latents_that_say_nothing_are_read_as_the_mean_task():
    tasks = np.array([[1.0], [2.0], [6.0]])
    reading = Reading.fit(Beliefs(np.full((3, 2), 0.7), np.ones((3, 2))), tasks)
    mean, covariance = reading(Beliefs(np.zeros(2), np.ones(2)))
    np.testing.assert_allclose(mean, 3.0)
    np.testing.assert_allclose(covariance, tasks.var())


def test_trials_are_those_of_an_evaluation_and_last_to_the_last_step(config):
    agent, tasks = config.make_agent(), FAMILY.tasks("test", 3)
    found = trial_beliefs(agent, FAMILY, tasks, 2)
    assert found.beliefs.mean.shape == found.beliefs.std.shape == (3, 3, 6, 2)
    assert (found.beliefs.std > 0).all()
    again = trial_beliefs(agent, FAMILY, tasks, 2)
    assert np.array_equal(found.beliefs.mean, again.beliefs.mean)
    for row, mask in enumerate(found.mask[:, -1]):
        step = mask.sum() - 1
        assert np.array_equal(found.last.mean[row], found.beliefs.mean[row, -1, step])
    assert fit_reading(agent, FAMILY, 2).slope.shape == (2, 2)


class FewGoals(PointNav):
    """Has five tasks of each set, as Meta-World's ML1 has 50."""

    def tasks(self, split, num_tasks):
        if num_tasks > 5:
            raise ValueError(f"num_tasks: there are 5 {split} tasks, got {num_tasks}")
        return super().tasks(split, num_tasks)


def test_a_set_of_few_tasks_is_used_whole():
    family = FewGoals(horizon=6)
    assert np.array_equal(first_tasks(family, "train", 100), family.tasks("train", 5))
    assert np.array_equal(first_tasks(family, "train", 3), family.tasks("train", 3))
    config = Config(env=FAMILY, agent=AGENTS["pearl"], sampling=SAMPLING, threads=1)
    assert fit_reading(config.make_agent(), family, 1).slope.shape == (2, 2)
    with pytest.raises(UserError, match="unknown split"):
        first_tasks(family, "tests", 3)


def test_normalised_observations_are_those_of_the_belief_too():
    """VariBAD's encoder sees them: its beliefs are those of the normalised episodes."""
    agent = {**AGENTS["varibad"], "running_observations": False, "normalize_observations": True}
    config = Config(env=FAMILY, agent=agent, sampling=SAMPLING, threads=1)
    whole = config.make_agent()
    rollout = play(config, whole)[1]
    episodes = replace(rollout.episodes, obs=whole.normalize(rollout.episodes.obs))
    found = beliefs(whole, rollout).mean[rollout.episodes.mask]
    expected = whole.agent.beliefs(rollout.state, episodes).mean[rollout.episodes.mask]
    assert np.array_equal(found, expected)
    plain = Config(env=FAMILY, agent={"normalize_observations": True}, sampling=SAMPLING)
    assert not has_beliefs(plain.make_agent())


def test_pearl_acts_a_whole_episode_by_the_prior_or_the_posterior():
    config = Config(env=FAMILY, agent=AGENTS["pearl"], sampling=SAMPLING, threads=1)
    agent = config.make_agent()
    first, second, _ = play(config, agent)
    found = beliefs(agent, first)
    assert (found.mean == 0).all()
    assert (found.std == 1).all()
    found = beliefs(agent, second)
    for step in range(6):
        assert np.array_equal(found.mean[:, :, step], second.state.mean)
        assert np.array_equal(found.std[:, :, step], np.sqrt(second.state.variance))


def test_agents_without_a_belief_have_none():
    config = Config(env=FAMILY, sampling={"num_tasks": 2, "num_episodes": 2}, threads=1)
    agent = config.make_agent()
    assert not has_beliefs(agent)
    assert beliefs(agent, play(config, agent)[0]) is None
