"""metarl.envs.tabular: random MDPs, against their tables and against one written out as a loop."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest

from metarl.core.timer import Timer
from metarl.envs import TabularMDP, TaskError
from metarl.envs.tabular import TabularBatchEnv
from metarl.rollout.collect import collect

SMALL = TabularMDP(horizon=12, num_states=4, num_actions=3)
TWO = TabularMDP(horizon=4, num_states=2, num_actions=2, reward_std=0.0)

# Of TWO: action 0 stays and action 1 leaves, but no one leaves state 1 by action 1.
TWO_TASK = np.array([*[1.0, 2.0, 3.0, 4.0], *[1.0, 0.0, 0.0, 1.0], *[0.0, 1.0, 0.0, 1.0]])


def begin(family: TabularMDP, tasks: np.ndarray, seed: int = 0) -> TabularBatchEnv:
    """A batch environment at the start of an episode per task; episode i has stream seed + i."""
    env = family.make_batch(len(tasks))
    obs = env.reset(tasks, [np.random.default_rng(seed + i) for i in range(len(tasks))])
    assert np.array_equal(obs, np.eye(family.num_states)[[0] * len(tasks)])
    return env


def random_actions(family: TabularMDP, num_episodes: int, seed: int = 0) -> np.ndarray:
    """(T, N, 1) float32."""
    rng = np.random.default_rng(seed)
    shape = (family.horizon, num_episodes, 1)
    return rng.integers(family.num_actions, size=shape).astype(np.float32)


def play(env: TabularBatchEnv, actions: np.ndarray) -> tuple[np.ndarray, ...]:
    """Observations (T, N, S), rewards (T, N) and terminations (T, N) of the steps."""
    return tuple(map(np.stack, zip(*(env.step(action) for action in actions), strict=True)))


def assert_same(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> None:
    """All arrays are the same bit for bit."""
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


# --- dynamics ---


def test_steps_by_hand():
    """Rewards are those of the state before the step."""
    env = begin(TWO, np.stack([TWO_TASK, TWO_TASK]))
    obs, reward, terminated = play(env, np.array([[[0], [1]], [[1], [1]], [[0], [0]]]))
    assert obs.argmax(-1).tolist() == [[0, 1], [1, 1], [1, 1]]
    assert np.array_equal(obs.sum(-1), np.ones((3, 2)))
    assert reward.tolist() == [[1.0, 2.0], [2.0, 4.0], [3.0, 3.0]]
    assert not terminated.any()


@pytest.mark.parametrize("reward_std", [0.0, 0.5])
def test_steps_equal_a_loop_written_out(reward_std):
    """One episode after the other, from the documented draws: the same bits."""
    family = TabularMDP(horizon=12, num_states=4, num_actions=3, reward_std=reward_std)
    tasks, actions = family.tasks("train", 5), random_actions(family, 5)
    obs, reward, _ = play(begin(family, tasks), actions)
    for episode, task in enumerate(tasks):
        mean, transition = task[:12].reshape(4, 3), task[12:].reshape(4, 3, 4)
        rng = np.random.default_rng(episode)
        uniform, normal = rng.random(12), rng.standard_normal(12)
        state = 0
        for step, action in enumerate(actions[:, episode, 0].astype(int)):
            assert reward[step, episode] == mean[state, action] + reward_std * normal[step]
            edges = np.cumsum(transition[state, action])
            state = next(i for i in range(4) if uniform[step] < edges[i] / edges[-1])
            assert obs[step, episode].argmax() == state


def test_frequencies_and_means_are_those_of_the_tables():
    """Of 48,000 steps in one MDP, within five standard errors."""
    task, num_episodes = SMALL.tasks("test", 1), 4000
    env, actions = begin(SMALL, task.repeat(num_episodes, axis=0)), random_actions(SMALL, 4000)
    obs, reward, _ = play(env, actions)
    after = obs.argmax(-1)  # (T, N)
    before = np.concatenate([np.zeros((1, num_episodes), int), after[:-1]])
    mean, transition = SMALL.tables(task[0])
    for state, action in np.ndindex(4, 3):
        there = (before == state) & (actions[..., 0] == action)
        count = there.sum()
        assert count > 1000
        share = np.bincount(after[there], minlength=4) / count
        p = transition[state, action]
        assert np.all(np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / count) + 1e-9)
        assert abs(reward[there].mean() - mean[state, action]) < 5 / np.sqrt(count)
        assert reward[there].std() == pytest.approx(1.0, rel=5 / np.sqrt(2 * count))


class Extremes:
    """A generator whose uniform numbers are all the same."""

    def __init__(self, uniform: float) -> None:
        self.uniform = uniform

    def random(self, size: int) -> np.ndarray:
        return np.full(size, self.uniform)

    def standard_normal(self, size: int) -> np.ndarray:
        return np.zeros(size)


@pytest.mark.parametrize(("uniform", "state"), [(0.0, 1), (1 - 2**-53, 10)])
def test_no_state_is_entered_that_has_no_probability(uniform, state):
    """Not even by the smallest and largest number, where the sum is short of 1 by rounding."""
    family = TabularMDP(num_states=12, num_actions=1)
    row = np.array([0.0, *[0.1] * 10, 0.0])
    assert row.cumsum()[-1] < 1
    task = family.check_task(np.concatenate([np.zeros(12), np.tile(row, 12)]))
    env = family.make_batch(1)
    env.reset(task[None], [Extremes(uniform)])
    obs, _, _ = env.step(np.zeros((1, 1)))
    assert obs[0].argmax() == state


def test_steps_beyond_the_horizon_meet_the_same_noise_again():
    """In an MDP whose states and actions are all alike, the second round equals the first."""
    alike = np.concatenate([np.ones(12), np.tile([0.1, 0.2, 0.3, 0.4], 12)])
    env, actions = begin(SMALL, np.stack([alike] * 3)), random_actions(SMALL, 3)
    assert_same(play(env, actions), play(env, actions))


# --- what results depend on ---


def test_results_depend_on_the_generators_alone():
    tasks, actions = SMALL.tasks("train", 5), random_actions(SMALL, 5)
    first = play(begin(SMALL, tasks), actions)
    env = begin(SMALL, tasks, seed=100)
    other = play(env, actions)
    assert not np.array_equal(first[1], other[1])
    env.reset(tasks, [np.random.default_rng(i) for i in range(5)])
    assert_same(first, play(env, actions))


def test_a_batch_equals_one_at_a_time():
    tasks, actions = SMALL.tasks("train", 5), random_actions(SMALL, 5)
    together = play(begin(SMALL, tasks), actions)
    for i in range(5):
        alone = play(begin(SMALL, tasks[i : i + 1], seed=i), actions[:, i : i + 1])
        assert_same(tuple(array[:, i] for array in together), tuple(a[:, 0] for a in alone))


def test_episodes_not_stepped_keep_their_state_and_their_noise():
    """Whatever is in their rows of the action; later they go on as if nothing had been."""
    tasks, actions = SMALL.tasks("train", 5), random_actions(SMALL, 5)
    obs, reward, _ = play(begin(SMALL, tasks), actions)
    env, early, late = begin(SMALL, tasks), np.array([4, 1]), np.array([0, 2, 3])
    for ids, steps in ((early, range(5)), (late, range(12)), (early, range(5, 12))):
        for step in steps:
            partial = np.full_like(actions[step], np.nan)
            partial[ids] = actions[step, ids]
            some_obs, some_reward, _ = env.step(partial, ids)
            assert np.array_equal(some_obs[ids], obs[step, ids])
            assert np.array_equal(some_reward[ids], reward[step, ids])


def test_the_noise_of_rewards_does_not_change_the_walk():
    tasks, actions = SMALL.tasks("train", 5), random_actions(SMALL, 5)
    silent = TabularMDP(horizon=12, num_states=4, num_actions=3, reward_std=0.0)
    noisy_obs, noisy_reward, _ = play(begin(SMALL, tasks), actions)
    obs, reward, _ = play(begin(silent, tasks), actions)
    assert np.array_equal(noisy_obs, obs)
    assert not np.array_equal(noisy_reward, reward)


def test_advance_is_the_dynamics_of_step():
    tasks = SMALL.tasks("train", 5)
    stepped, advanced = begin(SMALL, tasks), begin(SMALL, tasks)
    for action in random_actions(SMALL, 5):
        stepped.step(action)
        advanced.advance(action)
        for i in range(5):
            assert np.array_equal(stepped.render_state(i), advanced.render_state(i))
    assert advanced.physics_seconds > 0


def test_results_are_fresh_arrays():
    env = begin(TWO, TWO_TASK[None])
    first, reward, terminated = env.step(np.array([[1.0]]))
    kept = first.copy(), reward.copy(), terminated.copy()
    env.step(np.array([[0.0]]))
    assert_same((first, reward, terminated), kept)
    first[:] = reward[:] = 99
    _, reward, _ = env.step(np.array([[1.0]]))
    assert reward.tolist() == [4.0]


# --- actions ---


@pytest.mark.parametrize("value", [-1.0, 3.0, 1.5, -0.5, 2.0000002, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ids", [None, [1, 2]])
def test_an_index_that_is_none_is_refused(value, ids):
    """And nothing has moved."""
    env = begin(SMALL, SMALL.tasks("train", 3))
    action = np.array([[0.0], [2.0], [value]])
    for move in (env.step, env.advance):
        with pytest.raises(ValueError, match=r"action: expected a whole number from 0 to 2, got"):
            move(action, None if ids is None else np.array(ids))
    assert [env.render_state(i).tolist() for i in range(3)] == [[0, -1]] * 3


@pytest.mark.parametrize("shape", [(3,), (1, 1), (3, 2), (4, 1), ()])
def test_actions_of_a_wrong_shape_are_refused(shape):
    env = begin(SMALL, SMALL.tasks("train", 3))
    with pytest.raises(ValueError, match=r"action: expected the shape \(3, 1\), got"):
        env.step(np.zeros(shape))


@pytest.mark.parametrize("action", [1, np.int64(1), np.array([1]), np.float32(1)])
def test_gymnasiums_environment_takes_the_index_itself(action):
    env = gymnasium.make("metarl/TabularMDP-v0", num_states=2, num_actions=2, task=TWO_TASK)
    env.reset(seed=0)
    obs, *_ = env.unwrapped.step(action)
    assert obs.tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="expected a whole number from 0 to 1, got 2"):
        env.unwrapped.step(2)


@dataclass
class Cycle:
    """An actor that takes one action after the other."""

    num_actions: int
    last: int = -1

    def noise(self, rng: np.random.Generator, horizon: int) -> np.ndarray:
        return np.zeros((horizon, 1), np.float32)

    def act(self, obs, noise, last_reward, active) -> np.ndarray:
        self.last = (self.last + 1) % self.num_actions
        return np.full((*obs.shape[:2], 1), self.last, np.float32)


def test_the_loop_stores_indices():
    """Two episodes of each of three tasks; each task's MDP rewards what its episodes did."""
    family = TabularMDP(horizon=6, num_states=4, num_actions=3, reward_std=0.0)
    tasks, rngs = family.tasks("test", 3), [np.random.default_rng(i) for i in range(6)]
    episodes = collect(family.make_batch(6), Cycle(3), tasks, rngs, Timer())
    assert episodes.action.shape == (3, 2, 6, 1)
    assert np.array_equal(episodes.action[..., 0], np.tile([0, 1, 2, 0, 1, 2], (3, 2, 1)))
    mean, _ = family.tables(tasks)
    action, state = episodes.action[..., 0].astype(int), episodes.obs.argmax(-1)
    expected = mean[np.arange(3)[:, None, None], state, action]
    assert np.array_equal(episodes.reward, expected.astype(np.float32))
    assert not episodes.bootstrap.any()


