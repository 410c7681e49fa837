"""metarl.agents.maml.outer.adam: Adam on the meta-gradient, which test_meta_objective.py checks."""

import numpy as np
import pytest
import torch

from metarl.agents.maml.outer.adam import AdamConfig
from metarl.core.errors import ConfigError


def test_steps_are_adams_on_the_meta_gradient(make_problem, timer):
    """Two of them, on two meta-batches, against torch."""
    problem = make_problem(1)
    update = AdamConfig(lr=0.01).make(problem.old)
    parameter = torch.nn.Parameter(problem.old.clone())
    reference = torch.optim.Adam([parameter], lr=0.01)
    for objective in (problem.objective(), problem.objective(problem.microbatches[:1])):
        found = objective.gradient()
        parameter.data = problem.old.clone()
        parameter.grad = found.gradient
        reference.step()
        new, diagnostics = update.step(objective, np.random.default_rng(0), timer)
        assert torch.equal(new, parameter.detach())
        loss, kl = objective.loss_and_kl(new)
        assert diagnostics == {
            "outer_kl": kl,
            "improvement": found.loss - loss,
            "gradient_norm": pytest.approx(float(found.gradient.norm()), rel=1e-12),
        }
    assert diagnostics["outer_kl"] > 0


def test_a_small_step_improves_the_objective(make_problem, timer):
    problem = make_problem(1)
    _, diagnostics = (
        AdamConfig(lr=1e-4)
        .make(problem.old)
        .step(problem.objective(), np.random.default_rng(0), timer)
    )
    assert diagnostics["improvement"] > 0


def test_a_step_size_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="lr: expected more than 0, got 0"):
        AdamConfig(lr=0.0)
