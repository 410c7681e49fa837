"""metarl.envs.bandit: Bernoulli arms, against their probabilities and the documented draws."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.envs import Bandit, TaskError


def begin(family: Bandit, tasks: np.ndarray):
    """A batch environment at the start of an episode per task; episode i has stream i."""
    env = family.make_batch(len(tasks))
    obs = env.reset(np.array(tasks), [np.random.default_rng(i) for i in range(len(tasks))])
    assert np.array_equal(obs, np.zeros((len(tasks), 1)))
    return env


def test_certain_arms_pay_always_or_never():
    env = begin(Bandit(num_arms=3), [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    for arms in ((0, 0), (1, 1), (2, 2), (1, 0)):
        obs, reward, terminated = env.step(np.array(arms)[:, None])
        assert reward.tolist() == [float(arms[0] == 1), float(arms[1] != 1)]
        assert np.array_equal(obs, np.zeros((2, 1)))
        assert not terminated.any()


def test_rewards_are_the_documented_draws():
    """The uniform numbers of an episode are drawn at its reset, one for each pull."""
    family = Bandit(num_arms=4, horizon=7)
    tasks = family.tasks("train", 3)
    env, rng = begin(family, tasks), np.random.default_rng(5)
    uniforms = [np.random.default_rng(episode).random(7) for episode in range(3)]
    for pull in range(7):
        arms = rng.integers(4, size=3)
        _, reward, _ = env.step(arms[:, None])
        expected = [uniforms[i][pull] < tasks[i, arms[i]] for i in range(3)]
        assert reward.tolist() == np.array(expected, float).tolist()


def test_arms_pay_with_their_probabilities():
    """4,000 episodes of one task: within five standard errors."""
    family = Bandit(horizon=20)
    task = family.tasks("test", 1)[0]
    env = begin(family, task[None].repeat(4000, axis=0))
    for arm, p in enumerate(task):
        rewards = [env.step(np.full((4000, 1), arm))[1] for _ in range(4)]
        assert set(np.unique(rewards)) <= {0.0, 1.0}
        assert abs(np.mean(rewards) - p) < 5 * np.sqrt(p * (1 - p) / 16_000)


def test_tasks_are_uniform():
    tasks = Bandit(num_arms=3).sample_tasks(np.random.default_rng(0), 5000)
    assert tasks.shape == (5000, 3)
    np.testing.assert_allclose(tasks.mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(tasks.var(axis=0), 1 / 12, atol=0.005)
    with pytest.raises(TaskError, match=r"bandit lies between .*, got \[0.5, 0.5, 1.5\]"):
        Bandit(num_arms=3).check_task([0.5, 0.5, 1.5])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"horizon": 0}, "horizon: expected at least 1, got 0"),
        ({"num_arms": 1}, "num_arms: expected from 2 to 10000, got 1"),
        ({"num_arms": 10_001}, "num_arms: expected from 2 to 10000, got 10001"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Bandit(**fields)


def test_the_state_and_the_caption_count_pulls():
    env = begin(Bandit(num_arms=2), [[1.0, 0.0]])
    for arm in (0, 1, 0):
        env.step(np.array([[arm]]))
    assert env.render_state(0).tolist() == [0, 1, 3, 2]
    text = env.family.caption(env.render_state(0), np.array([0.62, 0.3]))
    assert text == "2 of 3 pulls paid, best arm 62%"


def test_the_renderer_shows_probabilities_and_pulls():
    family = Bandit(num_arms=2, horizon=5)
    renderer = family.make_renderer(120, 100)  # columns at 40 and 80, 32 wide; from 6 to 94 high
    task = np.array([0.25, 0.75])
    states = np.array([[-1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 2, 1], [0, 0, 3, 1]])
    picture = renderer.draw(states, task)
    assert picture.shape == (100, 120, 3)
    assert picture.dtype == np.uint8

    def colour(picture: np.ndarray, column: int, row: int) -> str:
        return "#{:02x}{:02x}{:02x}".format(*picture[row, column])

    light, dark, slot = "#a9c5e3", "#2a6fbb", "#ffffff"
    paid, not_paid, frame, empty = "#2e8b57", "#c0392b", "#1d2430", "#f7f7f5"
    # Probabilities: the lower quarter and the lower three quarters of 44 pixels
    assert [colour(picture, 40, row) for row in (30, 44)] == [slot, light]
    assert [colour(picture, 80, row) for row in (12, 30, 44)] == [slot, dark, dark]
    # Pulls: blocks of 8.4 pixels from row 52 on, those that paid first
    assert [colour(picture, 40, row) for row in (56, 64)] == [not_paid, empty]
    assert [colour(picture, 80, row) for row in (56, 64, 73)] == [paid, not_paid, empty]
    assert colour(picture, 24, 80) == frame
    assert colour(picture, 64, 80) != frame
    first = renderer.draw(states, task, 0.5)  # before the first pull
    assert not {paid, not_paid, frame} & {
        colour(first, x, y) for x in (24, 40, 64, 80) for y in range(100)
    }
    renderer.close()
