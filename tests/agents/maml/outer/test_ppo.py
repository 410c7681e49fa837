"""metarl.agents.maml.outer.ppo: epochs, the clip, and the weights of the divergences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.maml.meta_objective import MetaGradient
from metarl.agents.maml.outer.adam import AdamConfig
from metarl.agents.maml.outer.ppo import PPOConfig
from metarl.agents.maml.surrogates import clipped_ratio
from metarl.core.errors import ConfigError
from metarl.core.params import stack, unflatten
from tests.agents.maml.references import RULES, TASK_PARAMETERS, FrozenGradients


@pytest.mark.parametrize("clip", [1e-6, 0.3])
def test_one_epoch_is_a_step_of_the_plain_gradient(make_problem, timer, clip):
    """At the old policies all ratios are 1: no clip is active, and no divergence has a slope."""
    problem = make_problem(1)
    config = PPOConfig(lr=0.01, epochs=1, clip=clip, kl_weight=3.0, inner_kl_weight=2.0)
    new, found = config.make(problem.old).step(problem.objective(), np.random.default_rng(0), timer)
    expected, plain = (
        AdamConfig(lr=0.01)
        .make(problem.old)
        .step(problem.objective(), np.random.default_rng(0), timer)
    )
    torch.testing.assert_close(new, expected, rtol=1e-9, atol=1e-9)
    for name in plain:
        assert found[name] == pytest.approx(plain[name], rel=1e-5, abs=1e-9), name


def plain_loss(problem, vector: Tensor, config: PPOConfig) -> Tensor:
    """The clipped objective and its penalties, a loop over tasks and steps of plain autograd."""
    old, new = (unflatten(each, problem.meta) for each in (problem.old.requires_grad_(), vector))
    losses = []
    for microbatch in problem.singles():
        before, trajectory = (problem.plain_trajectory(params, microbatch) for params in (old, new))
        query = microbatch.queries[-1].batch
        played = [*microbatch.support, query]
        policies = [
            [problem.policy(stack(p, 1), e.obs) for p, e in zip(each, played, strict=True)]
            for each in (before, trajectory)
        ]
        kls = [
            (was.detach().kl(policy) * batch.weight).sum()
            for was, policy, batch in zip(*policies, played, strict=True)
        ]
        ratio = (policies[1][-1].log_prob(query.action) - query.log_prob).exp()
        clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
        advantage = query.advantage
        objective = torch.minimum(ratio * advantage, clipped * advantage)
        loss = -(objective * query.weight).sum()
        losses.append(loss + config.kl_weight * kls[-1] + config.inner_kl_weight * sum(kls[:-1]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("penalties", [{}, {"kl_weight": 0.8}, {"inner_kl_weight": 0.5}])
@pytest.mark.parametrize("steps", [1, 2])
def test_epochs_equal_a_plain_implementation(make_problem, timer, steps, penalties):
    """Four of them, far enough for the clip to matter."""
    problem = make_problem(steps)
    config = PPOConfig(lr=0.03, epochs=4, clip=0.1, **penalties)
    new, _ = config.make(problem.old).step(problem.objective(), np.random.default_rng(0), timer)
    parameter = torch.nn.Parameter(problem.old.clone())
    adam = torch.optim.Adam([parameter], lr=0.03)
    for _ in range(4):
        parameter.grad = torch.autograd.grad(plain_loss(problem, parameter, config), parameter)[0]
        adam.step()
    torch.testing.assert_close(new, parameter.detach(), rtol=1e-8, atol=1e-9)
    free = PPOConfig(lr=0.03, epochs=4, clip=1e6, **penalties)
    unclipped, _ = free.make(problem.old).step(problem.objective(), np.random.default_rng(0), timer)
    assert float((new - unclipped).norm()) > 1e-3


class Stub:
    """An objective that notes what is asked of it, and reports a given divergence."""

    num_episodes = 1

    def __init__(self, kl: float) -> None:
        self.kl, self.asked, self.vector = kl, [], torch.zeros(3)

    def gradient(self, vector, outer, kl_weight, inner_kl_weight) -> MetaGradient:
        self.asked.append((vector, kl_weight, inner_kl_weight))
        number = len(self.asked)
        return MetaGradient(10.0 * number, torch.full((3,), float(number)), 0.0, 0.0)

    def loss_and_kl(self, vector: Tensor) -> tuple[float, float]:
        return 4.0, self.kl


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(0.031, 2.0), (0.03, 1.0), (0.02, 1.0), (0.02 / 1.5, 1.0), (0.0133, 0.5), (0.0, 0.5)],
)
def test_the_kl_weight_doubles_and_halves(timer, kl, factor):
    """Beyond 1.5 times the target of 0.02, and below a 1.5th of it, and not at these bounds; for
    the updates that follow."""
    update = PPOConfig(epochs=2, kl_weight=0.8, kl_target=0.02).make(torch.zeros(3))
    objective = Stub(kl)
    _, found = update.step(objective, np.random.default_rng(0), timer)
    assert [weight for _, weight, _ in objective.asked] == [0.8, 0.8]
    assert found["kl_weight"] == 0.8, "what was used"
    objective = Stub(kl)
    _, found = update.step(objective, np.random.default_rng(0), timer)
    assert [weight for _, weight, _ in objective.asked] == [0.8 * factor] * 2
    assert found["kl_weight"] == 0.8 * factor


@pytest.mark.parametrize(("kl", "most"), [(0.0, 2.0**-20), (5.0, 2.0**20)])
def test_the_kl_weight_has_bounds(timer, kl, most):
    """So that it never becomes 0, and needs no more than 40 updates from one end to the other."""
    update = PPOConfig(epochs=1, kl_weight=0.8, kl_target=0.02).make(torch.zeros(3))
    for _ in range(50):
        update.step(Stub(kl), np.random.default_rng(0), timer)
    assert update.kl_weight == 0.8 * most


@pytest.mark.parametrize("kl", [0.0, 5.0])
def test_without_a_target_the_kl_weight_stays(timer, kl):
    update = PPOConfig(kl_weight=0.8).make(torch.zeros(3))
    update.step(Stub(kl), np.random.default_rng(0), timer)
    assert update.step(Stub(kl), np.random.default_rng(0), timer)[1]["kl_weight"] == 0.8


def test_each_epoch_looks_at_where_the_one_before_led(timer):
    """The first at the old meta-parameters, named None; the figures are those of the first loss
    and gradient, and of the end."""
    update = PPOConfig(lr=0.5, epochs=3, inner_kl_weight=0.7).make(torch.zeros(3))
    objective = Stub(0.1)
    new, found = update.step(objective, np.random.default_rng(0), timer)
    first, second, third = (vector for vector, _, _ in objective.asked)
    assert first is None
    assert second.tolist() == pytest.approx([-0.5] * 3, rel=1e-5)  # Adam's first step
    assert third.tolist() < second.tolist()
    assert new.tolist() < third.tolist()
    assert [weight for _, _, weight in objective.asked] == [0.7] * 3
    assert found == {
        "outer_kl": 0.1,
        "improvement": 10.0 - 4.0,
        "gradient_norm": pytest.approx(3**0.5),
        "kl_weight": 0.0,
    }


def test_the_state_holds_moments_and_weight(timer):
    config = PPOConfig(epochs=2, kl_weight=1.0, kl_target=0.01)
    first, second = (config.make(torch.zeros(3)) for _ in range(2))
    assert first.state_dict()["kl_weight"].item() == 1.0
    first.step(Stub(1.0), np.random.default_rng(0), timer)
    state = first.state_dict()
    assert state["kl_weight"].item() == 2.0
    assert state["step"].item() == 2
    second.load_state_dict(state)
    one, other = (
        update.step(Stub(1.0), np.random.default_rng(0), timer) for update in (first, second)
    )
    assert torch.equal(one[0], other[0])
    assert one[1] == other[1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lr": 0.0}, "lr: expected more than 0"),
        ({"epochs": 0}, "epochs: expected at least 1"),
        ({"clip": 0.0}, "clip: expected more than 0"),
        ({"kl_weight": -1.0}, "kl_weight: expected at least 0"),
        ({"kl_target": -1.0}, "kl_target: expected at least 0"),
        ({"inner_kl_weight": -1.0}, "inner_kl_weight: expected at least 0"),
        ({"kl_target": 0.01}, "kl_weight: expected more than 0, as it adapts to kl_target"),
    ],
)
def test_bad_settings_are_refused(settings, expected):
    with pytest.raises(ConfigError, match=expected):
        PPOConfig(**settings)


@pytest.mark.parametrize("penalties", [{}, {"kl_weight": 0.8}, {"inner_kl_weight": 0.5}])
def test_minibatches_are_of_some_episodes_of_each_task(make_problem, timer, penalties):
    """Two passes over two episodes, each alone in its step: plain autograd on these episodes, with
    the divergences from the old policies there."""
    problem = make_problem(1)
    config = PPOConfig(lr=0.03, epochs=2, minibatches=2, clip=0.1, **penalties)
    new, found = config.make(problem.old).step(problem.objective(), np.random.default_rng(5), timer)
    parameter, rng = torch.nn.Parameter(problem.old.clone()), np.random.default_rng(5)
    adam = torch.optim.Adam([parameter], lr=0.03)
    for _ in range(2):
        for episode in rng.permutation(2):
            few = [each.of_episodes(torch.tensor([episode])) for each in problem.microbatches]
            loss = plain_loss(replace(problem, microbatches=few), parameter, config)
            parameter.grad = torch.autograd.grad(loss, parameter)[0]
            adam.step()
    torch.testing.assert_close(new, parameter.detach(), rtol=1e-8, atol=1e-9)
    whole = problem.objective()
    after, kl = whole.loss_and_kl(new)
    assert found["improvement"] == pytest.approx(whole.loss_and_kl(problem.old)[0] - after)
    assert found["outer_kl"] == pytest.approx(kl)


def test_more_minibatches_than_episodes_are_one_for_each(make_problem, timer):
    problem = make_problem(1)
    many, two = (
        PPOConfig(epochs=1, minibatches=number)
        .make(problem.old)
        .step(problem.objective(), np.random.default_rng(5), timer)
        for number in (9, 2)
    )
    assert torch.equal(many[0], two[0])


@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("adapts", TASK_PARAMETERS)
def test_all_steps_may_keep_the_gradients_of_the_adaptation_that_was_played(
    make_problem, timer, adapts, rule, minibatches
):
    """As a rule that is given these gradients at every step."""
    problem = make_problem(2, adapts=adapts, rule=rule, first_order=True)
    config = PPOConfig(
        lr=0.03, epochs=3, minibatches=minibatches, kl_weight=0.3, keep_gradients=True
    )
    new, found = config.make(problem.old).step(problem.objective(), np.random.default_rng(5), timer)
    problem.loop.rule = FrozenGradients(problem.loop.rule)
    reference = problem.objective()
    reference.loss_and_kl(problem.old)
    reference.with_constant_gradients = lambda: reference
    expected, other = config.make(problem.old).step(reference, np.random.default_rng(5), timer)
    torch.testing.assert_close(new, expected, rtol=1e-9, atol=1e-9)
    assert found == pytest.approx(other, rel=1e-6, abs=1e-9)
    assert float((new - problem.old).norm()) > 0.01


def test_with_kept_gradients_a_minibatch_has_a_part_of_the_episodes_before_adaptation(
    make_problem, timer
):
    """One episode in each of two steps, before and after an adaptation that is a constant shift."""
    problem = make_problem(1, first_order=True, pre_adaptation_weight=0.4)
    config = PPOConfig(lr=0.03, epochs=1, minibatches=2, clip=0.1, keep_gradients=True)
    new, _ = config.make(problem.old).step(problem.objective(), np.random.default_rng(5), timer)
    parameter = torch.nn.Parameter(problem.old.clone())
    adam = torch.optim.Adam([parameter], lr=0.03)
    for episode in np.random.default_rng(5).permutation(2):
        params, losses = unflatten(parameter, problem.meta), []
        for microbatch in problem.singles():
            shifted = {
                name: value + (microbatch.adapted[name][0] - problem.meta[name])
                for name, value in params.items()
            }
            parts = (
                (shifted, microbatch.queries[0].batch, 1.0),
                (params, microbatch.support[0], 0.4),
            )
            for each, batch, weight in parts:
                few = batch.of_episodes(torch.tensor([episode]))
                policy = problem.policy(stack(each, 1), few.obs)
                losses.append(weight * clipped_ratio(config.clip)(policy, few).sum())
        parameter.grad = torch.autograd.grad(sum(losses) / 3, parameter)[0]
        adam.step()
    torch.testing.assert_close(new, parameter.detach(), rtol=1e-8, atol=1e-9)
