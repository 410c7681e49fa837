"""metarl.agents.maml.batch: from episodes to weighted steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents.maml.batch import (
    LENGTHS,
    ReturnConfig,
    TrainingBatch,
    longest_episode,
    process_episodes,
    spread,
)
from metarl.core.params import stack
from metarl.core.returns import tells_apart
from metarl.envs import PointNav
from metarl.rollout.episodes import Episodes

CPU = torch.device("cpu")


@pytest.fixture
def episodes() -> Episodes:
    """Two tasks of two episodes of up to four steps; the lengths are 4, 3 and 1, 2."""
    rng = np.random.default_rng(0)
    mask = np.arange(4) < np.array([[4, 3], [1, 2]])[..., None]

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal((2, 2, *shape)).astype(np.float32)

    return Episodes(
        obs=draw(4, 3) * mask[..., None],
        action=draw(4, 2) * mask[..., None],
        reward=draw(4) * mask,
        mask=mask,
        last_obs=draw(3),
        terminated=~mask[..., -1],
        bootstrap=np.zeros((2, 2), bool),
        tasks=np.zeros((2, 1)),
    )


@pytest.fixture
def process(tiny_policy, tiny_params):
    """process_episodes by the tiny policy, in a type, with settings of ReturnConfig."""

    def process(
        episodes: Episodes, dtype: torch.dtype = torch.float64, **settings: float
    ) -> TrainingBatch:
        params = {name: value.to(dtype) for name, value in stack(tiny_params, 2).items()}
        return process_episodes(episodes, tiny_policy, params, ReturnConfig(**settings), CPU)[0]

    return process


def test_every_step_that_took_place_weighs_the_same_within_its_task(episodes, process):
    """1 / 7 and 1 / 3, however the steps are spread over episodes, and 0 elsewhere."""
    weight = process(episodes).weight.reshape(2, 2, 4)
    assert (weight[0][torch.from_numpy(episodes.mask[0])] * 7).tolist() == pytest.approx([1.0] * 7)
    assert (weight[1][torch.from_numpy(episodes.mask[1])] * 3).tolist() == pytest.approx([1.0] * 3)
    assert not weight[~torch.from_numpy(episodes.mask)].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_as_precise_as_the_parameters(dtype, episodes, process):
    weight = process(episodes, dtype).weight
    assert weight.dtype == dtype
    rounding = 10 * torch.finfo(dtype).eps
    assert weight.sum(1).tolist() == pytest.approx([1.0, 1.0], rel=rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_has_the_type_of_the_parameters(dtype, episodes, process):
    tensors = {name: x for name, x in vars(process(episodes, dtype)).items() if name not in LENGTHS}
    assert {x.dtype for x in tensors.values()} == {dtype}


def test_log_prob_is_that_of_the_policy_that_acted(episodes, process, tiny_policy, tiny_params):
    batch = process(episodes)
    for task in range(2):
        obs = torch.from_numpy(episodes.obs[task]).reshape(1, 8, 3).double()
        action = torch.from_numpy(episodes.action[task]).reshape(1, 8, 2).double()
        expected = tiny_policy(stack(tiny_params, 1), obs).log_prob(action)
        torch.testing.assert_close(batch.log_prob[task], expected[0])


def test_steps_after_the_end_have_no_influence(episodes, process):
    """Whatever stands there, all but what stood there is the same to the bit, and 0 there."""
    after_end = ~episodes.mask
    soiled = replace(
        episodes,
        obs=np.where(after_end[..., None], np.float32(9), episodes.obs),
        action=np.where(after_end[..., None], np.float32(-8), episodes.action),
        reward=np.where(after_end, np.float32(7), episodes.reward),
    )
    clean_result, soiled_result = process(episodes), process(soiled)
    assert torch.equal(clean_result.loss, soiled_result.loss)
    for name in ("weight", "advantage", "reward", "value"):
        assert torch.equal(getattr(clean_result, name), getattr(soiled_result, name)), name
        assert not getattr(clean_result, name).reshape(2, 2, 4)[after_end].any(), name


def test_advantages_are_standardised_per_task_only_if_asked(episodes, process):
    """With a strong ridge, so that the baseline leaves something to standardise."""
    raw, standardised = (
        process(episodes, ridge=1.0, standardize=flag).advantage for flag in (False, True)
    )
    for task in range(2):
        valid = torch.from_numpy(episodes.mask[task].ravel())
        values = raw[task][valid]
        expected = (values - values.mean()) / values.std(correction=0)
        torch.testing.assert_close(standardised[task][valid], expected, rtol=1e-6, atol=0)
        assert abs(float(values.mean())) > 0.01


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("reward", [[0, 0, 0, 0], [1, 1, 1, 1], [-0.1, 3, 0, 0.7]])
def test_equal_advantages_are_standardised_to_zero(episodes, process, reward, bootstrap):
    """Neither to NaN nor to the rounding errors of the baseline: a task whose episodes all have the
    same rewards, of which the second has one episode only."""
    mask = np.ones((2, 2, 4), bool)
    mask[1, 1] = False
    rewards = np.where(mask, np.float32(reward), 0)
    ends = {"bootstrap": np.full((2, 2), bootstrap), "terminated": np.full((2, 2), not bootstrap)}
    batch = process(replace(episodes, reward=rewards, mask=mask, **ends))
    for name in ("advantage", "reward", "value"):
        found = getattr(batch, name)
        assert not found[0].any(), name
        assert found[1].any() == (len(set(reward)) > 1), name


def test_what_tells_episodes_apart():
    """A reward, or the length; an episode that does not count does not; nor the steps of one task
    those of another."""
    ones, whole = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    other, shorter, without = ones.clone(), whole.clone(), whole.clone()
    other[1, 2], shorter[1, 2], without[0] = 2.0, False, False
    rewards = torch.stack([ones, other, ones * shorter, other * without, ones * without])
    masks = torch.stack([whole, whole, shorter, without, without])
    assert tells_apart(rewards, masks).tolist() == [False, True, True, True, False]
    assert not tells_apart(ones[None], torch.zeros_like(whole)[None]).any()


# --- rewards and values in the units of the advantage ---


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("truncated", ["none", "all", "some"])
def test_rewards_to_come_less_the_value_are_the_discounted_advantage(
    episodes, process, truncated, discount, standardize
):
    """With lambda = 1, at every step, in episodes that end early, late, or are cut short."""
    cut = {
        "none": np.zeros((2, 2), bool),
        "all": np.ones((2, 2), bool),
        "some": np.array([[True, False], [False, True]]),
    }[truncated]
    episodes = replace(episodes, bootstrap=cut, terminated=~cut)
    batch = process(episodes, discount=discount, standardize=standardize, ridge=0.1)
    reward, value, advantage = (
        x.reshape(2, 2, 4) for x in (batch.reward, batch.value, batch.advantage)
    )
    to_come = reward.flip(-1).cumsum(-1).flip(-1)
    discounted = discount ** torch.arange(4).double() * advantage
    took_place = torch.from_numpy(episodes.mask)
    torch.testing.assert_close(
        (to_come - value)[took_place], discounted[took_place], rtol=1e-10, atol=1e-12
    )
    assert bool(advantage[took_place].any())


def test_rewards_and_values_by_hand(process):
    """One step of reward 1 to nothing, and two of 2 and 4 whose last state counts; discount 1/2.

    All observations are 0, and a task with a truncated episode has no time features: every state
    has the same value v.
    """
    mask = np.array([[[True, False], [True, True]]] * 2)
    episodes = Episodes(
        obs=np.zeros((2, 2, 2, 3), np.float32),
        action=np.zeros((2, 2, 2, 2), np.float32),
        reward=np.float32([[[1, 0], [2, 4]]] * 2),
        mask=mask,
        last_obs=np.zeros((2, 2, 3), np.float32),
        terminated=~mask[..., -1],
        bootstrap=mask[..., -1],
        tasks=np.zeros((2, 1)),
    )
    batch = process(episodes, discount=0.5, standardize=False)
    # value = v, v / 2: then the reward at the end holds half the value of the last state, v too
    value = batch.value[0].reshape(2, 2)
    v = float(value[0, 0])
    assert abs(v) > 0.1
    assert value.tolist() == [[v, 0], [v, v / 2]]
    assert batch.reward[0].tolist() == pytest.approx([1, 0, 2, 0.5 * (4 + 0.5 * v)])


@pytest.mark.parametrize("standardize", [False, True])
def test_the_loss_is_minus_the_mean_reward_of_the_steps_that_took_place(
    episodes, process, standardize
):
    """In the rewards' own units: undiscounted, whatever becomes of the advantages."""
    expected = [-episodes.reward[task][episodes.mask[task]].mean() for task in range(2)]
    found = process(episodes, standardize=standardize, discount=0.5, gae_lambda=0.3).loss
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    left_out = {name: np.zeros_like(getattr(episodes, name)) for name in ("reward", "mask")}
    assert process(replace(episodes, **left_out)).loss.tolist() == [0, 0]


