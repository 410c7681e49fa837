"""metarl.agents.recurrent.trials and moments, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.agents.moments import Moments, with_weakened_moments
from metarl.agents.recurrent.module import normalization
from metarl.agents.recurrent.ppo import PPOConfig, trial_advantages
from metarl.agents.recurrent.trials import join_episodes
from metarl.rollout.episodes import Episodes

HORIZON = 4


def episodes(lengths, first_reward=1.0, bootstrap=False) -> Episodes:
    """Episodes of one task: rewards count on from the first; observations are 10 times these."""
    count = len(lengths)
    mask = np.arange(HORIZON) < np.array(lengths)[:, None]  # (E, T)
    reward = (first_reward + np.arange(HORIZON)) * mask + 100 * np.arange(count)[:, None] * mask
    obs = 10 * reward[..., None]
    last = np.maximum(np.array(lengths) - 1, 0)
    return Episodes(
        obs=np.float32(obs[None]),
        action=np.float32(-reward[None, ..., None]),
        reward=np.float32(reward[None]),
        mask=mask[None],
        last_obs=np.float32(obs[np.arange(count), last][None]) + 1,
        terminated=np.zeros((1, count), bool),
        bootstrap=np.full((1, count), bootstrap),
        tasks=np.zeros((1, 1)),
    )


def test_a_trial_is_its_episodes_without_gaps():
    trials = join_episodes([episodes([2, 4]), episodes([3, 1], 7.0)])
    assert trials.reward.tolist() == [[1, 2, 7, 8, 9], [101, 102, 103, 104, 107]]
    assert trials.mask.all()
    assert trials.ends.astype(int).tolist() == [[0, 1, 0, 0, 1], [0, 0, 0, 1, 1]]
    assert trials.previous_reward.tolist() == [[0, 1, 2, 7, 8], [0, 101, 102, 103, 104]]
    assert trials.action[0, :, 0].tolist() == [-1, -2, -7, -8, -9]
    assert trials.begins_anew.astype(int).tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert trials.last_obs[0, :, 0].tolist() == [0, 21, 0, 0, 91]
    assert not trials.bootstrap.any()


def test_shorter_trials_are_padded_at_their_end():
    trials = join_episodes([episodes([1, 4]), episodes([1, 2], bootstrap=True)])
    assert trials.mask.astype(int).tolist() == [[1, 1, 0, 0, 0, 0], [1] * 6]
    assert trials.reward[0].tolist() == [1, 1, 0, 0, 0, 0]
    assert not trials.begins_anew[0, 2:].any()
    assert trials.bootstrap.astype(int).tolist() == [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]


def test_trials_have_the_weight_of_their_task():
    """After the last adaptation; those of weight 0 can be left out."""

    def of_tasks(weight=None):
        one = vars(episodes([1, 1]))
        arrays = {name: np.repeat(x, 3, 0) for name, x in one.items() if x is not None}
        arrays["tasks"] = np.arange(3.0)[:, None]
        return Episodes(**arrays, task_weight=weight)

    trials = join_episodes([of_tasks(), of_tasks(np.array([1.0, 0.0, 2.0]))])
    assert trials.task[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert trials.weight.tolist() == [1, 1, 0, 0, 2, 2]
    kept = trials.weighed()
    assert kept.task[:, 0].tolist() == [0, 0, 2, 2]
    assert kept.weight.tolist() == [1, 1, 2, 2]
    unweighed = join_episodes([of_tasks(), of_tasks()])
    assert unweighed.weight is None
    assert unweighed.weighed() is unweighed


def test_a_trial_with_a_failed_episode_is_left_out():
    trials = join_episodes([episodes([2, 2, 2]), episodes([2, 0, 2])])
    assert trials.reward[:, 0].tolist() == [1, 201]
    nothing = join_episodes([episodes([0, 0]), episodes([2, 2])])
    assert len(nothing.mask) == 0


CONFIG = PPOConfig(discount=0.5, gae_lambda=1.0)
REWARD = torch.tensor([[1.0, 2.0, 4.0, 8.0, 99.0]])
ENDS = torch.tensor([[False, True, False, True, False]])
MASK = torch.tensor([[True, True, True, True, False]])


def advantages(values=(0.0, 0.0, 0.0, 0.0), last_value=(0.0, 16.0, 0.0, 0.0), **config):
    value, last = torch.tensor([[*values, 99.0]]), torch.tensor([[*last_value, 0.0]])
    settings = CONFIG.replace(**config)
    return trial_advantages(REWARD, value, last, ENDS, MASK, settings)[0].tolist()


def test_returns_go_on_over_the_episodes_of_a_trial():
    """8; 4 + 8 / 2; 2 + 8 / 2; 1 + 6 / 2. The trial ends with its last episode."""
    assert advantages() == [4.0, 6.0, 8.0, 8.0, 0.0]


def test_returns_may_end_with_each_episode():
    """And go on with the value of its last state, where that is given: 8 + 32 / 2 and so on."""
    last_value = (0.0, 16.0, 0.0, 32.0)
    found = advantages(last_value=last_value, across_episodes=False)
    assert found == [6.0, 10.0, 16.0, 24.0, 0.0]


def test_returns_go_on_with_the_value_after_a_trial_that_was_cut_off():
    """8 + 64 / 2; 4 + 40 / 2; 2 + 24 / 2; 1 + 14 / 2. Not with that after an earlier episode."""
    assert advantages(last_value=(0.0, 16.0, 0.0, 64.0)) == [8.0, 14.0, 24.0, 40.0, 0.0]


def test_lambda_weighs_the_values():
    """With lambda 0, reward + discount * next value - value."""
    assert advantages(gae_lambda=0.0) == [1.0, 2.0, 4.0, 8.0, 0.0]
    values = (3.0, 5.0, 7.0, 9.0)
    assert advantages(values, gae_lambda=0.0) == [0.5, 0.5, 1.5, -1.0, 0.0]


def test_moments_of_parts_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    rows = rng.normal([5.0, -1.0, 0.0], [2.0, 1e-3, 0.0], (100, 3))
    moments = Moments.empty(3)
    for part in np.split(rows, [1, 1, 30, 99]):
        moments = moments.with_rows(part)
    assert moments.count == 100
    np.testing.assert_allclose(moments.mean, rows.mean(0))
    np.testing.assert_allclose(moments.std, [*rows[:, :2].std(0), 1.0], rtol=1e-9)
    normal = moments.normalise(rows)
    np.testing.assert_allclose(normal[:, :2].std(0), 1.0, rtol=1e-5)
    assert normal.dtype == np.float32
    assert moments.normalise(np.full(3, 1e9)).tolist() == [10.0, 10.0, 10.0]
    scaled = moments.normalise(rows, shift=False)
    np.testing.assert_allclose(scaled[:, 0], rows[:, 0] / rows[:, 0].std(), rtol=1e-5)
    assert Moments.empty(2).normalise(np.array([3.0, -4.0])).tolist() == [3.0, -4.0]


def test_rewards_far_from_zero_are_told_apart():
    """Such as a bonus for being alive of a hundred standard deviations; bounds are around it."""
    rows = np.random.default_rng(0).normal(50.0, 0.5, (1000, 1))
    moments = Moments.empty(1).with_rows(rows)
    scaled = moments.normalise(rows, shift=False)
    np.testing.assert_allclose(scaled, rows / moments.std, rtol=1e-6)
    middle = float(moments.mean[0] / moments.std[0])
    far = np.array([[-1e9], [1e9]])
    np.testing.assert_allclose(
        moments.normalise(far, shift=False)[:, 0], [middle - 10, middle + 10], rtol=1e-6
    )
    module = normalization(moments, shift=False)
    for values in (rows, far):
        found = module(torch.tensor(values, dtype=torch.float32))
        np.testing.assert_allclose(found, moments.normalise(values, shift=False), rtol=1e-6)


def test_moments_of_a_warm_start_give_way_to_new_rows():
    rng = np.random.default_rng(0)
    old = Moments.empty(1).with_rows(rng.normal(0.0, 1.0, (100_000, 1)))
    weak = old.weakened()
    assert weak.count == 10_000
    np.testing.assert_allclose([*weak.mean, *weak.std], [*old.mean, *old.std], rtol=1e-12)
    assert old.with_rows(rng.normal(0.0, 50.0, (10_000, 1))).std < 20
    assert weak.with_rows(rng.normal(0.0, 50.0, (10_000, 1))).std > 30
    few = Moments.empty(1).with_rows(rng.normal(0.0, 1.0, (9, 1)))
    assert few.weakened().count == 9
    state = {**old.state_dict("rewards"), "num_updates": 3, "params.w": torch.zeros(2)}
    taken = with_weakened_moments(state)
    assert taken.keys() == state.keys()
    assert taken["rewards.count"] == 10_000
    assert taken["params.w"] is state["params.w"]


def test_numbers_that_are_equal_but_for_rounding_are_not_scaled():
    """Nor numbers around 0 of the size of such errors; smaller steps of a varying one are."""
    constant, tiny, varying = np.float32([[0.7, 1e-9, 100.0], [0.7, -1e-9, 100.001]]).T
    constant[1] = np.nextafter(constant[0], np.float32(1))
    moments = Moments.empty(3).with_rows(np.stack([constant, tiny, varying], 1))
    assert moments.square[0] > 0
    assert moments.std[:2].tolist() == [1.0, 1.0]
    assert moments.std[2] == np.float64(varying).std()


def test_moments_go_through_a_checkpoint():
    moments = Moments.empty(2).with_rows(np.arange(6.0).reshape(3, 2))
    again = Moments.from_state(moments.state_dict("rewards"), "rewards")
    for name, value in vars(moments).items():
        assert np.array_equal(getattr(again, name), value)


@pytest.mark.parametrize("key", ["discount", "clip"])
def test_settings_out_of_range_are_refused(key):
    with pytest.raises(ValueError, match=key):
        PPOConfig(**{key: -1.0})
