"""metarl.agents.maml.kfac: Kronecker factors against the exact Fisher matrix, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.maml import kfac
from metarl.agents.maml.kfac import (
    Factors,
    KFACPreconditioner,
    damped_inverse,
    policy_factors,
)
from metarl.agents.maml.outer.trpo import TRPOConfig, conjugate_gradient
from metarl.core.errors import ConfigError
from metarl.core.params import Params, flatten, stack, unflatten
from metarl.core.policies import CategoricalMLP, GaussianMLP, MLPPolicy, PolicyConfig
from metarl.rollout.failures import NotFinite
from tests.agents.maml.references import dense
from tests.agents.maml.settings import FAMILY, INNER, TASKS, values

OBS_DIM, NUM_OUTPUTS = 3, 3
DEEP = {"hidden": (5, 4), "obs_scale": (2.0, 0.5, 1.0), "bias_transform": (3.0, 0.7)}


def policy_and_params(kind: type[MLPPolicy], seed: int = 0, **config) -> tuple[MLPPolicy, Params]:
    policy = kind(PolicyConfig(**config), OBS_DIM, NUM_OUTPUTS)
    rng = np.random.default_rng(seed)
    params = policy.init(rng, torch.float64)
    # Nothing is 0, as biases and inputs are at first.
    noise = {
        name: 0.3 * torch.from_numpy(rng.standard_normal(p.shape)) for name, p in params.items()
    }
    return policy, {name: value + noise[name] for name, value in params.items()}


def exact_fisher(policy: MLPPolicy, params: Params, obs: Tensor, weight: Tensor) -> Tensor:
    """The Hessian of the mean KL divergence of one task, (P, P)."""
    old = policy(stack(params, 1), obs[None]).detach()

    def mean_kl(vector: Tensor) -> Tensor:
        new = policy(stack(unflatten(vector, params), 1), obs[None])
        return (old.kl(new) * weight).sum()

    return torch.autograd.functional.hessian(mean_kl, flatten(params))


def places(params: Params, names: tuple[str, ...]) -> Tensor:
    """The indices of parameters in the flat vector, row by row of the matrix that they form."""
    index = unflatten(torch.arange(len(flatten(params))), params)
    return torch.cat([index[name].flatten() for name in names])


def factors_of(policy, params, obs: Tensor, weight: Tensor):
    """The factors of one task, each of whose observations is there once for each output."""
    repeated = torch.arange(len(obs)).repeat_interleave(NUM_OUTPUTS)
    weights = weight[repeated][None] / NUM_OUTPUTS
    return policy_factors(policy, stack(params, 1), obs[repeated][None], weights)


def assert_block_is_exact(blocks, names, params, fisher: Tensor) -> None:
    block = torch.kron(blocks[names].inputs, blocks[names].outputs)
    where = places(params, names)
    torch.testing.assert_close(block, fisher[where][:, where], rtol=1e-9, atol=1e-12)


def test_one_linear_layer_is_exact():
    """At many observations: the outputs' Fisher matrix of a Gaussian is the same at all."""
    policy, params = policy_and_params(GaussianMLP, hidden=())
    obs = torch.from_numpy(np.random.default_rng(1).standard_normal((7, OBS_DIM)))
    weight = torch.linspace(0.05, 0.3, 7, dtype=torch.float64)
    weight = weight / weight.sum()
    blocks = factors_of(policy, params, obs, weight)
    assert set(blocks) == {("weight0", "bias0"), ("log_std",)}
    fisher = exact_fisher(policy, params, obs, weight)
    for names in blocks:
        assert_block_is_exact(blocks, names, params, fisher)
    joined = torch.cat([places(params, names) for names in blocks])
    assert sorted(joined.tolist()) == list(range(len(fisher)))
    between = fisher[places(params, ("weight0", "bias0"))][:, places(params, ("log_std",))]
    assert not between.any(), "so the whole matrix is block diagonal"


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("kind", [GaussianMLP, CategoricalMLP])
def test_every_layer_is_exact_at_one_observation(kind, activation):
    policy, params = policy_and_params(kind, activation=activation, **DEEP)
    obs = torch.tensor([[0.3, -0.8, 0.5]], dtype=torch.float64)
    weight = torch.ones(1, dtype=torch.float64)
    blocks = factors_of(policy, params, obs, weight)
    expected = {("weight0", "bias0", "input_weight"), ("weight1", "bias1"), ("weight2", "bias2")}
    expected |= {("input",)} | ({("log_std",)} if kind is GaussianMLP else set())
    assert set(blocks) == expected
    fisher = exact_fisher(policy, params, obs, weight)
    for names in blocks:
        assert_block_is_exact(blocks, names, params, fisher)


