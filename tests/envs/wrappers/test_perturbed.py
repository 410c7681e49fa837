"""metarl.envs.wrappers.perturbed: sensors, delays and motors, worked by hand on 2D navigation."""

import numpy as np
import pytest

from metarl.envs import HalfCheetahVel, Perturbed, PointNav, TabularMDP, TaskObserved
from metarl.envs.contract import check_family

POINT = PointNav(action_scale=0.1, horizon=6)  # actions are displacements
GOALS = np.array([[0.5, 0.5], [-0.5, 0.5]])


def begin(family, seed: int = 0):
    env = family.make_batch(2)
    return env, env.reset(GOALS, [np.random.default_rng(seed + i) for i in range(2)])


def test_nothing_perturbed_is_the_family_itself():
    plain, _ = begin(POINT)
    same, _ = begin(Perturbed(POINT))
    for action in np.random.default_rng(0).uniform(-0.1, 0.1, (6, 2, 2)):
        assert all(map(np.array_equal, plain.step(action), same.step(action)))


def test_an_action_takes_effect_after_the_delay():
    env, _ = begin(Perturbed(POINT, action_delay=2))
    moves = [[0.1, 0.0], [0.0, 0.1], [-0.1, 0.0], [0.0, 0.0]]
    found = [env.step(np.array([move, move]))[0][0] for move in moves]
    np.testing.assert_allclose(found, [[0, 0], [0, 0], [0.1, 0], [0.1, 0.1]], atol=1e-12)


def test_the_delay_of_an_episode_counts_its_own_steps():
    env, _ = begin(Perturbed(POINT, action_delay=1))
    right = np.full((2, 2), 0.1)
    env.step(right, np.array([0]))
    obs, _, _ = env.step(right)
    np.testing.assert_allclose(obs, [[0.1, 0.1], [0.0, 0.0]], atol=1e-12)


def test_motors_lose_strength_after_the_clipping():
    env, _ = begin(Perturbed(POINT, motor_strength=0.5))
    obs, _, _ = env.step(np.array([[0.1, -0.04], [5.0, 0.0]]))
    np.testing.assert_allclose(obs, [[0.05, -0.02], [0.05, 0.0]], atol=1e-12)


def test_zero_is_that_of_the_environment(walk):
    """The second action of Push, alone here, is in [0, 10]; the policy's -1, 0, 1 are 0, 5, 10."""
    push = walk(cls="Push")

    def moved(family) -> np.ndarray:
        env, action = family.make_batch(3), np.array([[0.0, x, 0.0] for x in (-1, 0, 1)])
        env.reset(np.zeros((3, 1)), [np.random.default_rng(0) for _ in range(3)])
        return env.step(action)[0][:, 0]

    still = moved(push)[0]
    np.testing.assert_allclose(moved(push) - still, [0, 5, 10], atol=1e-5)
    weak = Perturbed(TaskObserved(push), motor_strength=0.6)
    np.testing.assert_allclose(moved(weak) - still, [0, 3, 6], atol=1e-5)
    np.testing.assert_allclose(moved(Perturbed(push, action_delay=1)), still, atol=1e-5)
    assert push.zero_action.tolist() == [0, -1, 0]
    assert HalfCheetahVel().zero_action.tolist() == [0] * 6


def test_noise_is_on_what_is_seen_and_not_on_what_is():
    family = Perturbed(PointNav(action_scale=0.1, horizon=400), observation_noise=0.3)
    env, first = begin(family)
    seen = [first] + [env.step(np.zeros((2, 2)))[0] for _ in range(400)]
    assert np.array_equal(env.render_state(0), [0, 0])
    np.testing.assert_allclose(np.std(seen), 0.3, rtol=0.1)
    _, again = begin(family)
    assert np.array_equal(first, again)
    _, other = begin(family, seed=5)
    assert not np.array_equal(first, other)


def begin_many(count=300, seed=0, **fields):
    """Episodes of a family with ranges, that all have the first goal."""
    env = Perturbed(POINT, **fields).make_batch(count)
    obs = env.reset(GOALS[[0] * count], [np.random.default_rng([seed, i]) for i in range(count)])
    return env, obs


def test_each_episode_draws_its_own_strength_evenly_from_a_range():
    env, _ = begin_many(motor_strength=(0.5, 1.0))
    strength = env.step(np.full((300, 2), 0.1))[0][:, 0] / 0.1
    assert 0.5 <= strength.min() < 0.51
    assert 0.99 < strength.max() <= 1
    assert np.mean(strength) == pytest.approx(0.75, abs=0.03)
    further = env.step(np.full((300, 2), 0.1))[0][:, 0] / 0.1
    np.testing.assert_allclose(further, 2 * strength, err_msg="the same in the whole episode")


