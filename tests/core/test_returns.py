"""core.returns: discounted sums, the linear baseline and GAE, against numbers worked by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.core.returns import (
    BLOCK,
    advantages,
    baseline_values,
    discounted_prefixes,
    discounted_sums,
    explained_variance,
    is_last,
    linear_features,
    moments,
    ridge_weights,
)

RIDGE = 1e-5


def rows(*values: list[float]) -> Tensor:
    """One task with these episodes, (1, E, T) float64."""
    return torch.tensor([values], dtype=torch.float64)


def random_batch(num_tasks=2, num_episodes=4, horizon=12, obs_dim=3, seed=0, scale=1.0):
    """Observations (float32), last observations, rewards and a mask with early ends."""
    rng = np.random.default_rng(seed)
    shape = (num_tasks, num_episodes, horizon)
    obs = scale * rng.standard_normal((*shape, obs_dim))
    last_obs = scale * rng.standard_normal((*shape[:2], obs_dim))
    length = rng.integers(1, horizon + 1, shape[:2])
    mask = np.arange(horizon) < length[..., None]
    reward = rng.standard_normal(shape) * mask
    tensors = (torch.from_numpy(array.astype(np.float32)) for array in (obs, last_obs, reward))
    return *tensors, torch.from_numpy(mask)


def nothing_follows(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape[:2], dtype=torch.bool)


# --- discounted sums ---


def test_discounted_sums_by_hand():
    """3; 2 + 0.5 * 3; 1 + 0.5 * 3.5."""
    assert discounted_sums(rows([1, 2, 3]), 0.5).tolist() == [[[2.75, 3.5, 3.0]]]


@pytest.mark.parametrize(("factor", "sums"), [(0.0, [1, 2, 3]), (1.0, [6, 5, 3])])
def test_discounted_sums_at_the_ends_of_the_range(factor, sums):
    assert discounted_sums(rows([1, 2, 3]), factor).tolist() == [[sums]]


@pytest.mark.parametrize("factor", [0.0, 0.97, 0.9999, 1.0])
@pytest.mark.parametrize("steps", [50, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
def test_discounted_sums_equal_the_recursion(steps, factor):
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, steps)))
    expected, following = torch.empty_like(values), torch.zeros(2, 3).double()
    for step in reversed(range(steps)):
        following = values[..., step] + factor * following
        expected[..., step] = following
    torch.testing.assert_close(discounted_sums(values, factor), expected, rtol=1e-10, atol=1e-10)


def test_long_episodes_need_no_quadratic_memory():
    """A matrix of all pairs of 200,000 steps would take 320 GB."""
    values = torch.ones(1, 200_000, dtype=torch.float64)
    sums = discounted_sums(values, 0.999)
    assert sums[0, 0] == pytest.approx(1000, abs=1e-6)
    assert sums[0, -2:].tolist() == [1.999, 1.0]


def test_discounted_prefixes_by_hand():
    """1; 2 + 0.5 * 1; 3 + 0.5 * 2.5."""
    assert discounted_prefixes(rows([1, 2, 3]), 0.5).tolist() == [[[1.0, 2.5, 4.25]]]


@pytest.mark.parametrize(("factor", "sums"), [(0.0, [1, 2, 3]), (1.0, [1, 3, 6])])
def test_discounted_prefixes_at_the_ends_of_the_range(factor, sums):
    assert discounted_prefixes(rows([1, 2, 3]), factor).tolist() == [[sums]]


def test_the_last_step_of_each_episode():
    """Of four episodes, of all, two, one and no steps."""
    mask = torch.tensor([[[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]]]).bool()
    assert is_last(mask).int().tolist() == [[[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]]]


# --- generalised advantage estimation, discount 0.5, values 4, 2, 8 and a last value of 6 ---

VALUES = [4.0, 2.0, 8.0]


def gae(reward, mask, values, last_value, gae_lambda):
    mask = torch.tensor([[mask]]).bool()
    last_values = torch.tensor([[last_value]], dtype=torch.float64)
    return advantages(rows(reward), mask, rows(values), last_values, 0.5, gae_lambda).tolist()[0][0]


def test_the_end_of_a_finite_horizon_by_hand():
    """Nothing follows. delta: 0 - 8; 1 + 4 - 2; 1 + 1 - 4; A_t = delta_t + 1/4 A_t+1."""
    assert gae([1, 1, 0], [1, 1, 1], VALUES, 0.0, 0.5) == [-2 + 0.25, 3 - 2.0, -8.0]


def test_a_truncation_by_hand():
    """The last value follows. The last delta is 0 + 0.5 * 6 - 8."""
    assert gae([1, 1, 0], [1, 1, 1], VALUES, 6.0, 0.5) == [-2 + 0.25 * 1.75, 3 - 1.25, -5.0]


def test_a_termination_by_hand():
    """After the second step there is nothing, not even the value 8: delta_1 is 1 - 2."""
    assert gae([1, 1, 0], [1, 1, 0], [4, 2, 0], 0.0, 0.5) == [-2 - 0.25, -1.0, 0.0]


def test_the_three_ends_differ_for_the_same_rewards():
    ends = [
        gae([1, 1, 0], [1, 1, 0], [4, 2, 0], 0.0, 0.5),
        gae([1, 1, 0], [1, 1, 1], VALUES, 0.0, 0.5),
        gae([1, 1, 0], [1, 1, 1], VALUES, 6.0, 0.5),
    ]
    assert len({end[0] for end in ends}) == len({end[1] for end in ends}) == 3


def test_lambda_one_is_returns_minus_baseline():
    """With nothing following; returns are those of the steps that took place."""
    obs, last_obs, reward, mask = random_batch()
    values, last_values = baseline_values(
        obs, last_obs, reward, mask, nothing_follows(mask), 0.9, RIDGE
    )
    advantage = advantages(reward, mask, values, last_values, 0.9, 1.0)
    expected = (discounted_sums(reward.double(), 0.9) - values) * mask
    torch.testing.assert_close(advantage, expected, rtol=1e-12, atol=1e-12)


def test_lambda_zero_is_the_one_step_error():
    assert gae([1, 1, 1], [1, 1, 1], VALUES, 6.0, 0.0) == [1 + 1 - 4, 1 + 4 - 2, 1 + 3 - 8]


# --- the linear baseline ---


def test_linear_features_by_hand():
    """obs, obs^2, t, t^2, t^3, 1, with t in horizons and observations within +-10."""
    features = linear_features(torch.tensor([[3.0, -1e6]]), torch.tensor([0.5]))
    assert features.tolist() == [[3, -10, 9, 100, 0.5, 0.25, 0.125, 1]]
    assert features.dtype == torch.float64


def test_the_baseline_by_hand():
    """Constant observation 0 and one step per episode: features are only the constant 1, so the
    ridge regression of returns 2, 4 and 9 is their mean over 1 + ridge."""
    obs, last_obs = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 2)
    reward, mask = rows([2], [4], [9]), torch.ones(1, 3, 1).bool()
    values, last = baseline_values(obs, last_obs, reward, mask, nothing_follows(mask), 0.9, 0.25)
    assert values.flatten().tolist() == pytest.approx([4.0] * 3)  # 5 / 1.25
    assert last.flatten().tolist() == [0.0] * 3


def test_the_baseline_finds_what_is_linear_in_its_features():
    """Returns that are a polynomial in time: reward 1 per step, undiscounted."""
    obs, last_obs, _, _ = random_batch(horizon=10)
    mask = torch.ones(2, 4, 10).bool()
    values, _ = baseline_values(
        obs, last_obs, mask.float(), mask, nothing_follows(mask), 1.0, 1e-12
    )
    to_go = torch.arange(10, 0, -1).double().expand(2, 4, 10)
    torch.testing.assert_close(values, to_go, rtol=1e-6, atol=1e-6)


def test_each_task_has_its_own_baseline():
    """Bit for bit the same alone as in a stack, and blind to the other task's rewards."""
    batch = random_batch(num_tasks=2)
    cut = nothing_follows(batch[3])
    together, _ = baseline_values(*batch, cut, 0.9, RIDGE)
    batch[2][1] *= 100
    changed, _ = baseline_values(*batch, cut, 0.9, RIDGE)
    assert torch.equal(together[0], changed[0])
    assert not torch.allclose(together[1], changed[1])


