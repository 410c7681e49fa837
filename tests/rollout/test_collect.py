"""metarl.rollout.collect: the closed loop of agents and environments."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from metarl.core.errors import UserError
from metarl.core.params import stack
from metarl.core.policies import GaussianMLP, PolicyConfig
from metarl.core.returns import advantages
from metarl.core.rng import Purpose, make_rng
from metarl.envs import HalfCheetahVel, Perturbed, PointNav, TaskObserved
from metarl.envs.mujoco.family import MujocoBatchEnv
from metarl.envs.point import PointBatchEnv
from metarl.rollout.collect import EpisodeDiverged, collect, episode_rngs
from metarl.rollout.episodes import Episodes

POINT = PointNav(horizon=8, action_scale=1.0)
CHEETAH = HalfCheetahVel(horizon=6)
FAR = np.array([[0.4, 0.3], [-0.45, 0.2], [0.3, -0.5]])


@dataclass
class GoRight:
    """An actor that goes right by a fixed share of the largest step."""

    share: float = 1.0

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return np.zeros((horizon, 1), np.float32)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        return np.broadcast_to(np.float32([self.share, 0.0]), obs.shape)


class EndlessPoint(PointNav):
    """Time only cuts it short."""

    finite_horizon = False


@pytest.fixture
def run(timer):
    """Plays two episodes per task by a random Gaussian policy, or by the given actor."""

    def run(family, tasks, actor=None, env=None, num_episodes=2, num_threads=1, **options):
        if actor is None:
            obs_dim, action_dim = family.observation_space.shape[0], family.action_space.shape[0]
            policy = GaussianMLP(PolicyConfig(hidden=(8,)), obs_dim, action_dim)
            actor = policy.actor(stack(policy.init(np.random.default_rng(0)), len(tasks)))
        env = env or family.make_batch(len(tasks) * num_episodes, num_threads)
        rngs = episode_rngs(0, Purpose.TRAIN_EPISODES, len(tasks), num_episodes)
        return collect(env, actor, tasks, rngs, timer, **options)

    return run


def assert_same(one: Episodes, other: Episodes) -> None:
    """All arrays are the same bit for bit."""
    for name, array in vars(one).items():
        assert np.array_equal(array, vars(other)[name]), name


@pytest.mark.parametrize(("family", "tasks"), [(POINT, FAR), (CHEETAH, FAR[:, :1])])
def test_shapes_and_types(run, family, tasks):
    episodes = run(family, tasks)
    obs_dim, action_dim = family.observation_space.shape[0], family.action_space.shape[0]
    expected = {
        "obs": ((3, 2, family.horizon, obs_dim), np.float32),
        "action": ((3, 2, family.horizon, action_dim), np.float32),
        "reward": ((3, 2, family.horizon), np.float32),
        "mask": ((3, 2, family.horizon), bool),
        "last_obs": ((3, 2, obs_dim), np.float32),
        "terminated": ((3, 2), bool),
        "bootstrap": ((3, 2), bool),
        "tasks": (tasks.shape, np.float64),
    }
    arrays = {name: array for name, array in vars(episodes).items() if array is not None}
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == expected
    assert episodes.success is None
    assert episodes.mask.all()
    assert episodes.num_steps == 6 * family.horizon
    assert episodes.returns.shape == (3, 2)


def test_the_loop_by_hand(run):
    """Steps of 0.1 to a goal at 0.3: observations before, rewards after each action."""
    episodes = run(POINT, np.array([[0.3, 0.0], [0.0, 0.4]]), GoRight())
    path = np.float32([0.0, 0.1, 0.1 + 0.1])
    assert np.array_equal(episodes.obs[0, 0, :, 0], [*path, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(episodes.reward[0, 0], [-0.2, -0.1, 0, 0, 0, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(episodes.last_obs[0, 0], [0.3, 0.0], atol=1e-7)
    assert np.array_equal(episodes.mask.sum(2), [[3, 3], [8, 8]])
    assert np.array_equal(episodes.terminated, [[True, True], [False, False]])
    np.testing.assert_allclose(episodes.returns[0], -0.3, atol=1e-6)
    np.testing.assert_allclose(episodes.last_obs[1, 0], [0.8, 0.0], atol=1e-6)
    assert episodes.num_steps == 22


def test_nothing_is_stored_after_the_end(run):
    """Neither a reset's observation, nor the actions that are chosen in vain."""
    episodes = run(POINT, np.array([[0.2, 0.0], [0.4, 0.4]]), GoRight())
    ended = ~episodes.mask
    assert ended.sum() == 2 * 6
    for array in (episodes.obs, episodes.action, episodes.reward):
        assert not array[ended].any()
    np.testing.assert_allclose(episodes.last_obs[0], [[0.2, 0.0]] * 2, atol=1e-7)