def test_standardised_rewards_are_divided_by_the_advantages_deviation(episodes, process):
    """And values shifted by their mean and divided by it: the units of the advantage."""
    raw, standardised = (process(episodes, ridge=1.0, standardize=flag) for flag in (False, True))
    for task in range(2):
        valid = torch.from_numpy(episodes.mask[task].ravel())
        advantage = raw.advantage[task][valid]
        mean, std = advantage.mean(), advantage.std(correction=0)
        to_start = (0.99 ** torch.arange(4).double()).repeat(2)[valid]
        torch.testing.assert_close(
            standardised.reward[task][valid], raw.reward[task][valid] / std, rtol=1e-6, atol=1e-9
        )
        expected = (raw.value[task][valid] + mean * to_start) / std
        torch.testing.assert_close(standardised.value[task][valid], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.9])
def test_lambda_shapes_the_advantage_only(episodes, process, gae_lambda):
    """Rewards and values are not of the advantage, whatever lambda is."""
    plain = process(episodes, standardize=False)
    shaped = process(episodes, standardize=False, gae_lambda=gae_lambda)
    assert not torch.allclose(plain.advantage, shaped.advantage, rtol=1e-3)
    assert torch.equal(plain.reward, shaped.reward)
    assert torch.equal(plain.value, shaped.value)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 1.0])
