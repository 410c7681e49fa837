"""metarl.agents.maml.inner_loop and the agent's adapt: inner steps on stacks of separate tasks."""

import numpy as np
import pytest
import torch

from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.inner_state import InnerState
from metarl.agents.maml.modules import batched, parameters
from metarl.agents.maml.surrogates import inner_surrogate
from metarl.agents.maml.update_rules import SGD, PerLayerPerStepLR
from metarl.core.errors import UserError
from metarl.core.params import leaves, stack
from metarl.envs import PointNav
from tests.agents.maml.parameters import copy_of, equal

FAMILY = PointNav(horizon=6, action_scale=1.0)
TASKS = np.array([[0.4, 0.1], [-0.3, 0.2], [0.1, -0.5]])


def loss_at(policy, batch, surrogate="likelihood_ratio"):
    """The inner loss on a batch, as a function of stacked parameters."""
    function = inner_surrogate(surrogate, decay=1.0)
    return lambda params: function(policy(params, batch.obs), batch)


@pytest.mark.parametrize("surrogate", ["likelihood_ratio", "log_likelihood"])
def test_a_step_goes_down_each_tasks_own_gradient(surrogate, tiny_policy, tiny_params, make_batch):
    """Against a loop over tasks of plain autograd of -sum weight * log pi * advantage.

    Both surrogates have this gradient where the policy is the one that acted.
    """
    lr, loop = 0.3, InnerLoop(SGD(0.3))
    batch = make_batch(tiny_policy, stack(tiny_params, 3), np.random.default_rng(0))
    state = loop.init_state(tiny_params, 3)
    stepped = loop.step(tiny_params, state, loss_at(tiny_policy, batch, surrogate))
    assert (stepped.num_tasks, stepped.step) == (3, 1)
    for row in range(3):
        start = leaves(tiny_params)
        normal = tiny_policy(stack(start, 1), batch.obs[row : row + 1])
        log_prob = normal.log_prob(batch.action[row : row + 1])[0]
        loss = -(log_prob * batch.advantage[row] * batch.weight[row]).sum()
        gradients = torch.autograd.grad(loss, list(start.values()))
        for (name, value), gradient in zip(start.items(), gradients, strict=True):
            expected = value.detach() - lr * gradient
            actual = loop.to_model_params(tiny_params, stepped)[name][row]
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("first_order", [False, True])
def test_only_second_order_differentiates_the_inner_gradient(
    first_order, tiny_policy, tiny_params, make_batch
):
    """First order: d adapted / d params is the identity. Values are the same in both."""
    start = leaves(tiny_params)
    batch = make_batch(tiny_policy, stack(tiny_params, 1), np.random.default_rng(0))
    loop = InnerLoop(SGD(0.3), first_order=first_order)
    losses = [loss_at(tiny_policy, batch)]
    adapted = loop.adapt(start, losses, 1, differentiable=True).fast_params
    plain = loop.adapt(tiny_params, losses, 1).fast_params
    assert equal({name: value.detach() for name, value in adapted.items()}, plain)
    cotangent = {name: torch.ones_like(value) for name, value in adapted.items()}
    pulled = torch.autograd.grad(
        list(adapted.values()), list(start.values()), list(cotangent.values())
    )
    is_identity = all(torch.equal(piece, torch.ones_like(piece)) for piece in pulled)
    assert is_identity == first_order


@pytest.mark.parametrize("loss_scaled_lr", [0.0, 0.2])
def test_a_trajectory_by_its_own_gradients_is_the_same(
    loss_scaled_lr, tiny_policy, tiny_params, make_batch
):
    """They are constants, and are taken at other parameters too, without any loss."""
    batch = make_batch(tiny_policy, stack(tiny_params, 2), np.random.default_rng(0))
    loop = InnerLoop(SGD(0.3, loss_scaled_lr=loss_scaled_lr), first_order=True)
    losses, rule_losses = [loss_at(tiny_policy, batch)] * 2, [torch.tensor([0.4, 0.6]).double()] * 2
    gradients = loop.gradients(tiny_params, losses, 2, rule_losses=rule_losses)
    assert not any(x.requires_grad for gradient in gradients for x in gradient.values())
    plain = loop.trajectory(tiny_params, losses, 2, rule_losses=rule_losses)

    def none(params):
        raise AssertionError("evaluated")

    shifted = {name: value + 1 for name, value in tiny_params.items()}
    for meta, shift in ((tiny_params, 0), (shifted, 1)):
        found = loop.trajectory(meta, [none] * 2, 2, rule_losses=rule_losses, gradients=gradients)
        for state, expected in zip(found, plain, strict=True):
            assert state.step == expected.step
            for name, value in expected.fast_params.items():
                torch.testing.assert_close(state.fast_params[name], value + shift)
    with pytest.raises(ValueError, match="a step with given gradients needs rule_loss"):
        loop.step(tiny_params, plain[0], none, gradient=gradients[0])