def test_outputs_that_take_turns_estimate_the_factors():
    """Of many observations in random order, each with one direction of outputs only."""
    policy, params = policy_and_params(CategoricalMLP, **DEEP)
    rng = np.random.default_rng(2)
    obs = torch.from_numpy(rng.standard_normal((4, OBS_DIM)))
    weight = torch.full((4,), 0.25, dtype=torch.float64)
    exact = factors_of(policy, params, obs, weight)
    many = obs[torch.from_numpy(rng.permutation(np.arange(4).repeat(2_000)))][None]
    weights = torch.full((1, len(many[0])), 1 / len(many[0]), dtype=torch.float64)
    drawn = policy_factors(policy, stack(params, 1), many, weights)
    for names, factors in exact.items():
        scale = float(factors.outputs.diagonal().mean())
        torch.testing.assert_close(drawn[names].outputs, factors.outputs, rtol=0, atol=0.05 * scale)


def test_factors_are_sums_over_tasks():
    tasks = [policy_and_params(GaussianMLP, seed, **DEEP) for seed in (0, 1)]
    policy = tasks[0][0]
    rng = np.random.default_rng(3)
    obs = torch.from_numpy(rng.standard_normal((2, 6, 3)))
    weight = torch.full((2, 6), 1 / 6, dtype=torch.float64)
    params = {name: torch.stack([each[name] for _, each in tasks]) for name in tasks[0][1]}
    together = policy_factors(policy, params, obs, weight)
    alone = [policy_factors(policy, stack(tasks[i][1], 1), obs[[i]], weight[[i]]) for i in (0, 1)]
    for names, factors in together.items():
        for side in ("inputs", "outputs"):
            expected = sum(getattr(each[names], side) for each in alone)
            torch.testing.assert_close(getattr(factors, side), expected)


def test_large_factors_are_replaced_by_their_diagonals(monkeypatch):
    policy, params = policy_and_params(GaussianMLP, **DEEP)
    obs = torch.from_numpy(np.random.default_rng(6).standard_normal((1, 8, OBS_DIM)))
    weight = torch.full((1, 8), 1 / 8, dtype=torch.float64)
    whole = policy_factors(policy, stack(params, 1), obs, weight)
    monkeypatch.setattr(kfac, "MAX_SIZE", 4)
    found = policy_factors(policy, stack(params, 1), obs, weight)
    first = "weight0", "bias0", "input_weight"  # 6 rows, 5 columns
    torch.testing.assert_close(found[first].inputs, whole[first].inputs.diagonal())
    torch.testing.assert_close(found[first].outputs, whole[first].outputs.diagonal())
    second = "weight1", "bias1"  # 6 rows, 4 columns
    torch.testing.assert_close(found[second].outputs, whole[second].outputs)

    as_matrices = {name: value.diag() for name, value in vars(found[first]).items()}
    expected, matrix = Factors(**as_matrices).inverse(0.1), torch.eye(6, 5, dtype=torch.float64)
    inverse = found[first].inverse(0.1)
    torch.testing.assert_close(inverse.inputs.diag(), expected.inputs)
    torch.testing.assert_close(inverse.times(matrix), expected.times(matrix))


@pytest.fixture
def blocks_and_meta():
    """Factors of a policy whose meta-parameters have learned step sizes too."""
    policy, params = policy_and_params(GaussianMLP, **DEEP)
    obs = torch.from_numpy(np.random.default_rng(4).standard_normal((1, 8, 3)))
    weight = torch.full((1, 8), 1 / 8, dtype=torch.float64)
    meta = {**params, "lr:weight0": torch.ones(3, 5, dtype=torch.float64)}
    return policy_factors(policy, stack(params, 1), obs, weight), meta


