"""`agent.update.reward: expected`: returns of mean rewards less those of the best actions."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.agents.recurrent.expected_rewards import with_expected_rewards
from metarl.agents.recurrent.learner import Learner
from metarl.agents.recurrent.trials import join_episodes
from metarl.config import Config
from metarl.core.errors import ConfigError
from metarl.core.rng import Purpose, make_rng
from metarl.core.timer import Timer
from metarl.envs import Bandit, PointNav, TabularMDP
from metarl.rollout.task_sampler import TaskSampler
from tests.agents.playing import play

EXPECTED = {"reward": "expected", "epochs": 1, "minibatches": 1}
AGENTS = {
    "rl2": {"kind": "rl2", "network": {"size": 6}, "update": EXPECTED},
    "varibad": {"kind": "varibad", "encoder": {"size": 6}, "update": EXPECTED},
}
FAMILIES = {
    "bandit": Bandit(horizon=6, num_arms=3),
    "mdp": TabularMDP(horizon=6, num_states=3, num_actions=4),
}


def make(family, agent="rl2", **sampling) -> Config:
    amounts = {"num_tasks": 5, "num_episodes": 2, "adaptation_steps": 1}
    return Config(env=family, agent=AGENTS[agent], sampling={**amounts, **sampling}, threads=1)


def test_by_hand():
    tasks, arms = np.array([[0.2, 0.8, 0.5], [0.9, 0.1, 0.4]]), np.array([[0, 1, 2], [2, 0, 1]])
    found = Bandit(num_arms=3).expected_reward(tasks, np.zeros((2, 3, 1)), arms[..., None])
    np.testing.assert_allclose(found, [[-0.6, 0.0, -0.3], [-0.5, 0.0, -0.8]])
    # Of two states and two actions; the best rewards are 2 and 4, 3 in the mean
    task = np.array([1.0, 2.0, 3.0, 4.0, *np.tile([0.5, 0.5], 4)])
    states, actions = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    mdp = TabularMDP(num_states=2, num_actions=2)
    found = mdp.expected_reward(task[None], np.eye(2)[states][None], actions[None, :, None])
    np.testing.assert_allclose(found, [[-2.0, -1.0, 0.0, 1.0]])


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_rewards_differ_from_it_by_noise_and_a_number_of_the_task(family):
    """In 20,000 first steps of each action, within five standard errors."""
    task, count = family.tasks("test", 1), 20_000
    differences = []
    for action in range(family.action_space.n):
        env = family.make_batch(count)
        obs = env.reset(task.repeat(count, 0), [np.random.default_rng(i) for i in range(count)])
        chosen = np.full((count, 1), float(action))
        reward = env.step(chosen)[1]
        found = family.expected_reward(task, obs[None, :1], chosen[None, :1])
        differences.append(reward.mean() - found.item())
    assert np.ptp(differences) < 5 * np.sqrt(2 / count)


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_returns_are_made_of_it_and_the_agent_sees_observed_rewards(family, agent, monkeypatch):
    config = make(family, agent)
    learner, given = config.make_agent(), []
    rollouts = play(config, learner)
    played = join_episodes([episodes for _, episodes in rollouts])
    inputs, _ = learner._ppo_inputs(played)
    batch = Learner.batch

    def recorded(self, params, trials, inputs, *others):
        given.append((trials.reward, inputs))
        return batch(self, params, trials, inputs, *others)

    monkeypatch.setattr(Learner, "batch", recorded)
    if agent == "varibad":
        learner.record(1, [episodes for _, episodes in rollouts])
    metrics = learner.update(rollouts, np.random.default_rng(0), Timer())
    ((reward, seen),) = given
    expected = family.expected_reward(played.task, played.obs, played.action)
    np.testing.assert_array_equal(reward, expected)
    np.testing.assert_array_equal(seen, inputs)
    assert not np.allclose(reward, played.reward)
    assert all(np.isfinite(value) for value in metrics.values())


def test_in_sequences_of_tasks_rewards_are_those_of_the_task_that_is_played(monkeypatch):
    family = FAMILIES["bandit"]
    config = make(family, sequence=2)
    learner, given, batch = config.make_agent(), [], Learner.batch
    rng = make_rng(0, Purpose.UPDATE)
    tasks, _ = TaskSampler(config.sampling, family).sample(rng)
    rollouts = play(config, learner, tasks, phases=config.sampling.phases)

    def recorded(self, params, trials, *others):
        given.append(trials.reward)
        return batch(self, params, trials, *others)

    monkeypatch.setattr(Learner, "batch", recorded)
    learner.update(rollouts, rng, Timer())
    expected = []
    for _, episodes in rollouts:
        played = join_episodes([episodes])
        expected.append(family.expected_reward(played.task, played.obs, played.action))
    assert len({tuple(episodes.tasks[0]) for _, episodes in rollouts}) == 2
    np.testing.assert_array_equal(given[0], np.concatenate(expected, axis=1))


def test_episodes_that_end_early_are_refused():
    """There the number of the task that is subtracted at each step would reward the end."""
    family = FAMILIES["bandit"]
    config = make(family)
    episodes = [episodes for _, episodes in play(config, config.make_agent())]
    episodes[1].mask[2, 0, 4:] = False
    words = "agent.update.reward: expected observed in a task family whose episodes may end early"
    with pytest.raises(ConfigError, match=rf"^{words} \(here after 4 to 6 steps\), got expected$"):
        with_expected_rewards(episodes, family.expected_reward)
    episodes[1].mask[2, 0] = False  # an episode that was left out
    found = with_expected_rewards(episodes, family.expected_reward)
    assert not found[1].reward[2, 0].any()
    assert found[1].reward[2, 1].any()


@pytest.mark.parametrize("agent", AGENTS)
def test_normalised_observations_do_not_tell_it(agent):
    settings = {**AGENTS[agent], "running_observations": False, "normalize_observations": True}
    words = "agent.update.reward: expected observed with normalize_observations"
    with pytest.raises(ConfigError, match=words):
        Config(env=FAMILIES["mdp"], agent=settings)


def test_what_does_not_tell_it_is_refused():
    """A family without it, and actions that do not take effect at once."""
    delayed = {"nuisances": {"action_delay": [0, 2]}}
    for family, sampling, reason in (
        (PointNav(), {}, "family point_nav"),
        (FAMILIES["bandit"], delayed, "sampling.nuisances"),
    ):
        words = (
            f"agent.update.reward: expected observed with {reason}, which does not tell expected"
        )
        with pytest.raises(ConfigError, match=words):
            make(family, **sampling)