def test_an_early_end_does_not_change_the_others(run):
    """Put task 1's goal where its first episode will be after three steps: that episode ends, all
    others go on bit for bit as before."""
    before = run(POINT, FAR)
    tasks = FAR.copy()
    tasks[1] = before.obs[1, 0, 3]
    after = run(POINT, tasks)
    assert after.terminated.tolist() == [[False, False], [True, False], [False, False]]
    assert after.mask[1, 0].sum() == 3
    assert np.array_equal(after.obs[1, 0, :3], before.obs[1, 0, :3])
    assert np.array_equal(after.obs[1, 1], before.obs[1, 1])
    assert np.array_equal(after.action[1, 1], before.action[1, 1])
    for task in (0, 2):
        assert_same(after.rows(task, task + 1), before.rows(task, task + 1))


@pytest.mark.parametrize(("family", "tasks"), [(POINT, FAR), (CHEETAH, np.abs(FAR[:, :1]))])
def test_a_task_does_not_depend_on_its_neighbours_in_the_batch(run, family, tasks):
    """Task 0 alone, and among others: the same bits."""
    assert_same(run(family, tasks).rows(0, 1), run(family, tasks[:1]))


def test_threads_do_not_change_a_bit(run):
    one, two = (run(CHEETAH, np.abs(FAR[:, :1]), num_threads=threads) for threads in (1, 2))
    assert_same(one, two)


def test_the_environment_may_be_used_again(run):
    """Nothing is left of the first episodes in the second, also after early ends."""
    env = POINT.make_batch(6)
    near = np.tile([[0.05, 0.0]], (3, 1))
    run(POINT, near, GoRight(share=0.5), env=env)
    assert_same(run(POINT, FAR, env=env), run(POINT, FAR))


def test_collecting_stops_when_all_episodes_have_ended(run):
    looks = []
    episodes = run(POINT, np.array([[0.2, 0.0]]), GoRight(), on_step=lambda env: looks.append(1))
    assert episodes.terminated.all()
    assert len(looks) == 3  # the beginning and two steps


def test_on_step_sees_the_beginning_and_every_step(run):
    """T + 1 looks at the environment, in the states that the observations tell of."""
    states = []
    episodes = run(POINT, FAR, on_step=lambda env: states.append(env.render_state(0)))
    assert len(states) == POINT.horizon + 1
    assert np.array_equal(np.float32(states[:-1]), episodes.obs[0, 0])
    assert np.array_equal(np.float32(states[-1]), episodes.last_obs[0, 0])


@dataclass
class Recording(GoRight):
    """Keeps the arguments of each step."""

    seen: list[tuple[np.ndarray, ...]] = field(default_factory=list)

    def act(
        self, obs: np.ndarray, noise: np.ndarray, last_reward: np.ndarray, active: np.ndarray
    ) -> np.ndarray:
        self.seen.append((obs.copy(), last_reward.copy(), active.copy()))
        return super().act(obs, noise, last_reward, active)


def test_an_actor_gets_the_last_reward_and_the_active_episodes(run):
    """Task 0 ends after three steps of 0.1, task 1 after eight, the horizon."""
    actor = Recording()
    episodes = run(POINT, np.array([[0.3, 0.0], [0.0, 0.4]]), actor)
    assert len(actor.seen) == 8
    for step, (obs, last_reward, active) in enumerate(actor.seen):
        assert last_reward.dtype == np.float32
        assert active.dtype == bool
        assert np.array_equal(obs, episodes.obs[:, :, step])
        before = episodes.reward[:, :, step - 1] if step else np.zeros((2, 2))
        assert np.array_equal(last_reward, before)
        assert np.array_equal(active, episodes.mask[:, :, step])
        assert active.tolist() == [[step < 3, step < 3], [True, True]]
    np.testing.assert_allclose(actor.seen[2][1][0], -0.1, atol=1e-7)
    assert not actor.seen[4][1][0].any(), "an ended episode has no reward"