def test_the_preconditioner_is_the_inverse_of_damped_kronecker_products(blocks_and_meta):
    """Dense, block by block; what has no factor stays as it is."""
    blocks, meta = blocks_and_meta
    damping, num_tasks = 0.1, 2
    matrix = dense(KFACPreconditioner(blocks, num_tasks, damping, meta), len(flatten(meta)))
    expected = torch.eye(len(matrix), dtype=torch.float64)
    for names, factors in blocks.items():
        inputs, outputs = factors.inputs / num_tasks, factors.outputs / num_tasks
        ratio = (inputs.diagonal().mean() / outputs.diagonal().mean()).sqrt()
        inputs = inputs + damping**0.5 * ratio * torch.eye(len(inputs), dtype=torch.float64)
        outputs = outputs + damping**0.5 / ratio * torch.eye(len(outputs), dtype=torch.float64)
        where = places(meta, names)
        expected[where[:, None], where] = torch.linalg.inv(torch.kron(inputs, outputs))
    torch.testing.assert_close(matrix, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-9, atol=1e-9)
    assert torch.linalg.eigvalsh(matrix).min() > 0


def test_preconditioned_conjugate_gradients_solve_the_same_system(blocks_and_meta):
    """As far as the dense solution; in one step where the preconditioner is the inverse."""
    blocks, meta = blocks_and_meta
    size = len(flatten(meta))
    root = torch.from_numpy(np.random.default_rng(5).standard_normal((size, size)))
    matrix, target = root @ root.T / size + torch.eye(size), root[0]
    expected = torch.linalg.solve(matrix, target)
    precondition = KFACPreconditioner(blocks, 1, 1.0, meta)
    found, _ = conjugate_gradient(
        lambda x: matrix @ x, target, 3 * size, tolerance=1e-26, precondition=precondition
    )
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    inverse = torch.linalg.inv(matrix)
    found, _ = conjugate_gradient(
        lambda x: matrix @ x, target, 1, precondition=lambda x: inverse @ x
    )
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_factors_that_are_not_finite_are_refused():
    matrix = torch.eye(2, dtype=torch.float64)
    words = r"the inverse of the preconditioner \(a larger preconditioner_damping helps\) is not"
    with pytest.raises(NotFinite, match=words):
        damped_inverse(-matrix, torch.tensor(0.1, dtype=torch.float64))
    for bad in (torch.nan * matrix, torch.inf * matrix, torch.nan * matrix[0]):
        with pytest.raises(NotFinite, match="the preconditioner is not finite"):
            damped_inverse(bad, torch.tensor(0.1))
    nothing = Factors(0 * matrix, 0 * matrix).inverse(0.01)
    assert nothing.inputs.isfinite().all(), "as of a layer whose inputs are all 0"


def test_damping_must_be_positive():
    with pytest.raises(ConfigError, match="preconditioner_damping: expected more than 0, got 0"):
        TRPOConfig(preconditioner_damping=0.0)
    with pytest.raises(ConfigError, match="nearest: kfac"):
        TRPOConfig(preconditioner="kfca")


KFAC = TRPOConfig(cg_steps=3, preconditioner="kfac")


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_an_update_of_any_adaptation_improves(make_agent, meta_step, inner):
    agent = make_agent(FAMILY, inner=inner, outer=KFAC)
    found = meta_step(agent)
    assert 0 < found["outer_kl"] <= 0.01
    assert found["improvement"] > 0
    plain = make_agent(FAMILY, inner=inner, outer=TRPOConfig(cg_steps=3, preconditioner="none"))
    meta_step(plain)
    assert not torch.allclose(values(agent), values(plain), rtol=1e-6)


def test_neither_threads_nor_microbatches_matter(make_agent, meta_step):
    """Threads not for a bit, microbatches for the rounding."""
    found = []
    for settings in ({}, {"num_threads": 3}, {"tasks_per_microbatch": len(TASKS)}):
        agent = make_agent(FAMILY, dtype=torch.float64, outer=KFAC, **settings)
        meta_step(agent)
        found.append(values(agent))
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[2], rtol=1e-9, atol=1e-9)
