"""metarl.experience: from episodes to weighted steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.adaptation import stack
from metarl.episodes import Episodes
from metarl.experience import Experience, ReturnConfig, make_experience

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
def digest(tiny_policy, tiny_params):
    """make_experience by the tiny policy, in a type, with settings of ReturnConfig."""

    def digest(
        episodes: Episodes, dtype: torch.dtype = torch.float64, **settings: float
    ) -> Experience:
        params = {name: value.to(dtype) for name, value in stack(tiny_params, 2).items()}
        return make_experience(episodes, tiny_policy, params, ReturnConfig(**settings), CPU)[0]

    return digest


def test_every_step_that_took_place_weighs_the_same_within_its_task(episodes, digest):
    """1 / 7 and 1 / 3, however the steps are spread over episodes, and 0 elsewhere."""
    weight = digest(episodes).weight.reshape(2, 2, 4)
    assert (weight[0][torch.from_numpy(episodes.mask[0])] * 7).tolist() == pytest.approx([1.0] * 7)
    assert (weight[1][torch.from_numpy(episodes.mask[1])] * 3).tolist() == pytest.approx([1.0] * 3)
    assert not weight[~torch.from_numpy(episodes.mask)].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_as_precise_as_the_parameters(dtype, episodes, digest):
    weight = digest(episodes, dtype).weight
    assert weight.dtype == dtype
    rounding = 10 * torch.finfo(dtype).eps
    assert weight.sum(1).tolist() == pytest.approx([1.0, 1.0], rel=rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_has_the_type_of_the_parameters(dtype, episodes, digest):
    assert {value.dtype for value in vars(digest(episodes, dtype)).values()} == {dtype}


def test_log_prob_is_that_of_the_policy_that_acted(episodes, digest, tiny_policy, tiny_params):
    experience = digest(episodes)
    for task in range(2):
        obs = torch.from_numpy(episodes.obs[task]).reshape(1, 8, 3).double()
        action = torch.from_numpy(episodes.action[task]).reshape(1, 8, 2).double()
        expected = tiny_policy(stack(tiny_params, 1), obs).log_prob(action)
        torch.testing.assert_close(experience.log_prob[task], expected[0])


def test_steps_after_the_end_have_no_influence(episodes, digest):
    """Whatever stands there, advantages and weights are the same to the bit."""
    after_end = ~episodes.mask
    soiled = replace(
        episodes,
        obs=np.where(after_end[..., None], np.float32(9), episodes.obs),
        action=np.where(after_end[..., None], np.float32(-8), episodes.action),
        reward=np.where(after_end, np.float32(7), episodes.reward),
    )
    clean_result, soiled_result = digest(episodes), digest(soiled)
    assert torch.equal(clean_result.weight, soiled_result.weight)
    assert torch.equal(clean_result.advantage, soiled_result.advantage)


def test_advantages_are_standardised_per_task_only_if_asked(episodes, digest):
    """With a strong ridge, so that the baseline leaves something to standardise."""
    raw, standardised = (
        digest(episodes, ridge=1.0, standardize=flag).advantage for flag in (False, True)
    )
    for task in range(2):
        valid = torch.from_numpy(episodes.mask[task].ravel())
        values = raw[task][valid]
        expected = (values - values.mean()) / values.std(correction=0)
        torch.testing.assert_close(standardised[task][valid], expected, rtol=1e-6, atol=0)
        assert abs(float(values.mean())) > 0.01


def test_every_takes_each_stride_th_step_and_weighs_them_to_one(episodes, digest):
    experience = digest(episodes)
    thin = experience.every(3)  # steps 0, 3 and 6 of 8; of the second task step 6 did not happen
    for name in ("obs", "action", "advantage", "log_prob"):
        assert torch.equal(getattr(thin, name), getattr(experience, name)[:, [0, 3, 6]])
    torch.testing.assert_close(
        thin.weight, torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1, 0, 0]], dtype=torch.float64)
    )
    assert experience.every(1) is experience


def test_a_task_left_without_steps_by_thinning_weighs_nothing(episodes, digest):
    """Not NaN."""
    weight = torch.tensor([[0.0, 1.0], [0.5, 0.5]]).double()
    steps = {name: value[:, :2] for name, value in vars(digest(episodes)).items()}
    thin = Experience(**{**steps, "weight": weight}).every(2)
    assert thin.weight.tolist() == [[0.0], [1.0]]