def test_explained_variance_is_of_the_returns(episodes, tiny_policy, tiny_params, gae_lambda):
    """The share of the discounted returns' variance that the baseline explains, whatever lambda
    is."""
    settings = ReturnConfig(gae_lambda=gae_lambda, ridge=0.1, standardize=False)
    params = stack(tiny_params, 2)
    played, explained = process_episodes(episodes, tiny_policy, params, settings, CPU)
    to_start = 0.99 ** torch.arange(4).double()
    for task in range(2):
        valid = torch.from_numpy(episodes.mask[task])
        reward, value = (x[task].reshape(2, 4) / to_start for x in (played.reward, played.value))
        returns = torch.stack(
            [(reward[:, t:] * 0.99 ** torch.arange(4 - t).double()).sum(1) for t in range(4)], 1
        )
        left = (returns - value)[valid].var(correction=0) / returns[valid].var(correction=0)
        assert float(explained[task]) == pytest.approx(1 - float(left), rel=1e-9)


# --- some of the steps, or episodes ---


def test_by_episode_is_zero_where_no_step_took_place(episodes, process):
    batch = process(episodes)
    numbers = torch.arange(1.0, 17.0).double().reshape(2, 8)
    expected = numbers.reshape(2, 2, 4) * torch.from_numpy(episodes.mask)
    assert torch.equal(batch.by_episode(numbers), expected)