def test_an_episode_that_failed_is_not_active_any_more(run):
    """From the step after its failure; neither is one of a task that is not played."""
    actor, failures = Recording(), []
    env = FaultyPoint(POINT, 6, what="reward", episode=3, step=4)
    mask = np.array([True, True, False])
    run(POINT, FAR, actor, env, failures=failures, task_mask=mask)
    assert [(each.task_index, each.episode, each.step) for each in failures] == [(1, 1, 4)]
    for step, (obs, last_reward, active) in enumerate(actor.seen):
        assert active.tolist() == [[True, True], [True, step <= 4], [False, False]]
        assert not obs[~active].any()
        assert np.isfinite(last_reward).all()
        assert not last_reward[2].any()


def test_ids_of_tasks_are_kept(run):
    """With their tasks, whatever part of the episodes is looked at."""
    ids = np.array([5, 0, 7])
    episodes = run(POINT, FAR, task_ids=ids)
    assert np.array_equal(episodes.task_ids, ids)
    assert np.array_equal(episodes.rows(1, 3).task_ids, ids[1:])
    assert np.array_equal(episodes.of_tasks(np.array([0, 2])).task_ids, ids[[0, 2]])
    assert np.array_equal(episodes.first(1).task_ids, ids)
    assert run(POINT, FAR).task_ids is None


def test_generators_of_episodes_are_those_of_their_addresses():
    """Task by task; another step, iteration, purpose or seed has others."""
    address = {"iteration": 3, "adaptation_step": 2}
    rngs = episode_rngs(1, Purpose.TRAIN_EPISODES, 2, 3, **address)
    expected = [
        make_rng(1, Purpose.TRAIN_EPISODES, **address, task=task, episode=episode)
        for task in range(2)
        for episode in range(3)
    ]
    draws = [rng.random() for rng in rngs]
    assert draws == [rng.random() for rng in expected]
    others = [
        episode_rngs(2, Purpose.TRAIN_EPISODES, 2, 3, **address),
        episode_rngs(1, Purpose.EVALUATION_EPISODES, 2, 3, **address),
        episode_rngs(1, Purpose.TRAIN_EPISODES, 2, 3, 3, 1),
        episode_rngs(1, Purpose.TRAIN_EPISODES, 2, 3, 2, 2),
    ]
    assert len({*draws, *(rng.random() for each in others for rng in each)}) == 30


class CutBatch(PointBatchEnv):
    """Points of which the environment truncates some, by number, after some steps."""

    cuts: Mapping[int, int] = {}

    def reset(self, tasks, rngs):
        self.steps_taken = np.zeros(self.num_episodes, int)
        return super().reset(tasks, rngs)

    def step(self, action, ids=None):
        self.steps_taken[slice(None) if ids is None else ids] += 1
        cuts = [self.cuts.get(i, -1) for i in range(self.num_episodes)]
        self.truncated = self.steps_taken == cuts
        return super().step(action, ids)


