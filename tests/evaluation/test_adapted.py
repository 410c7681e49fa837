"""`adapt_to`: agents of all kinds adapt to an environment of the user's, and are used in it."""

from __future__ import annotations

import copy
import pickle
import re
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation, RescaleAction

import metarl
from metarl.core.errors import UserError
from metarl.core.timer import Timer
from metarl.evaluation.live_env import ActionUnits, LiveEnv
from metarl.rollout.collect import collect
from metarl.rollout.failures import EpisodeDiverged
from tests.evaluation.tiny_runs import KINDS, TASK, episode, make_env, train_tiny

OPTION = {"running_observations": False, "normalize_observations": True}
NORMALIZED = {"agent": {**KINDS["rl2"]["agent"], **OPTION}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind, one iteration old."""
    return train_tiny({**KINDS, "normalized": NORMALIZED}, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("kind", [*KINDS, "normalized"])
def test_it_acts_as_in_an_evaluation(runs, kind):
    """Step by step, the deterministic actions of `collect` from the adapted state."""
    run = runs[kind]
    env = make_env(run)
    adapted = metarl.load(run.directory).adapt_to(env, episodes=3, adaptations=2)
    assert len(adapted.returns) == 6
    family = run.config.env
    batch, rngs = family.make_batch(1), [np.random.default_rng(np.random.PCG64(0))]
    actor = adapted.agent.actor(adapted.state, deterministic=True)
    played = collect(batch, actor, np.array([env.task]), rngs, Timer())
    obs, action, reward = episode(adapted, env)
    np.testing.assert_allclose(obs, played.obs[0, 0], atol=1e-6)
    np.testing.assert_allclose(reward, played.reward[0, 0], atol=1e-6)
    np.testing.assert_allclose(action.reshape(len(reward), -1), played.action[0, 0], atol=1e-6)
    if kind == "gridworld":
        assert action.dtype == np.int64


def test_it_adapts_by_the_episodes_of_the_environment(runs):
    """Those of MAML at once, in an environment that has three of them at a time."""
    run = runs["maml"]
    one = metarl.load(run.directory).adapt_to(make_env(run), episodes=5)
    assert re.fullmatch(
        r"<AdaptedAgent of \S+ on point_nav, after 5 episodes of mean return -\d.*>", repr(one)
    )
    several = SyncVectorEnv([lambda: make_env(run)] * 3)
    other = metarl.load(run.directory).adapt_to(several, episodes=5)
    assert len(other.returns) == len(one.returns) == 5
    # The same random numbers, so the same episodes
    np.testing.assert_allclose(one.returns, other.returns, rtol=1e-6)
    obs = np.ones((3, 2))
    actions = [each.predict(obs, deterministic=True)[0] for each in (one, other)]
    np.testing.assert_allclose(*actions, atol=1e-5)
    fresh = metarl.load(run.directory).adapt_to(make_env(run), adaptations=0)
    assert fresh.returns == []
    assert not np.allclose(fresh.predict(obs, deterministic=True)[0], actions[0], atol=1e-4)


def test_the_horizon_is_not_a_truncation(runs):
    """The time limit of the environment is the horizon of training, where the value is 0."""
    run = runs["maml"]
    env, family, agent = make_env(run), run.config.env, run.config.make_agent()
    actor, rngs = agent.actor(agent.initial_state(1)), [np.random.default_rng(0)]
    for limit, bootstrap in ((env, False), (gymnasium.wrappers.TimeLimit(env, 4), True)):
        played = collect(LiveEnv(limit, family), actor, np.array([TASK]), rngs, Timer())
        assert played.bootstrap.tolist() == [[bootstrap]]


class Ends(gymnasium.Wrapper):
    """Cuts episodes off after 3 to 5 steps, by their seed."""

    def reset(self, **settings):
        self.left = 3 + int(settings.get("seed") or 0) % 3
        return self.env.reset(**settings)

    def step(self, action):
        self.left -= 1
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated or self.left == 0, info


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_vector_environment_may_reset_as_it_likes(runs, mode):
    """The last observation of an episode is its own, also where the next one has begun."""
    family, agent = runs["maml"].config.env, runs["maml"].config.make_agent()
    several = SyncVectorEnv([lambda: Ends(make_env(runs["maml"]))] * 3, autoreset_mode=mode)
    actor = agent.actor(agent.initial_state(1))

    def play(env, *seeds):
        rngs = [np.random.default_rng(seed) for seed in seeds]
        return collect(LiveEnv(env, family), actor, np.array([TASK]), rngs, Timer())

    together = play(several, 0, 1, 2)
    alone = [play(Ends(make_env(runs["maml"])), seed) for seed in range(3)]
    assert len({each.mask.sum() for each in alone}) > 1
    for row, each in enumerate(alone):
        assert each.bootstrap.all()
        np.testing.assert_allclose(together.last_obs[0, row], each.last_obs[0, 0], atol=1e-6)
        np.testing.assert_allclose(together.reward[0, row], each.reward[0, 0], atol=1e-6)


def test_a_seed_repeats_everything(runs):
    run, env = runs["pearl"], make_env(runs["pearl"])
    found = []
    for seed in (3, 3, 4):
        adapted = metarl.load(run.directory).adapt_to(env, episodes=2, seed=seed)
        found.append([*adapted.returns, *episode(adapted, env, deterministic=False)[1].ravel()])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("kind", ["maml", "rl2", "varibad", "pearl"])
def test_actions_have_the_units_of_the_environment(runs, kind):
    """The policy's range is 2; in an environment with that of 1 actions are halved."""
    run = runs[kind]
    plain, scaled = make_env(run), RescaleAction(make_env(run), np.float32(-1), np.float32(1))
    adapted = [metarl.load(run.directory).adapt_to(env, episodes=1) for env in (plain, scaled)]
    np.testing.assert_allclose(adapted[0].returns, adapted[1].returns, rtol=1e-5)
    (_, whole, reward), (_, half, same) = (
        episode(each, env) for each, env in zip(adapted, (plain, scaled), strict=True)
    )
    np.testing.assert_allclose(np.clip(whole, -2, 2) / 2, half, atol=1e-5)
    np.testing.assert_allclose(reward, same, rtol=1e-5)


def test_units_by_hand():
    policy = Box(-2, 2, (2,), np.float32)
    units = ActionUnits(policy, Box(np.float32([0, -1]), np.float32([10, 1])))
    actions = np.float32([[-2, 2], [1, 0], [9, -9]])
    assert units.to_env(actions).tolist() == [[0, 1], [7.5, 0], [10, -1]]
    assert ActionUnits(policy, policy).to_env(actions).tolist() == [[-2, 2], [1, 0], [2, -2]]
    half = Box(np.float32([-np.inf, -1]), np.float32([np.inf, np.inf]))  # the same in both
    assert ActionUnits(half, half).to_env(actions).tolist() == [[-2, 2], [1, 0], [9, -1]]
    odd = Box(np.float32([-0.1, -0.7]), np.float32([0.3, 0.1]))  # -0.1 + 0.4 is above 0.3
    assert all(odd.contains(each) for each in ActionUnits(policy, odd).to_env(actions))
    whole = ActionUnits(policy, Box(0, 10, (2,), np.int32)).to_env(np.float32([[-0.1, 1.96]]))
    assert (whole.tolist(), whole.dtype) == ([[5, 10]], np.int32)  # 4.75 and 9.9
    indices = ActionUnits(Discrete(3), Discrete(3, start=5)).to_env(np.float32([[0], [2]]))
    assert indices.tolist() == [5, 7]
    for policy_space, env_space in (
        (policy, Box(-np.inf, np.inf, (2,))),
        (policy, Box(-2, 2, (3,))),
        (policy, Discrete(2)),
        (Discrete(3), Discrete(4)),
        (Discrete(3), policy),
    ):
        with pytest.raises(UserError, match="env: expected actions of"):
            ActionUnits(policy_space, env_space)


@pytest.mark.parametrize("kind", ["rl2", "varibad", "pearl", "normalized"])
def test_a_state_of_an_episode_stays_as_it_is(runs, kind):
    """So that a call can be repeated; and it matters."""
    adapted = metarl.load(runs[kind].directory).adapt_to(make_env(runs[kind]), episodes=1)
    obs, settings = np.array([0.1, 0.2]), {"deterministic": True, "reward": -1.0}
    begun, first = adapted.predict(obs, deterministic=True)
    one, second = adapted.predict(obs, first, **settings)
    assert np.array_equal(adapted.predict(obs, first, **settings)[0], one)
    if kind != "pearl":  # whose latent is one and the same in an episode
        assert not np.array_equal(adapted.predict(obs, second, **settings)[0], one)
    anew, _ = adapted.predict(obs, second, episode_start=np.array([True]), deterministic=True)
    assert np.array_equal(anew, begun)


def test_pearl_keeps_its_guess_of_the_task_within_an_episode(runs):
    adapted = metarl.load(runs["pearl"].directory).adapt_to(make_env(runs["pearl"]), episodes=1)
    obs = np.zeros(2)
    _, state = adapted.predict(obs)
    _, later = adapted.predict(obs, state)
    _, other = adapted.predict(obs)
    assert np.array_equal(state.actor.z, later.actor.z)
    assert not np.array_equal(state.actor.z, other.actor.z)


@pytest.mark.parametrize("kind", ["maml", "rl2", "pearl"])
def test_what_changes_within_an_episode_is_refused(runs, kind):
    """It would be ignored: the number of environments, and whether the agent explores."""
    adapted = metarl.load(runs[kind].directory).adapt_to(make_env(runs[kind]), episodes=1)
    obs = np.zeros((2, 2))
    _, state = adapted.predict(obs)
    with pytest.raises(UserError, match=r"^observation: expected as many as before, 2, got 1$"):
        adapted.predict(obs[:1], state, reward=0.0)
    words = r"^deterministic: expected False, as when the episode began, got True$"
    with pytest.raises(UserError, match=words):
        adapted.predict(obs, state, deterministic=True, reward=0.0)
    anew, _ = adapted.predict(obs, state, episode_start=True, deterministic=True)
    assert np.array_equal(anew, adapted.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("start", [False, np.array([False, True])])
def test_without_a_state_episodes_begin_whatever_their_start_says(runs, start):
    adapted = metarl.load(runs["rl2"].directory).adapt_to(make_env(runs["rl2"]), episodes=1)
    begun, _ = adapted.predict(np.ones((2, 2)), deterministic=True)
    action, _ = adapted.predict(np.ones((2, 2)), episode_start=start, deterministic=True)
    assert np.array_equal(action, begun)


def test_several_environments_act_as_each_of_them(runs):
    adapted = metarl.load(runs["rl2"].directory).adapt_to(make_env(runs["rl2"]), episodes=2)
    obs, reward = np.random.default_rng(0).normal(size=(3, 2)), np.array([0.1, 0.2, 0.3])
    _, state = adapted.predict(obs, deterministic=True)
    actions, _ = adapted.predict(obs, state, deterministic=True, reward=reward)
    for row in range(3):
        _, own = adapted.predict(obs[row], deterministic=True)
        action, _ = adapted.predict(obs[row], own, deterministic=True, reward=reward[row])
        np.testing.assert_allclose(action, actions[row], atol=1e-6)


def test_a_vector_of_one_environment_gets_a_vector_of_actions(runs):
    """An observation that is (1, obs_dim) by itself is one, and not a vector."""
    run, several = runs["maml"], SyncVectorEnv([lambda: make_env(runs["maml"])])
    agent, obs = metarl.load(run.directory), np.ones((1, 2))
    adapted = agent.adapt_to(several, episodes=1)
    assert adapted.predict(obs)[0].shape == several.action_space.shape == (1, 2)
    assert adapted.predict(obs[0])[0].shape == (2,)
    framed = agent.adapt_to(FrameStackObservation(make_env(run), 1), episodes=1)
    assert framed.predict(obs)[0].shape == (2,)
    assert framed.predict(obs[None])[0].shape == (1, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_copied_and_pickled(runs, kind):
    env = make_env(runs[kind])
    adapted = metarl.load(runs[kind].directory, threads=2).adapt_to(env, episodes=1)
    obs, _ = env.reset(seed=0)
    others = copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))  # noqa: S301
    action, _ = adapted.predict(obs)
    assert all(np.array_equal(other.predict(obs)[0], action) for other in others)


def test_an_environment_need_not_be_of_gymnasiums_class(runs):
    env = make_env(runs["maml"])
    names = ("reset", "step", "observation_space", "action_space", "metadata")
    plain = SimpleNamespace(**{name: getattr(env, name) for name in names})
    agent = metarl.load(runs["maml"].directory)
    assert agent.adapt_to(plain, episodes=2).returns == agent.adapt_to(env, episodes=2).returns


class FailsInTheThird(gymnasium.Wrapper):
    """Has no reward at step 3 of the third episode, where both are counted from 0 and 1."""

    def __init__(self, env):
        super().__init__(env)
        self.episodes = 0

    def reset(self, **settings):
        self.episodes, self.steps = self.episodes + 1, 0
        return self.env.reset(**settings)

    def step(self, action):
        obs, reward, *ends = self.env.step(action)
        self.steps += 1
        return obs, np.nan if (self.episodes, self.steps) == (3, 4) else reward, *ends


def test_what_does_not_fit_is_one_line(runs):
    run, agent = runs["rl2"], metarl.load(runs["rl2"].directory)
    env = make_env(run)
    several = SyncVectorEnv([lambda: make_env(run)] * 2)
    for found, words in (
        (several, "env: expected a single environment, as the episodes of an agent of kind rl2"),
        (gymnasium.make("CartPole-v1"), "env: expected actions of"),
        (gymnasium.make("MountainCarContinuous-v0"), "env: expected actions of"),
        (make_env(runs["gridworld"]), "env: expected actions of"),
    ):
        with pytest.raises(UserError, match=words) as raised:
            agent.adapt_to(found)
        assert "\n" not in str(raised.value)
    unfixed = [lambda: runs["maml"].make_env()] * 2
    for env_of_any_task in (run.make_env(), SyncVectorEnv(unfixed)):
        with pytest.raises(UserError, match="env: draws another task at each reset; expected"):
            metarl.load(runs["maml"].directory).adapt_to(env_of_any_task)
    with pytest.raises(UserError, match="env: expected observations of 2 numbers"):
        agent.adapt_to(FrameStackObservation(env, 2))
    for settings, words in (
        ({"episodes": 0}, "episodes: expected at least 1"),
        ({"adaptations": -1}, "adaptations: expected between 0 and 1000"),
        ({"seed": -1}, "seed: expected"),
        ({"seed": None}, "seed: expected a whole number, got None"),
        ({"episodes": 2.5}, "episodes: expected a whole number, got 2.5"),
        ({"episodes": True}, "episodes: expected a whole number, got True"),
        ({"adaptations": "2"}, "adaptations: expected a whole number, got '2'"),
        ({"episodes": 10**12}, "episodes: .* at most 1,000,000,000 steps together, got 6e\\+12"),
    ):
        with pytest.raises(UserError, match=words):
            agent.adapt_to(env, **settings)
    with pytest.raises(EpisodeDiverged, match=r"^episode 2, step 3: .* is not finite$"):
        agent.adapt_to(FailsInTheThird(env), episodes=4)
    adapted = agent.adapt_to(env, episodes=1)
    for shape in ((3,), (4,), (2, 1), (4, 1), (1, 4), (2, 2, 1), (1, 2, 2), (0, 2)):
        with pytest.raises(UserError, match=r"observation: expected the shape \(2,\), or with an"):
            adapted.predict(np.zeros(shape))
    for bad in (np.nan, np.inf):
        with pytest.raises(UserError, match="observation: expected finite numbers") as raised:
            adapted.predict(np.array([[0.0, 0.0], [bad, 0.0]]))
        assert "\n" not in str(raised.value)
    for bad in ({}, "a", ["a", "b"]):
        with pytest.raises(UserError, match="observation: expected numbers, got"):
            adapted.predict(bad)
    _, state = adapted.predict(np.zeros((2, 2)))
    with pytest.raises(UserError, match="reward: expected numbers, got 'a'"):
        adapted.predict(np.zeros((2, 2)), state, reward="a")
    with pytest.raises(UserError, match="state: expected what the last call of predict returned"):
        adapted.predict(np.zeros(2), 3)
    for wrong in (np.nan, np.zeros(3)):
        with pytest.raises(UserError, match="reward: expected one finite number or 2"):
            adapted.predict(np.zeros((2, 2)), state, reward=wrong)
    column, row = (adapted.predict(np.zeros((2, 2)), state, reward=r) for r in ([[0], [1]], [0, 1]))
    assert column[0].shape == row[0].shape == (2, 2)
    with pytest.raises(UserError, match="reward: expected the reward of the last step"):
        adapted.predict(np.zeros((2, 2)), state)
    with pytest.raises(UserError, match="observation: expected as many as before, 2, got 3"):
        adapted.predict(np.zeros((3, 2)), state, reward=0.0)
    with pytest.raises(UserError, match="episode_start: expected all or none"):
        adapted.predict(np.zeros((2, 2)), state, np.array([True, False]), reward=0.0)


def test_the_interface_is_there_for_completion():
    assert {"load", "Run", "train", "load_config"} <= set(dir(metarl))
