"""metarl.agents.maml.update_rules: new fast parameters from their gradient."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.inner_state import InnerState
from metarl.agents.maml.surrogates import likelihood_ratio
from metarl.agents.maml.update_rules import SGD, MetaLSTM, MetaSGD, PerLayerPerStepLR, preprocess
from metarl.core.params import leaves, stack

LEARNED = {"meta_sgd": MetaSGD, "lslr": lambda lr: PerLayerPerStepLR(lr, 2)}


@pytest.fixture
def adapted(tiny_policy, tiny_params, make_batch):
    """Adapt three tasks by a rule on random batches, and return their parameters."""

    def adapted(rule, steps, dtype=torch.float64):
        params = {name: value.to(dtype) for name, value in tiny_params.items()}
        rng = np.random.default_rng(0)
        losses = []
        for _ in range(steps):
            played = make_batch(tiny_policy, stack(tiny_params, 3), rng)
            tensors = {
                name: x.to(dtype) for name, x in vars(played).items() if isinstance(x, torch.Tensor)
            }
            played = replace(played, **tensors)
            losses.append(
                lambda stacked, played=played: likelihood_ratio(
                    tiny_policy(stacked, played.obs), played
                )
            )
        loop = InnerLoop(rule)
        meta = loop.init(params)
        return loop.to_model_params(meta, loop.adapt(meta, losses, 3))

    return adapted


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", LEARNED)
def test_learned_step_sizes_begin_as_gradient_descent(adapted, rule, dtype, steps):
    """To the bit."""
    one, other = adapted(LEARNED[rule](0.1), steps, dtype), adapted(SGD(0.1), steps, dtype)
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert {value.dtype for value in one.values()} == {dtype}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_meta_lstm_begins_as_gradient_descent(adapted, dtype, steps):
    """To rounding: the step size is the sigmoid of its logit. The forget gate is exactly 1."""
    one, other = adapted(MetaLSTM(0.1), steps, dtype), adapted(SGD(0.1), steps, dtype)
    rounding = 20 * torch.finfo(dtype).eps
    for name, value in other.items():
        torch.testing.assert_close(one[name], value, rtol=rounding, atol=rounding)
        assert one[name].dtype == dtype


def two_tasks() -> dict[str, torch.Tensor]:
    return {"x": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_size_that_grows_with_the_loss_by_hand(dtype):
    """Of each task on its own: 0.5 + 0.25 * 2 = 1; 0.5 - 0.25 * 4 leads uphill, so 0."""
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=dtype)
    gradient = torch.tensor([[10.0, 20.0], [30.0, 40.0]], dtype=dtype)
    rule = SGD(0.5, loss_scaled_lr=0.25)
    assert rule.init({"x": x[0]}) == {}
    loss = torch.tensor([2.0, -4.0], dtype=dtype)
    stepped, optimizer_state = rule.step({}, {"x": x}, {}, {"x": gradient}, loss, 0)
    assert stepped["x"].tolist() == [[-9.0, -18.0], [3.0, 4.0]]
    assert stepped["x"].dtype == dtype
    assert optimizer_state == {}


def test_a_step_size_that_grows_with_the_loss_descends_its_square():
    """Half the square of the loss |x - 3|: a step of 1 leads from anywhere to the goal."""
    loop = InnerLoop(SGD(0.0, loss_scaled_lr=1.0))
    state = InnerState({"x": torch.tensor([-1.0, 2.5, 3.25, 100.0])})
    stepped = loop.step({}, state, lambda params: (params["x"] - 3).abs())
    assert stepped.fast_params["x"].tolist() == [3.0, 3.0, 3.0, 3.0]


def test_the_loss_in_a_step_size_is_a_constant():
    """x' = x - (lr + loss_scaled_lr * loss) * g: derivatives by g and x, none by loss."""
    x, g, loss = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (2.0, 3.0, 4))
    stepped, _ = SGD(0.1, loss_scaled_lr=0.5).step({}, {"x": x}, {}, {"x": g}, loss, 0)
    by_x, by_g, by_loss = torch.autograd.grad(stepped["x"], (x, g, loss), allow_unused=True)
    assert (by_x.item(), by_g.item()) == (1.0, pytest.approx(-2.1, rel=1e-12))
    assert by_loss is None


def test_meta_sgd_has_a_step_size_for_each_number():
    """Shared by the tasks: x - (0.1, 10) * gradient."""
    rule = MetaSGD(0.5)
    fast_params = {name: value[0] for name, value in two_tasks().items()}
    assert {name: lr.tolist() for name, lr in rule.init(fast_params).items()} == {
        "lr:x": [0.5, 0.5]
    }
    meta = {"lr:x": torch.tensor([0.1, 10.0])}
    gradient = {"x": torch.tensor([[10.0, 1.0], [-20.0, 2.0]])}
    stepped, optimizer_state = rule.step(meta, two_tasks(), {}, gradient, torch.zeros(2), 0)
    assert stepped["x"].tolist() == [[0.0, -8.0], [5.0, -16.0]]
    assert optimizer_state == {}