def test_each_episode_draws_its_own_delay_from_a_range():
    """Both ends included, 0 too."""
    env, _ = begin_many(action_delay=(0, 2))
    right = np.full((300, 2), 0.1)
    moved = np.stack([env.step(right)[0][:, 0] for _ in range(3)]) > 0.05  # (3, N)
    first = moved.argmax(axis=0)
    assert moved[2].all()
    assert np.bincount(first) == pytest.approx([100] * 3, abs=30)
    np.testing.assert_allclose(env.render_state(int(first.argmax())), [0.1, 0.1])


def test_each_episode_draws_its_own_noise_from_a_range():
    family = Perturbed(PointNav(action_scale=0.1, horizon=400), observation_noise=(0.1, 0.3))
    env, _ = begin(family, seed=7)
    seen = np.stack([env.step(np.zeros((2, 2)))[0] for _ in range(400)])  # (400, N, 2)
    std = seen.std(axis=(0, 2))
    assert ((std > 0.09) & (std < 0.32)).all()
    assert abs(std[0] - std[1]) > 0.02


def test_the_generator_of_an_episode_goes_on_as_without_perturbations():
    """So its actions have the same noise."""
    left = []
    for family in (POINT, Perturbed(POINT, observation_noise=0.1, action_delay=(0, 2))):
        rngs = [np.random.default_rng(i) for i in range(2)]
        family.make_batch(2).reset(GOALS, rngs)
        left.append([rng.random() for rng in rngs])
    assert left[0] == left[1]


def test_an_episode_does_not_depend_on_the_others():
    """Its perturbations are drawn by its own stream."""
    ranges = {"observation_noise": (0, 0.1), "action_delay": (0, 2), "motor_strength": (0.5, 1)}
    found = []
    for count in (2, 7):
        env, obs = begin_many(count, **ranges)
        steps = [env.step(np.full((count, 2), 0.05))[0][:2] for _ in range(4)]
        found.append(np.stack([obs[:2], *steps]))
    assert np.array_equal(*found)


def test_a_range_of_one_value_is_the_value():
    values = {"observation_noise": 0.1, "action_delay": 2, "motor_strength": 0.5}
    one, first = begin(Perturbed(POINT, **values))
    other, same = begin(Perturbed(POINT, **{name: (x, x) for name, x in values.items()}))
    assert np.array_equal(first, same)
    for _ in range(4):
        action = np.full((2, 2), 0.07)
        assert np.array_equal(one.step(action)[0], other.step(action)[0])


def test_rewards_are_those_of_the_true_state():
    env, _ = begin(Perturbed(POINT, observation_noise=1.0))
    plain, _ = begin(POINT)
    action = np.full((2, 2), 0.05)
    assert np.array_equal(env.step(action)[1], plain.step(action)[1])


def test_tasks_are_the_familys():
    family = Perturbed(HalfCheetahVel(), observation_noise=0.1)
    tasks = family.tasks("test", 3)
    assert family.task_hash(tasks) == HalfCheetahVel().task_hash(tasks)


def test_wrappers_go_around_each_other():
    env, obs = begin(Perturbed(TaskObserved(POINT), action_delay=1))
    assert np.array_equal(obs[:, 2:], GOALS)
    assert np.array_equal(env.step(np.full((2, 2), 0.1))[0][:, :2], np.zeros((2, 2)))


@pytest.mark.parametrize(
    "family",
    [
        Perturbed(POINT, observation_noise=0.1, action_delay=3, motor_strength=0.5),
        Perturbed(TabularMDP(), action_delay=2),
        Perturbed(
            POINT, observation_noise=(0.0, 0.1), action_delay=(0, 3), motor_strength=(0.5, 1.5)
        ),
    ],
)
def test_a_perturbed_family_keeps_the_contract(family):
    results = check_family(family)
    assert [check for check in results if check.outcome == "FAIL"] == []


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        (POINT, {"observation_noise": -0.1}, "observation_noise: expected at least 0, got -0.1"),
        (POINT, {"motor_strength": (1.0, 0.5)}, r"expected low <= high, got \(1.0, 0.5\)"),
        (POINT, {"action_delay": (-1, 2)}, "action_delay: expected at least 0, got -1"),
        (POINT, {"action_delay": -1}, "action_delay: expected at least 0, got -1"),
        (
            POINT,
            {"action_delay": 1.5},
            "action_delay: expected a whole number, .* got 1.5",
        ),
        (POINT, {"action_delay": True}, "action_delay: expected a whole number, .* got True"),
        (POINT, {"observation_noise": np.inf}, "observation_noise: expected a finite number"),
        (
            POINT,
            {"observation_noise": "a"},
            "observation_noise: expected a finite .* got 'a'",
        ),
        (POINT, {"motor_strength": (1, 2, 3)}, r"motor_strength: expected .* got \(1, 2, 3\)"),
        (TabularMDP(), {"motor_strength": 0.5}, "the actions of tabular_mdp are choices"),
    ],
)
def test_a_wrong_perturbation_is_named(family, fields, message):
    with pytest.raises(ValueError, match=message):
        Perturbed(family, **fields)