# --- tasks ---


def test_tasks_are_normal_rewards_and_flat_dirichlet_transitions():
    """Moments of 2,000 tasks: the normal's are 1 and 1, a flat Dirichlet's 1/S, and (S-1)/S^2(S+1)
    for the variance."""
    rewards, transitions = SMALL.tables(SMALL.sample_tasks(np.random.default_rng(0), 2000))
    assert rewards.shape == (2000, 4, 3)
    assert transitions.shape == (2000, 4, 3, 4)
    np.testing.assert_allclose(rewards.mean(0), 1.0, atol=0.12)
    np.testing.assert_allclose(rewards.std(0), 1.0, atol=0.1)
    np.testing.assert_allclose(transitions.sum(-1), 1.0, atol=1e-12)
    np.testing.assert_allclose(transitions.mean(0), 1 / 4, atol=0.03)
    np.testing.assert_allclose(transitions.var(0), 3 / 80, rtol=0.2)


def test_tables_of_one_task_and_of_many():
    rewards, transitions = TWO.tables(TWO_TASK)
    assert rewards.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert transitions.tolist() == [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
    many = TWO.tables(np.stack([TWO_TASK, 2 * TWO_TASK]))
    assert np.array_equal(many[0], [rewards, 2 * rewards])
    assert np.array_equal(many[1], [transitions, 2 * transitions])


@pytest.mark.parametrize(
    ("places", "values", "message"),
    [
        ([0], [np.inf], "the mean rewards of a task of tabular_mdp are finite"),
        ([3], [np.nan], "the mean rewards of a task of tabular_mdp are finite"),
        ([4, 5], [1.1, -0.1], r"state 0 and action 0 they are \[1.1, -0.1\]"),
        ([6, 7], [0.5, 0.51], r"state 0 and action 1 they are \[0.5, 0.51\]"),
        ([8], [0.1], r"state 1 and action 0 they are \[0.1, 1.0\]"),
        ([10, 11], [0.0, 0.0], r"state 1 and action 1 they are \[0.0, 0.0\]"),
        ([11], [np.nan], r"state 1 and action 1 they are \[0.0, nan\]"),
        ([11], [np.inf], r"state 1 and action 1 they are \[0.0, inf\]"),
    ],
)
def test_a_row_that_is_no_mdp_is_refused(places, values, message):
    task = TWO_TASK.copy()
    task[places] = values
    with pytest.raises(TaskError, match=message):
        TWO.check_task(task)


def test_a_task_that_is_no_number_is_refused():
    with pytest.raises(TaskError, match="a task of tabular_mdp has 12 numbers, got 'x'"):
        TWO.check_task("x")


def test_a_task_of_a_wrong_size_is_refused_in_few_words():
    with pytest.raises(TaskError, match=r"has 12 numbers, got the shape \(11,\)"):
        TWO.check_task(TWO_TASK[:-1])
    with pytest.raises(TaskError, match=r"has 12 numbers, got the shape \(1, 12\)"):
        TWO.check_task(TWO_TASK[None])


def test_probabilities_may_be_rounded():
    task = SMALL.tasks("test", 1)[0].astype(np.float32)
    assert np.array_equal(SMALL.check_task(task), task)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"horizon": 0}, "horizon: expected at least 1, got 0"),
        ({"num_states": 0}, "num_states: expected at least 1, got 0"),
        ({"num_actions": -1}, "num_actions: expected at least 1, got -1"),
        ({"reward_std": -0.5}, "reward_std: expected at least 0, got -0.5"),
        (
            {"reward_std": np.nan},
            "reward_std: expected a finite number in single precision",
        ),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        TabularMDP(**fields)


