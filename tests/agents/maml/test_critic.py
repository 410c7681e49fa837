"""metarl.agents.maml.critic: values that are learned over meta-batches, for all tasks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import metarl
from metarl.agents.maml.batch import ReturnConfig, linear_values
from metarl.agents.maml.critic import Critic, CriticConfig, inputs
from metarl.core.errors import ConfigError
from metarl.rollout.episodes import Episodes
from metarl.rollout.failures import NotFinite
from metarl.training.loop import resume, train
from tests.training.test_loop import assert_same_outcome, killed_after_first_iteration, tiny

CPU = torch.device("cpu")
DISCOUNTING = ReturnConfig(discount=0.9, gae_lambda=0.8)
OPTIONS = {
    "agent.critic.epochs": 2,
    "agent.critic.hidden": (8,),
    "agent.critic.minibatch": 16,
    "agent.running_observations": True,
    "agent.outer": {"update": "ppo", "minibatches": 2, "epochs": 2},
}


def episodes(seed: int = 0, *, truncated: bool = False, whole: bool = False) -> Episodes:
    """Four episodes of ten steps on each of three tasks, some of which end early if not `whole`: a
    reward of the task's number at each step, whatever is observed and done."""
    rng = np.random.default_rng(seed)
    tasks = np.array([[-1.0], [0.5], [2.0]])
    length = rng.integers(10 if whole else 6, 11, (3, 4))
    mask = np.arange(10) < length[..., None]
    obs = rng.standard_normal((3, 4, 10, 2)).astype(np.float32) * mask[..., None]
    return Episodes(
        obs=obs,
        action=np.zeros((3, 4, 10, 1), np.float32),
        reward=(tasks[:, :, None] * mask).astype(np.float32),
        mask=mask,
        last_obs=rng.standard_normal((3, 4, 2)).astype(np.float32),
        terminated=np.full((3, 4), not truncated),
        bootstrap=np.full((3, 4), truncated),
        tasks=tasks,
    )


def make(**settings) -> Critic:
    config = CriticConfig(**{"epochs": 4, "hidden": (16,), **settings})
    return Critic(config, DISCOUNTING, 2, 1, np.random.default_rng(0), CPU)


def test_before_it_has_learned_its_values_are_those_of_the_linear_baseline():
    critic, played = make(), episodes()
    expected = linear_values(played, DISCOUNTING, CPU)
    assert all(map(torch.equal, critic.values(played), expected))
    critic.fit([played], np.random.default_rng(0))
    assert not torch.equal(critic.values(played)[0], expected[0])


def test_it_sees_observation_task_and_time():
    played = episodes()
    steps, last = inputs(played)
    assert steps.shape == (3, 4, 10, 4)
    assert last.shape == (3, 4, 4)
    assert np.array_equal(steps[..., :2], played.obs)
    assert (steps[..., 2] == played.tasks[:, :, None]).all()
    assert np.array_equal(steps[1, 2, :, 3], np.arange(10, dtype=np.float32) / 10)
    assert np.array_equal(last[..., :2], played.last_obs)
    timeless, _ = inputs(episodes(truncated=True))
    assert not timeless[..., 3].any()


def test_the_targets_are_lambda_returns_worked_by_hand():
    """Of one episode of three steps with rewards 1, 2, 3, whose last state has a value."""
    critic = make()
    played = replace(
        episodes(),
        reward=np.float32([[[1, 2, 3]]]),
        mask=np.full((1, 1, 3), True),
        bootstrap=np.full((1, 1), True),
    )
    values, last = torch.tensor([[[5.0, 6.0, 7.0]]]).double(), torch.tensor([[8.0]]).double()
    critic.values = lambda _: (values, last)
    third = 3 + 0.9 * 8
    second = 2 + 0.9 * (0.2 * 7 + 0.8 * third)
    first = 1 + 0.9 * (0.2 * 6 + 0.8 * second)
    np.testing.assert_allclose(critic._targets(played), [[[first, second, third]]], rtol=1e-12)


