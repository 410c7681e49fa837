"""The weights of tasks in the meta-objective: the mean over the worst tasks, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents.maml.batch import TrainingBatch
from metarl.agents.maml.inner_config import InnerConfig, make_inner_loop
from metarl.agents.maml.meta_objective import MetaObjective
from metarl.agents.maml.microbatch import MetaMicrobatch, Query
from metarl.agents.maml.outer.reptile import reptile_direction
from metarl.agents.maml.surrogates import inner_surrogate
from metarl.core.parallel import MicrobatchPool
from metarl.core.params import flatten, stack, unflatten
from metarl.core.policies import GaussianMLP, PolicyConfig
from metarl.rollout.risk import tail_weights

RNG = np.random.default_rng(0)


def test_the_gradient_of_the_worst_half_worked_by_hand():
    """One step of one action a in each of four tasks, without adaptation. The policy is Normal(b,
    1): the gradient of -(pi / pi_old) A with respect to b is -A (a - b)."""
    policy = GaussianMLP(PolicyConfig(hidden=()), 1, 1)
    meta = {name: torch.zeros_like(x).double() for name, x in policy.init(RNG).items()}
    meta["bias0"] += 0.5
    params = stack(meta, 4)

    def column(*values):
        return torch.tensor(values, dtype=torch.float64)[:, None]

    obs, action = torch.zeros(4, 1, 1).double(), column(0.0, 1.5, -0.5, 2.0)[..., None]
    query = TrainingBatch(
        obs=obs,
        action=action,
        advantage=column(1.0, 2.0, 3.0, 4.0),
        weight=column(1.0, 1.0, 1.0, 1.0),
        log_prob=policy(params, obs).log_prob(action),
        reward=column(0.0, 0.0, 0.0, 0.0),
        value=column(0.0, 0.0, 0.0, 0.0),
        loss=torch.zeros(4),
        horizon=1,
        longest=1,
    )
    weights = tail_weights(np.array([3.0, 1.0, 2.0, 4.0]), np.ones(4), 0.5)
    loop = make_inner_loop(InnerConfig(adapts="nothing"), policy, 0)
    state = loop.init_state(meta, 4)
    queries = (Query(0, params, query),)
    batch = MetaMicrobatch((), state, queries, torch.zeros(4), torch.from_numpy(weights))
    surrogate = inner_surrogate("likelihood_ratio", 1.0)
    found = MetaObjective(policy, loop, surrogate, meta, [batch], MicrobatchPool(1)).gradient()
    # The second and the third task are the worst: -2 (1.5 - 0.5) = -2 and -3 (-0.5 - 0.5) = 3.
    assert float(unflatten(found.gradient, meta)["bias0"]) == pytest.approx((-2 + 3) / 2)
    assert found.loss == pytest.approx(-(2 + 3) / 2)
    assert found.kl == 0


@pytest.mark.parametrize("settings", [{}, {"pre_adaptation_weight": 0.5}, {"emaml_weight": 0.5}])
def test_the_objective_of_the_worst_tasks_is_that_of_a_meta_batch_of_them(make_problem, settings):
    """Through one adaptation step: loss and gradient are those of the tasks 0 and 2 alone, and the
    divergence and the curvature those of all three tasks."""
    surrogate = "log_likelihood" if "emaml_weight" in settings else "likelihood_ratio"
    problem = make_problem(1, surrogate, **settings)
    plain, alone = problem.objective(), problem.singles()
    weights = torch.from_numpy(tail_weights(np.array([1.0, 3.0, 2.0]), np.ones(3), 2 / 3))
    parts = [replace(part, task_weight=w[None]) for part, w in zip(alone, weights, strict=True)]
    weighted, worst = (
        replace(problem, microbatches=each).objective() for each in (parts, [alone[0], alone[2]])
    )
    vector = problem.old + 0.02 * torch.from_numpy(np.random.default_rng(0).standard_normal(34))
    for at in (None, vector):
        found, expected = weighted.gradient(at), worst.gradient(at)
        torch.testing.assert_close(found.gradient, expected.gradient)
        assert found.loss == pytest.approx(expected.loss)
        assert found.kl == pytest.approx(plain.gradient(at).kl)
    (loss, kl), (other, _) = weighted.loss_and_kl(vector), worst.loss_and_kl(vector)
    assert loss == pytest.approx(other)
    assert kl == pytest.approx(plain.loss_and_kl(vector)[1])
    direction = flatten(problem.meta)
    products = (each.fisher_vector_product()(direction) for each in (weighted, plain))
    torch.testing.assert_close(*products)
    if not settings:
        torch.testing.assert_close(reptile_direction(weighted), reptile_direction(worst))