def test_a_plain_step_leaves_no_graph_and_does_not_write(tiny_policy, tiny_params, make_batch):
    """Also where the meta-parameters ask for gradients, and where gradients are switched off."""
    meta, loop = leaves(tiny_params), InnerLoop(SGD(0.1))
    before = copy_of(tiny_params)
    batch = make_batch(tiny_policy, stack(tiny_params, 2), np.random.default_rng(0))
    state = loop.init_state(meta, 2)
    stepped = loop.step(meta, state, loss_at(tiny_policy, batch))
    assert not any(value.requires_grad for value in stepped.fast_params.values())
    with torch.no_grad():
        again = loop.step(meta, state, loss_at(tiny_policy, batch))
    assert equal(again.fast_params, stepped.fast_params)
    assert equal(state.fast_params, stack(before, 2))
    assert equal({name: value.detach() for name, value in meta.items()}, before)
    assert state.step == 0


def test_adapt_takes_its_steps_one_after_the_other(tiny_policy, tiny_params, make_batch):
    loop, params = InnerLoop(SGD(0.3)), stack(tiny_params, 2)
    batches = [make_batch(tiny_policy, params, np.random.default_rng(seed)) for seed in range(2)]
    losses = [loss_at(tiny_policy, batch) for batch in batches]
    expected = [loop.init_state(tiny_params, 2)]
    for loss in losses:
        expected.append(loop.step(tiny_params, expected[-1], loss))
    trajectory = loop.trajectory(tiny_params, losses, 2)
    assert [state.step for state in trajectory] == [0, 1, 2]
    for state, wanted in zip(trajectory, expected, strict=True):
        assert equal(state.fast_params, wanted.fast_params)
    assert equal(loop.adapt(tiny_params, losses, 2).fast_params, expected[-1].fast_params)
    assert equal(loop.adapt(tiny_params, [], 2).fast_params, params)


class Counting(SGD):
    """SGD that records its arguments, and returns the step's number as its optimiser state."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self.seen = []

    def step(self, meta, fast_params, optimizer_state, gradient, loss, index):
        self.seen.append((dict(optimizer_state), loss.detach().tolist(), index))
        stepped, _ = super().step(meta, fast_params, optimizer_state, gradient, loss, index)
        return stepped, {"count": index}


def test_a_rule_gets_each_tasks_loss_its_optimizer_state_and_the_steps_number():
    """Losses (x - 1)^2 of x = 3 and x = 0, with steps of half the gradient, straight to 1."""
    rule = Counting()
    loop = InnerLoop(rule)
    meta = {"x": torch.tensor([3.0])}
    state = InnerState({"x": torch.tensor([[3.0], [0.0]])})
    for _ in range(2):
        state = loop.step(meta, state, lambda params: (params["x"][:, 0] - 1) ** 2)
    assert rule.seen == [({}, [4.0, 1.0], 0), ({"count": 0}, [0.0, 0.0], 1)]
    assert state.fast_params["x"].tolist() == [[1.0], [1.0]]
    assert (state.optimizer_state, state.step) == ({"count": 1}, 2)


def test_rule_loss_takes_the_place_of_the_loss_that_a_rule_is_given():
    """The gradient is still that of the loss, so the steps are the same."""
    rule = Counting()
    loop, meta = InnerLoop(rule), {"x": torch.tensor([3.0])}
    start = InnerState({"x": torch.tensor([[3.0], [0.0]])})

    def loss(params):
        return (params["x"][:, 0] - 1) ** 2

    plain = loop.step(meta, start, loss)
    given = loop.step(meta, start, loss, rule_loss=torch.tensor([7.0, -2.0]))
    assert [losses for _, losses, _ in rule.seen] == [[4.0, 1.0], [7.0, -2.0]]
    assert equal(given.fast_params, plain.fast_params)


def test_a_trajectory_has_a_rule_loss_for_each_step():
    rule = Counting()
    loop, meta = InnerLoop(rule), {"x": torch.tensor([3.0])}
    losses = [lambda params: (params["x"][:, 0] - 1) ** 2] * 3
    rule_losses = [torch.tensor([7.0]), None, torch.tensor([-2.0])]
    trajectory = loop.trajectory(meta, losses, 1, rule_losses=rule_losses)
    assert [losses for _, losses, _ in rule.seen] == [[7.0], [0.0], [-2.0]]
    assert [state.fast_params["x"].item() for state in trajectory] == [3.0, 1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="shorter"):
        loop.trajectory(meta, losses, 1, rule_losses=rule_losses[:2])


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_scale_is_a_factor_on_the_step(scale):
    """x = 3 on (x - 1)^2 has the gradient 4: 3 - scale * 0.25 * 4."""
    meta = {"x": torch.tensor([3.0])}
    loop = InnerLoop(SGD(0.25))
    stepped = loop.step(
        meta, loop.init_state(meta, 1), lambda params: (params["x"][:, 0] - 1) ** 2, scale=scale
    )
    assert stepped.fast_params["x"].tolist() == [[3 - scale]]


def test_init_returns_copies_without_a_graph():
    """Neither the caller's tensors, nor views that share memory with one another."""
    params = {"x": torch.ones(2, 3, requires_grad=True)}
    meta = InnerLoop(PerLayerPerStepLR(0.1, 2)).init(params)
    assert list(meta) == ["x", "lr:x"]
    assert not any(value.requires_grad for value in meta.values())
    meta["x"].zero_()
    assert params["x"].detach().tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize("first_order", [False, True])