def test_it_learns_the_value_of_a_policy_in_each_task():
    """That of a reward r at every step: r (1 - 0.9^n) / (1 - 0.9) with n steps left. The tasks of
    one episode have other values at the same observations and times."""
    critic, rng = make(lr=0.01, hidden=(32,)), np.random.default_rng(1)
    for seed in range(100):
        critic.fit([episodes(seed, whole=True)], rng)
    played = episodes(100, whole=True)
    left = (1 - 0.9 ** np.arange(10, 0, -1)) / 0.1
    exact = np.broadcast_to(played.tasks[:, :, None] * left, (3, 4, 10))
    found = critic.values(played)[0].numpy()
    assert np.sqrt(np.mean((found - exact) ** 2)) < 0.05 * exact.std()


def test_values_are_0_where_nothing_was_played_and_continued_where_truncated():
    critic = make()
    critic.fit([episodes(truncated=True)], np.random.default_rng(0))
    played = episodes(1, truncated=True)
    values, last = critic.values(played)
    assert values.dtype == last.dtype == torch.float64
    assert not values[~torch.from_numpy(played.mask)].any()
    assert last.all()
    ended = replace(played, bootstrap=np.zeros((3, 4), bool))
    assert not critic.values(ended)[1].any()


def test_a_loaded_state_learns_and_values_alike():
    critic, other = make(), make()
    critic.fit([episodes(), episodes(1)], np.random.default_rng(0))
    other.load_state_dict(critic.state_dict())
    for each in (critic, other):
        each.fit([episodes(2)], np.random.default_rng(3))
    assert all(map(torch.equal, critic.values(episodes(4)), other.values(episodes(4))))


def test_a_step_that_fails_changes_nothing():
    critic = make()
    critic.fit([episodes()], np.random.default_rng(0))
    before = critic.state_dict()
    broken = episodes(1)
    broken.reward[0, 0, 0] = np.inf
    with pytest.raises(NotFinite, match="the gradient of the critic"), np.errstate(all="ignore"):
        critic.fit([broken], np.random.default_rng(0))
    after = critic.state_dict()
    assert all(torch.equal(torch.as_tensor(after[name]), before[name]) for name in before)


def test_a_run_with_it_is_the_same_on_two_threads_and_after_an_interruption(tmp_path):
    run = train(tiny(iterations=2, checkpoint_every=1, **OPTIONS), tmp_path / "one")
    two = train(run.config.replace(threads=2), tmp_path / "two")
    assert_same_outcome(two.directory, run.directory)
    killed_after_first_iteration(run.directory, tmp_path / "killed")
    resume(tmp_path / "killed")
    assert_same_outcome(tmp_path / "killed", run.directory)
    first, second = (run.load(name).agent for name in ("1", "2"))
    for name in ("critic.params.weight0", "critic.adam.exp_avg", "observations.mean"):
        assert not torch.equal(first[name], second[name])
    assert first["critic.returns.count"] * 2 == second["critic.returns.count"]
    result = metarl.evaluate(metarl.load(run.directory), run.config.env, tasks=2, episodes=2)
    assert np.isfinite(result.returns).all()


def test_it_is_no_parameter_of_the_policy():
    """An average of checkpoints, and a warm start, do not take it."""
    config = tiny(**OPTIONS)
    names = [name for name in config.make_agent().state_dict() if name.startswith("critic.")]
    assert names
    assert not any(map(config.agent.may_average, names))
    assert not any(map(config.agent.may_transfer, names))


def test_sequences_of_tasks_teach_it_too(tmp_path):
    options = {**OPTIONS, "sampling.sequence": 2}
    run = train(tiny(iterations=1, **options), tmp_path / "run")
    sampling = run.config.sampling
    steps = run.load().agent["critic.returns.count"]
    # Both tasks after the adaptation to them, and the first one again after that to the second
    assert 0 < steps <= 3 * sampling.num_tasks * sampling.num_episodes * run.config.env.horizon
    assert steps > 2 * sampling.num_tasks * sampling.num_episodes


def test_reptile_has_no_use_for_it():
    with pytest.raises(ConfigError, match=r"critic\.epochs: 1 makes no sense here: outer\.update"):
        tiny("point_nav/reptile", **{"agent.critic.epochs": 1})


def test_it_has_no_more_weights_than_an_agent_may_have():
    options = {"agent.critic.epochs": 1, "agent.critic.hidden": [4096, 4096]}
    with pytest.raises(ConfigError, match=r"agent\.critic\.hidden: expected layers of at most 10"):
        tiny(**options).make_agent()