def test_a_truncation_by_the_environment_is_an_end_that_is_bootstrapped(run):
    """Steps of 0.1 along x. Episodes 0 and 1 of the first task are cut after 2 and 3 steps; of the
    second, whose goal is reached after 3 steps, 2 is cut there and 3 is not."""
    env = CutBatch(POINT, 4, 1)
    env.cuts = {0: 2, 1: 3, 2: 3}
    tasks = np.array([[-0.5, 0.0], [0.3, 0.0]])
    episodes = run(POINT, tasks, GoRight(), env)
    assert episodes.mask.sum(axis=2).tolist() == [[2, 3], [3, 3]]
    assert np.array_equal(episodes.mask, np.arange(8) < [[[2], [3]], [[3], [3]]])
    assert episodes.bootstrap.tolist() == [[True, True], [False, False]], "the goal is an end"
    assert episodes.terminated.tolist() == [[False, False], [True, True]]
    assert episodes.last_obs[..., 0] == pytest.approx(np.array([[0.2, 0.3], [0.3, 0.3]]))
    assert not episodes.obs[~episodes.mask].any()
    # The distances to the goal are 0.6, 0.7 and 0.8; the value of the last state, 10, counts.
    last_values = np.where(episodes.bootstrap, 10.0, 0.0)
    advantage = advantages(
        *(torch.from_numpy(x) for x in (episodes.reward, episodes.mask)),
        torch.zeros(2, 2, 8),
        torch.from_numpy(last_values),
        discount=0.5,
        gae_lambda=1.0,
    )
    assert advantage[0, 0, :3].tolist() == pytest.approx([-0.6 - 0.35 + 2.5, -0.7 + 5.0, 0.0])
    assert advantage[0, 1, 2:4].tolist() == pytest.approx([-0.8 + 5.0, 0.0])
    others = run(POINT, tasks, GoRight())
    for name in ("obs", "action", "reward"):
        ours, theirs = getattr(episodes, name), getattr(others, name)
        assert np.array_equal(ours[episodes.mask], theirs[episodes.mask]), name


def test_a_failed_episode_that_is_truncated_is_left_out(run):
    class Failing(CutBatch):
        def step(self, action, ids=None):
            obs, reward, terminated = super().step(action, ids)
            reward[self.truncated] = np.nan
            return obs, reward, terminated

    env = Failing(POINT, 2, 1)
    env.cuts = {0: 2}
    failures = []
    episodes = run(POINT, np.array([[-0.5, 0.0]]), GoRight(), env, failures=failures)
    assert len(failures) == 1
    assert episodes.mask.sum(axis=2).tolist() == [[0, 8]]
    assert not episodes.bootstrap.any()


@pytest.mark.parametrize("wrapper", [TaskObserved, Perturbed])
def test_a_wrapper_passes_truncations_on(wrapper):
    env = wrapper(POINT).make_batch(1)
    assert env.truncated is None
    env.batch_env.truncated = np.array([True])
    assert env.truncated.tolist() == [True]


@pytest.mark.parametrize(("family", "endless"), [(PointNav, False), (EndlessPoint, True)])
def test_only_a_time_limit_on_an_endless_task_is_bootstrapped(run, family, endless):
    """Not the end of a finite horizon, and never a termination."""
    tasks = np.array([[0.3, 0.0], [0.0, 0.4]])
    episodes = run(family(horizon=5, action_scale=1.0), tasks, GoRight())
    assert episodes.terminated.tolist() == [[True, True], [False, False]]
    assert episodes.bootstrap.tolist() == [[False, False], [endless, endless]]


class FaultyPoint(PointBatchEnv):
    """Gives NaN, as a reward or an observation, for one episode from one step on."""

    def __init__(self, family, num_episodes, *, what: str, episode: int, step: int) -> None:
        super().__init__(family, num_episodes, 1)
        self.fault, self.steps_taken = (what, episode, step), 0

    def step(self, action, ids=None):
        obs, reward, terminated = super().step(action, ids)
        what, episode, step = self.fault
        if self.steps_taken >= step:
            (obs if what == "obs" else reward)[episode] = np.nan
        self.steps_taken += 1
        return obs, reward, terminated


@pytest.mark.parametrize("what", ["obs", "reward"])
def test_a_value_that_is_not_finite_names_task_episode_and_step(run, what):
    """Number 3 of the batch is episode 1 of task 1."""
    env = FaultyPoint(POINT, 6, what=what, episode=3, step=4)
    with pytest.raises(EpisodeDiverged, match=r"task 1 \[-0\.45, 0\.2\], episode 1, step 4"):
        run(POINT, FAR, env=env)


@pytest.mark.parametrize("what", ["obs", "reward"])
def test_rows_of_ended_episodes_mean_nothing(run, what):
    """NaN there is no divergence, and is not stored: the contract of BatchEnv.step."""
    tasks = np.array([[0.2, 0.0], [0.4, 0.4]])
    env = FaultyPoint(POINT, 4, what=what, episode=1, step=5)
    assert_same(run(POINT, tasks, GoRight(), env=env), run(POINT, tasks, GoRight()))