def forever(discount: float, ridge: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reward 1 at every step of an endless task, cut short by time limits at different lengths:
    mask, values, last values and advantages."""
    obs, last_obs, _, mask = random_batch(horizon=20, num_episodes=6)
    reward, cut = mask.float(), torch.ones(2, 6).bool()
    values, last_values = baseline_values(obs, last_obs, reward, mask, cut, discount, ridge)
    return mask, values, last_values, advantages(reward, mask, values, last_values, discount, 1.0)


@pytest.mark.parametrize("discount", [0.5, 0.9, 0.99])
def test_reward_one_forever_is_worth_the_geometric_series(discount):
    """1 / (1 - discount), at every step and at the last state."""
    mask, values, last_values, _ = forever(discount, ridge=1e-12)
    worth = torch.tensor(1 / (1 - discount), dtype=torch.float64)
    torch.testing.assert_close(values, worth * mask, rtol=1e-6, atol=0)
    torch.testing.assert_close(last_values, worth.expand(2, 6), rtol=1e-6, atol=0)


@pytest.mark.parametrize("discount", [0.5, 0.9, 0.99])
def test_reward_one_forever_has_no_advantage_anywhere(discount):
    _, _, _, advantage = forever(discount, RIDGE)
    assert float(advantage.abs().max()) < 1e-3 / (1 - discount)


def test_only_bootstrapped_episodes_have_a_last_value():
    """One task with a truncated and a terminated episode."""
    obs, last_obs, reward, mask = random_batch(num_tasks=1, num_episodes=2)
    _, last_values = baseline_values(
        obs, last_obs, reward, mask, torch.tensor([[True, False]]), 0.9, RIDGE
    )
    assert last_values[0, 0] != 0
    assert last_values[0, 1] == 0


@pytest.mark.parametrize("num_features", [3, 12, 13, 40, 300])
@pytest.mark.parametrize("ridge", [RIDGE, 1.0])
def test_few_steps_and_few_features_are_solved_alike(num_features, ridge):
    """Twelve steps, some of which did not take place: the normal equations of the features."""
    rng = np.random.default_rng(0)
    design, target = (torch.from_numpy(rng.normal(size=(2, 12, n))) for n in (num_features, 1))
    count = torch.tensor([12.0, 7.0]).double()[:, None, None]
    design[1, 7:], target[1, 7:] = 0, 0
    found = ridge_weights(design, target, count, ridge)
    eye = torch.eye(num_features).double()
    gram = design.mT @ design / count + ridge * eye
    expected = torch.linalg.solve(gram, design.mT @ target / count)
    assert found.shape == (2, num_features, 1)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize(
    ("description", "batch"),
    [
        ("huge observations", random_batch(scale=1e10)),
        ("tiny observations", random_batch(scale=1e-20)),
        ("constant observations", random_batch(scale=0.0)),
        ("fewer steps than features", random_batch(num_episodes=1, horizon=3, obs_dim=20)),
        ("one episode", random_batch(num_episodes=1)),
        ("a single step", random_batch(num_episodes=1, horizon=1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_baseline_cannot_blow_up(description, batch, endless):
    """Finite, and no further from 0 on its own steps than least squares allows."""
    obs, last_obs, reward, mask = batch
    cut = torch.full(mask.shape[:2], endless)
    values, last_values = baseline_values(obs, last_obs, reward, mask, cut, 0.99, RIDGE)
    assert values.isfinite().all()
    assert last_values.isfinite().all()
    if not endless:  # a ridge regression's fit is no longer than its target
        target = discounted_sums(reward.double(), 0.99) * mask
        assert (values.norm(dim=(1, 2)) <= (1 + 1e-9) * target.norm(dim=(1, 2))).all()


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize("soiled", ["obs", "reward"])
def test_masked_steps_have_no_influence(endless, soiled):
    """Neither on values nor on advantages, whatever stands in the rows after the end."""
    obs, last_obs, reward, mask = random_batch()
    cut = torch.full(mask.shape[:2], endless)

    def estimate(obs: Tensor, reward: Tensor) -> tuple[Tensor, ...]:
        values, last_values = baseline_values(obs, last_obs, reward, mask, cut, 0.9, RIDGE)
        advantage = advantages(reward, mask, values, last_values, 0.9, 0.8)
        return values, advantage, last_values, *moments(advantage, mask)

    clean = estimate(obs, reward)
    if soiled == "obs":
        again = estimate(torch.where(mask[..., None], obs, 77.0), reward)
    else:
        again = estimate(obs, torch.where(mask, reward, -55.0))
    assert all(torch.equal(one, other) for one, other in zip(clean, again, strict=True))
    assert not any(result[~mask].any() for result in clean[:2])


# --- moments and diagnostics ---


def test_moments_are_over_the_steps_that_took_place():
    """Mean and standard deviation of each task's valid steps, whatever stands in the others."""
    _, _, _, mask = random_batch(num_tasks=3)
    advantage = 5 + 3 * torch.randn(mask.shape, dtype=torch.float64)
    mean, std = moments(advantage, mask)
    assert mean.shape == std.shape == (3, 1, 1)
    for task in range(3):
        valid = advantage[task][mask[task]]
        assert float(mean[task]) == pytest.approx(float(valid.mean()), rel=1e-12)
        assert float(std[task]) == pytest.approx(float(valid.std(correction=0)), rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_moments_of_equal_numbers(value):
    mean, std = moments(rows([value, value]), torch.ones(1, 1, 2).bool())
    assert (mean.item(), std.item()) == (value, 0.0)


def test_explained_variance_by_hand():
    """Returns 0, 2, 4: perfect, useless, and residuals 0, 0, 2 of variance 8/9 against 8/3."""
    returns, mask = rows([0, 2, 4, 0]), torch.tensor([[[True, True, True, False]]])

    def explained(*values: float) -> float:
        return explained_variance(returns, rows([*values]), mask).item()

    assert explained(0, 2, 4, 9) == 1.0
    assert explained(2, 2, 2, 9) == 0.0
    assert explained(0, 2, 2, 9) == pytest.approx(2 / 3)
    assert explained_variance(rows([1, 1]), rows([0, 5]), torch.ones(1, 1, 2).bool()).item() == 0
    nearly = rows([7.0, 7.0 + 1e-6])  # but for rounding errors
    assert explained_variance(nearly, rows([0, 5]), torch.ones(1, 1, 2).bool()).item() == 0