# --- pictures ---


def test_the_renderer_shows_rewards_the_state_and_actions_taken():
    """The best pair's cell is dark, the current state framed, and actions taken have a dot."""
    renderer = TWO.make_renderer(120, 90)  # cells of 30 pixels, the first at (30, 15)
    states = np.array([[0, -1], [1, 1], [1, 0]])
    picture = renderer.draw(states, TWO_TASK)
    assert np.array_equal(renderer.draw(np.vstack([states, states]), TWO_TASK, 2.5), picture)
    renderer.close()
    assert picture.shape == (90, 120, 3)
    assert picture.dtype == np.uint8

    def colour(x: int, y: int) -> str:
        return "#{:02x}{:02x}{:02x}".format(*picture[y, x])

    centres = {(s, a): colour(45 + 30 * s, 30 + 30 * a) for s in range(2) for a in range(2)}
    dot = "#1d2430"
    assert centres == {(0, 0): "#ffffff", (0, 1): dot, (1, 0): dot, (1, 1): "#2a6fbb"}
    assert colour(61, 40) == colour(75, 16) == colour(75, 74) == "#c0392b"
    assert colour(45, 16) != "#c0392b"


def test_description():
    assert TWO.caption(np.array([1, 0]), TWO_TASK) == "state 1, best action's mean reward +4.0"