def test_every_takes_each_stride_th_episode_if_they_are_to_stay_whole(episodes, process):
    """Episodes 0 of two, with 4 of 7 and 1 of 3 steps."""
    batch = process(episodes)
    thin = batch.every(2, whole_episodes=True)
    for name in ("obs", "action", "advantage", "log_prob", "reward", "value"):
        assert torch.equal(getattr(thin, name), getattr(batch, name)[:, :4]), name
    expected = torch.tensor([[1 / 4] * 4, [1, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(thin.weight, expected)
    assert thin.horizon == 4
    assert torch.equal(thin.loss, batch.loss)
    assert thin.by_episode(thin.log_prob).shape == (2, 1, 4)
    assert batch.every(1, whole_episodes=True) is batch


def test_whole_episodes_are_taken_from_the_first_on(episodes, process):
    """Of three episodes every second one: the first and the third."""
    three = Episodes(
        **{
            name: array if name == "tasks" else np.concatenate([array, array[:, :1]], axis=1)
            for name, array in episodes.arrays.items()
        }
    )
    batch = process(three)
    thin = batch.every(2, whole_episodes=True)
    kept = [*range(4), *range(8, 12)]
    assert torch.equal(thin.obs, batch.obs[:, kept])
    torch.testing.assert_close(thin.weight.sum(1), torch.ones(2).double())


def test_every_takes_each_stride_th_step_and_weighs_them_to_one(episodes, process):
    batch = process(episodes)
    thin = batch.every(3)  # steps 0, 3 and 6 of 8; of the second task step 6 did not happen
    for name in ("obs", "action", "advantage", "log_prob", "reward", "value"):
        assert torch.equal(getattr(thin, name), getattr(batch, name)[:, [0, 3, 6]])
    torch.testing.assert_close(
        thin.weight, torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1, 0, 0]], dtype=torch.float64)
    )
    assert torch.equal(thin.loss, batch.loss)
    assert batch.every(1) is batch


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_steps_are_taken_at_half_of_the_times_of_an_episode_or_at_many(stride):
    """Every 16th step of episodes of 16 would be their first one, which may be one state."""
    for horizon in range(1, 130):
        found = spread(stride, horizon, horizon)
        assert stride <= found <= stride + 2
        times = {row % horizon for row in range(0, horizon * found, found)}
        assert len(times) >= min(horizon, 10, max(2, horizon // 2))
    whole = [spread(*each, each[1]) for each in ((16, 16), (16, 32), (8, 40), (16, 100), (8, 200))]
    assert whole == [17, 17, 9, 16, 8]
    assert spread(16, 200, 200) == 16


@pytest.mark.parametrize("longest", [1, 2, 3, 10, 20, 159])
def test_the_times_are_those_of_episodes_that_end_early(longest):
    """Every 16th step of episodes of 160 is one of their steps 0, 16, ..., so of those that end
    after 10 steps only the first."""
    found = spread(16, 160, longest)
    times = {row % 160 for row in range(0, 160 * found, found)}
    assert len([time for time in times if time < longest]) >= min(longest, 10, max(2, longest // 2))


def test_the_longest_episode_is_that_of_the_meta_batch(episodes, process, make_agent, play):
    """Whatever the microbatch, so that every split takes the same steps."""
    assert process(episodes).longest == longest_episode(episodes)
    agent = make_agent(PointNav(horizon=12), tasks_per_microbatch=1)
    state = agent.initial_state(2, training=True)
    played = play(agent, state, PointNav(horizon=12), np.full((2, 2), 0.5), 2)
    ends = np.array([3, 9])[:, None, None]  # of the episodes of both tasks
    played = replace(played, mask=played.mask & (np.arange(12) < ends))
    adapted = agent.adapt(state, played)
    assert [each.support[0].longest for each in adapted.microbatches] == [9, 9]


def test_a_task_left_without_steps_by_thinning_weighs_nothing(episodes, process):
    """Not NaN."""
    weight = torch.tensor([[0.0, 1.0], [0.5, 0.5]]).double()
    whole = vars(process(episodes))
    steps = {name: x[:, :2] for name, x in whole.items() if name not in ("loss", *LENGTHS)}
    rest = {"weight": weight, "loss": whole["loss"], "horizon": 2, "longest": 2}
    thin = TrainingBatch(**{**steps, **rest}).every(2)
    assert thin.weight.tolist() == [[0.0], [1.0]]
