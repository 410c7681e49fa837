"""metarl.agents.maml.outer.reptile: towards the adapted parameters."""

import numpy as np
import pytest
import torch

from metarl.agents.maml.outer.reptile import ReptileConfig
from metarl.core.errors import ConfigError
from metarl.core.params import flatten, leaves


def plain_direction(problem) -> torch.Tensor:
    """The mean over tasks of phi - theta, (P,), where phi follows from theta by one step of SGD on
    each support batch of the task and one on its query batch."""
    directions = []
    for microbatch in problem.singles():
        phi = problem.plain_trajectory(leaves(problem.meta), microbatch)[-1]
        phi = problem.plain_step(leaves(phi), microbatch.queries[-1].batch)
        directions.append(flatten(phi).detach() - problem.old)
    return sum(directions) / len(directions)


@pytest.mark.parametrize("lr", [1.0, 0.3])
@pytest.mark.parametrize("surrogate", ["likelihood_ratio", "log_likelihood"])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_step_goes_a_share_of_the_mean_direction(make_problem, timer, steps, surrogate, lr):
    """theta + lr * mean(phi - theta), with `steps` + 1 steps of SGD from theta to phi."""
    problem = make_problem(steps, surrogate)
    new, found = (
        ReptileConfig(lr=lr)
        .make(problem.old)
        .step(problem.objective(), np.random.default_rng(0), timer)
    )
    direction = plain_direction(problem)
    torch.testing.assert_close(new, problem.old + lr * direction, rtol=1e-11, atol=1e-13)
    assert found["gradient_norm"] == pytest.approx(float(direction.norm()), rel=1e-10)
    objective = problem.objective()
    loss, kl = objective.loss_and_kl(new)
    assert found["outer_kl"] == pytest.approx(kl, rel=1e-10)
    before = objective.loss_and_kl(problem.old)[0]
    assert found["improvement"] == pytest.approx(before - loss, rel=1e-8)


def test_without_adaptation_it_is_training_on_all_tasks_at_once(make_problem, timer):
    """One step of SGD on the mean loss, whose step size is the inner one."""
    problem = make_problem(0)
    new, _ = (
        ReptileConfig(lr=1.0)
        .make(problem.old)
        .step(problem.objective(), np.random.default_rng(0), timer)
    )
    gradient = problem.objective().gradient().gradient
    expected = problem.old - problem.inner.lr * gradient
    torch.testing.assert_close(new, expected, rtol=1e-11, atol=1e-13)


def test_nothing_is_differentiated_through(make_problem, timer):
    """First and second order are the same to the bit, and no graph is left."""
    one, other = (
        ReptileConfig().make(problem.old).step(problem.objective(), np.random.default_rng(0), timer)
        for problem in (make_problem(2, first_order=flag) for flag in (False, True))
    )
    assert torch.equal(one[0], other[0])
    assert one[1] == other[1]
    assert not one[0].requires_grad


def test_adam_takes_the_direction_for_a_negative_gradient(make_problem, timer):
    """Two steps of torch's Adam."""
    problem = make_problem(1)
    update = ReptileConfig(optimizer="adam", lr=0.01).make(problem.old)
    parameter = torch.nn.Parameter(problem.old.clone())
    reference = torch.optim.Adam([parameter], lr=0.01)
    for _ in range(2):
        parameter.data = problem.old.clone()
        parameter.grad = -plain_direction(problem)
        reference.step()
        new, _ = update.step(problem.objective(), np.random.default_rng(0), timer)
        torch.testing.assert_close(new, parameter.detach(), rtol=1e-8, atol=1e-10)


def test_only_adam_has_a_state(make_problem):
    vector = make_problem(1).old
    assert ReptileConfig().make(vector).state_dict() == {}
    adam = ReptileConfig(optimizer="adam").make(vector)
    assert adam.state_dict().keys() == {"step", "exp_avg", "exp_avg_sq"}


def test_a_step_size_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="lr: expected more than 0, got 0"):
        ReptileConfig(lr=0.0)