class ExplodingCheetah(MujocoBatchEnv):
    """Real physics that gets a huge joint angle, in one episode at the third step."""

    steps_taken = 0

    def step(self, action, ids=None):
        if self.steps_taken == 2:
            self.batch.bind("qpos")[3, 4] = 1e12
        self.steps_taken += 1
        return super().step(action, ids)


def test_diverging_physics_names_task_episode_and_step(run):
    env = ExplodingCheetah(CHEETAH, 6)
    with pytest.raises(EpisodeDiverged, match=r"task 1 \[0\.45\], episode 1, step 2: MuJoCo"):
        run(CHEETAH, np.abs(FAR[:, :1]), env=env)


def test_rows_of_episodes(run):
    episodes = run(POINT, FAR)
    part = episodes.rows(1, 3)
    assert np.array_equal(part.reward, episodes.reward[1:])
    assert np.array_equal(part.tasks, FAR[1:])
    assert_same(episodes.rows(0, 3), episodes)


def test_first_episodes_of_each_task(run):
    episodes = run(POINT, FAR)
    part = episodes.first(1)
    assert np.array_equal(part.reward, episodes.reward[:, :1])
    assert np.array_equal(part.tasks, FAR)
    assert part.success is None
    assert_same(episodes.first(episodes.reward.shape[1]), episodes)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (0, "its observations have the shape (6, 2, 1), expected (6, 2);"),
        (1, "its rewards have the shape (6, 1), expected (6,);"),
        (2, "its ends of episodes have the shape (6, 1), expected (6,);"),
    ],
)
def test_results_of_a_wrong_shape_are_refused(run, result, expected):
    class Column(PointNav):
        def make_batch(self, num_episodes, num_threads=1):
            return ColumnBatch(self, num_episodes, num_threads)

    class ColumnBatch(PointBatchEnv):
        def step(self, action, ids=None):
            results = [*super().step(action, ids)]
            results[result] = results[result][..., None]
            return tuple(results)

    with pytest.raises(UserError, match=re.escape(expected)):
        run(Column(horizon=5), FAR)


@pytest.mark.parametrize("family", [POINT, TaskObserved(POINT)])
def test_results_that_are_not_three_are_refused(run, monkeypatch, family):
    step = PointBatchEnv.step
    monkeypatch.setattr(PointBatchEnv, "step", lambda *args: (*step(*args), {}))
    expected = "point_nav: its step returns 4, expected (obs, reward, terminated); metarl check-env"
    with pytest.raises(UserError, match=re.escape(expected)):
        run(family, FAR)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({1: list}, "its rewards are list, expected an array of NumPy"),
        ({2: lambda ends: ends.astype(int)}, "its ends of episodes are int64, expected bool"),
        ({"success": lambda _: True}, "its `success` are bool, expected an array of NumPy"),
        ({"success": lambda _: np.zeros(6)}, "its `success` are float64, expected bool"),
        (
            {"truncated": lambda _: np.zeros(3, bool)},
            "its `truncated` have the shape (3,), expected",
        ),
    ],
)
def test_results_of_a_wrong_type_are_refused(run, monkeypatch, changed, expected):
    step = PointBatchEnv.step

    def changed_step(env, *args):
        results = [*step(env, *args)]
        for name, change in changed.items():
            if isinstance(name, str):
                setattr(env, name, change(None))
            else:
                results[name] = change(results[name])
        return tuple(results)

    monkeypatch.setattr(PointBatchEnv, "step", changed_step)
    with pytest.raises(UserError, match="point_nav: " + re.escape(expected)):
        run(POINT, FAR)


@pytest.mark.parametrize("action", [None, np.zeros((3, 2, 1), np.float32), [[0.0, 0.0]]])
def test_actions_of_a_wrong_shape_are_refused(monkeypatch, run, action):
    monkeypatch.setattr(GoRight, "act", lambda *_: action)
    expected = r"agent: act: expected actions of the shape \(3, 2, 2\) on point_nav, got "
    with pytest.raises(UserError, match=expected):
        run(POINT, FAR, GoRight())


def test_first_observations_of_a_wrong_size_are_refused(run):
    class Wider(PointNav):
        observation_space = Box(-np.inf, np.inf, (3,))

    with pytest.raises(UserError, match=r"its observations have the shape \(6, 2\), expected"):
        run(Wider(horizon=5), FAR)