def test_the_loop_of_the_modules_docstring_on_a_supervised_problem(first_order):
    """A torch module on sines of three tasks: against a loop over tasks of functional_call."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    model = model.double()
    x = torch.rand(3, 5, 1, dtype=torch.float64)
    y = torch.sin(3 * x + torch.tensor([0.0, 1.0, 2.0]).double().view(3, 1, 1))
    forward = batched(model)
    inner = InnerLoop(rule=SGD(lr=0.1), first_order=first_order)
    assert not any(value.requires_grad for value in parameters(model).values())
    meta = leaves(inner.init(parameters(model)))

    def loss(params):
        return (forward(params, x) - y).square().mean((1, 2))

    state = inner.adapt(meta, [loss] * 2, num_tasks=len(x), differentiable=True)
    prediction = forward(inner.to_model_params(meta, state), x)
    found = torch.autograd.grad((prediction - y).square().sum(), list(meta.values()))

    start = leaves(parameters(model))
    total = torch.zeros(()).double()
    for row in range(3):
        params = start
        for _ in range(2):
            error = torch.func.functional_call(model, params, (x[row],)) - y[row]
            gradients = torch.autograd.grad(
                error.square().mean(), list(params.values()), create_graph=True
            )
            if first_order:
                gradients = [gradient.detach() for gradient in gradients]
            params = {
                name: value - 0.1 * gradient
                for (name, value), gradient in zip(params.items(), gradients, strict=True)
            }
        expected = torch.func.functional_call(model, params, (x[row],))
        torch.testing.assert_close(prediction[row], expected, rtol=1e-12, atol=1e-13)
        total = total + (expected - y[row]).square().sum()
    expected_gradients = torch.autograd.grad(total, list(start.values()))
    for gradient, wanted in zip(found, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-12)


class Undotted(SGD):
    """Its meta-parameters would be taken for parameters of the policy."""

    def init(self, fast_params):
        return {f"lr_{name}": torch.ones(()) for name in fast_params}


class Replacing(SGD):
    """Its meta-parameters would replace the initial parameters of the policy."""

    def init(self, fast_params):
        return {name: 0 * value for name, value in fast_params.items()}


@pytest.mark.parametrize(
    ("rule", "names", "message"),
    [
        (Replacing, ("w",), "the parameter w: expected a colon, as in lr:weight0 in its name"),
        (Undotted, ("w",), "the parameter lr_w: expected a colon, as in lr:weight0 in its name"),
        (SGD, ("a:b",), "the parameter a:b: expected no colon in its name"),
    ],
)
def test_names_tell_parameters_of_the_model_from_others(rule, names, message):
    """Otherwise they would not adapt, or a step would end in a KeyError."""
    with pytest.raises(UserError, match=f"^{message}$"):
        InnerLoop(rule(0.1)).init({name: torch.zeros(2) for name in names})