@pytest.mark.parametrize(("index", "lr"), [(0, 1.0), (1, 2.0), (2, 4.0), (3, 4.0), (9, 4.0)])
def test_per_layer_per_step_rates_are_those_of_the_step_and_then_the_last(index, lr):
    """Made for three steps."""
    rule = PerLayerPerStepLR(0.5, 3)
    own = rule.init({"w": torch.zeros(4, 2), "x": torch.zeros(2), "n": torch.tensor(0.0)})
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    assert shapes == {"lr:w": (3, 1, 1), "lr:x": (3, 1), "lr:n": (3,)}
    assert all((value == 0.5).all() for value in own.values())
    meta = {"lr:x": torch.tensor([[1.0], [2.0], [4.0]])}
    gradient = {"x": torch.tensor([[1.0, 0.0], [0.0, -1.0]])}
    stepped, _ = rule.step(meta, two_tasks(), {}, gradient, torch.zeros(2), index)
    assert stepped["x"].tolist() == [[1.0 - lr, 2.0], [3.0, 4.0 + lr]]


def test_a_loop_counts_the_steps_for_its_rule():
    """x = 0 on the loss -x, whose gradient is -1: steps of 1, 2, 2."""
    loop = InnerLoop(PerLayerPerStepLR(0.5, 2))
    meta = {"x": torch.tensor([0.0]), "lr:x": torch.tensor([[1.0], [2.0]])}
    trajectory = loop.trajectory(meta, [lambda params: -params["x"][:, 0]] * 3, 2)
    assert [state.fast_params["x"].tolist() for state in trajectory] == [
        [[x], [x]] for x in (0.0, 1.0, 3.0, 5.0)
    ]


# --- Meta-LSTM ---


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (1.0, (0.0, 1.0)),
        (-(math.e**2), (0.2, -1.0)),
        (math.exp(-9), (-0.9, 1.0)),
        (-math.exp(-11), (-1.0, -math.exp(-1))),
        (0.0, (-1.0, 0.0)),
        (1e30, (math.log(1e30) / 10, 1.0)),
    ],
)
def test_preprocess_by_hand(x, expected):
    found = preprocess(torch.tensor(x, dtype=torch.float64))
    assert [float(value) for value in found] == pytest.approx(expected, rel=1e-12)


def test_preprocess_has_no_jump_at_its_threshold():
    edge = math.exp(-10)
    below, above = (
        preprocess(torch.tensor(edge * (1 + e), dtype=torch.float64)) for e in (-1e-6, 1e-6)
    )
    for one, other in zip(below, above, strict=True):
        assert float(one) == pytest.approx(float(other), abs=1e-5)


GATES = {
    "gates:input.weight": [0.3, -0.2, 0.5, 0.1, -0.4, 0.7],
    "gates:input.bias": -1.0,
    "gates:forget.weight": [-0.1, 0.2, 0.3, -0.5, 0.4, -0.6],
    "gates:forget.bias": 3.0,
}


def test_meta_lstm_by_hand_over_two_steps():
    """Of a scalar: x' = f x - i g, with gates of [log|g| / 10, sign g, x, log|loss| / 10,
    sign loss, gate before] and f in units of sigmoid(4), so that it begins as 1."""
    rule = MetaLSTM(0.25)
    meta = {name: torch.tensor(value, dtype=torch.float64) for name, value in GATES.items()}
    x, i, f, optimizer_state = 2.0, 0.25, 1.0, {}
    fast_params = {"x": torch.tensor([x], dtype=torch.float64)}
    for index, (gradient, loss) in enumerate([(3.0, -0.5), (-0.7, 4.0)]):
        fast_params, optimizer_state = rule.step(
            meta,
            fast_params,
            optimizer_state,
            {"x": torch.tensor([gradient], dtype=torch.float64)},
            torch.tensor([loss], dtype=torch.float64),
            index,
        )
        inputs = [math.log(abs(gradient)) / 10, math.copysign(1, gradient), x]
        inputs += [math.log(abs(loss)) / 10, math.copysign(1, loss)]

        def gate(kind: str, before: float, inputs=inputs) -> float:
            weighted = zip(GATES[f"gates:{kind}.weight"], [*inputs, before], strict=True)
            return sigmoid(sum(w * v for w, v in weighted) + GATES[f"gates:{kind}.bias"])

        i, f = gate("input", i), gate("forget", f) / sigmoid(4.0)
        x = f * x - i * gradient
        assert fast_params["x"].tolist() == pytest.approx([x], rel=1e-12)
        assert optimizer_state["input.x"].tolist() == pytest.approx([i], rel=1e-12)
        assert optimizer_state["forget.x"].tolist() == pytest.approx([f], rel=1e-12)


def test_meta_lstms_gates_are_shared_and_every_number_is_on_its_own():
    """Tensors of any shape, of several tasks: each number as if it were alone, with the loss of
    its task and its own optimiser state."""
    rule = MetaLSTM(0.25)
    meta = {name: torch.tensor(value, dtype=torch.float64) for name, value in GATES.items()}
    rng = np.random.default_rng(0)

    def draw() -> dict[str, torch.Tensor]:
        shapes = {"w": (2, 3, 4), "b": (2, 1, 4), "n": (2,)}
        return {n: torch.from_numpy(np.array(rng.standard_normal(s))) for n, s in shapes.items()}

    start, gradients = draw(), [draw() for _ in range(2)]
    losses = torch.from_numpy(rng.standard_normal((2, 2)))

    def run(fast_params, gradients, losses):
        optimizer_state = {}
        for index, (gradient, loss) in enumerate(zip(gradients, losses, strict=True)):
            fast_params, optimizer_state = rule.step(
                meta, fast_params, optimizer_state, gradient, loss, index
            )
        return fast_params

    together = run(start, gradients, losses)
    for name, value in start.items():
        for place in np.ndindex(value.shape):
            alone = run(
                {name: value[place].view(1)},
                [{name: gradient[name][place].view(1)} for gradient in gradients],
                losses[:, place[0]].view(2, 1),
            )
            torch.testing.assert_close(
                together[name][place], alone[name][0], rtol=1e-13, atol=1e-14
            )


@pytest.mark.parametrize("gradient", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_meta_lstm_is_finite_and_has_finite_gradients_whatever_the_gradient(gradient, dtype):
    """Also of the meta-parameters, where a gradient is 0 and its logarithm nothing."""
    rule = MetaLSTM(0.25)
    meta = leaves({name: torch.tensor(value, dtype=dtype) for name, value in GATES.items()})
    fast_params = {"x": torch.zeros(1, dtype=dtype)}
    loss = torch.zeros(1, dtype=dtype)
    stepped, _ = rule.step(
        meta, fast_params, {}, {"x": torch.tensor([gradient], dtype=dtype)}, loss, 0
    )
    assert stepped["x"].isfinite().all()
    found = torch.autograd.grad(stepped["x"].sum(), list(meta.values()))
    assert all(piece.isfinite().all() for piece in found)


def test_meta_lstms_gates_see_gradient_and_loss_as_constants_but_the_parameter_as_it_is():
    """x' = f x - i g: its derivative by g is -i, by the loss none, by x with those of the gates."""
    rule = MetaLSTM(0.25)
    meta = {name: torch.tensor(value, dtype=torch.float64) for name, value in GATES.items()}
    x, g, loss = (
        torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (2.0, 3.0, -0.5)
    )
    stepped, optimizer_state = rule.step(meta, {"x": x}, {}, {"x": g}, loss, 0)
    by_x, by_g, by_loss = torch.autograd.grad(stepped["x"], (x, g, loss), allow_unused=True)
    i, f = (optimizer_state[f"{kind}.x"].item() for kind in ("input", "forget"))
    assert by_g.item() == pytest.approx(-i, rel=1e-12)
    assert by_loss is None
    share = f * sigmoid(4.0)  # the gate itself
    slope_f = share * (1 - share) / sigmoid(4.0) * GATES["gates:forget.weight"][2]
    slope_i = i * (1 - i) * GATES["gates:input.weight"][2]
    assert by_x.item() == pytest.approx(f + slope_f * 2.0 - slope_i * 3.0, rel=1e-12)


@pytest.mark.parametrize("lr", [0.01, 0.5, 0.9])
def test_meta_lstm_begins_with_the_step_size_it_was_given(lr):
    meta = MetaLSTM(lr).init({"x": torch.zeros(3, dtype=torch.float64)})
    assert torch.sigmoid(meta["gates:input.bias"]).item() == pytest.approx(lr, rel=1e-14)
    assert not meta["gates:input.weight"].any()
    assert not meta["gates:forget.weight"].any()
    assert {name: tuple(value.shape) for name, value in meta.items()} == {
        "gates:input.weight": (6,),
        "gates:input.bias": (),
        "gates:forget.weight": (6,),
        "gates:forget.bias": (),
    }


@pytest.mark.parametrize("rule", [SGD, *LEARNED.values(), MetaLSTM])
def test_a_rule_changes_nothing_it_is_given(rule):
    """Neither fast parameters nor gradients nor its optimiser state."""
    rule = rule(0.25)
    fast_params = two_tasks()
    meta = rule.init({name: value[0] for name, value in fast_params.items()})
    gradient = {"x": torch.ones(2, 2)}
    _, optimizer_state = rule.step(meta, fast_params, {}, gradient, torch.ones(2), 0)
    kept = {name: value.clone() for name, value in optimizer_state.items()}
    rule.step(meta, fast_params, optimizer_state, gradient, torch.ones(2), 1)
    assert torch.equal(fast_params["x"], two_tasks()["x"])
    assert torch.equal(gradient["x"], torch.ones(2, 2))
    assert optimizer_state.keys() == kept.keys()
    assert all(torch.equal(optimizer_state[name], value) for name, value in kept.items())
