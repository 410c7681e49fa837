"""metarl.adaptation: the inner loop as a library, against plain torch, task by task."""

import copy
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

import metarl
import metarl.adaptation
from metarl.adaptation import (
    SGD,
    AllParameters,
    Context,
    Head,
    InnerLoop,
    Latent,
    MetaLSTM,
    MetaSGD,
    PerLayerPerStepLR,
    batched,
    leaves,
    parameters,
)

ROOT = Path(__file__).parent.parent
B, K = 3, 6  # tasks, points of each


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Scaled(nn.Module):
    """A parameter of no dimension, one of four, and one of one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.conv = nn.Conv2d(2, 3, 3)

    def forward(self, x):
        return self.scale * torch.tanh(self.conv(x))


class Tied(nn.Module):
    """Two layers that share their weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Conditioned(nn.Module):
    """A module of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.gate = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, x, condition):
        return self.body(x) * torch.sigmoid(self.gate(condition))


class Attending(nn.Module):
    """Attention between points, in a layer that torch has a fast path for in evaluation mode."""

    def __init__(self, *, evaluation: bool) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.train(not evaluation)

    def forward(self, x):
        return self.layer(x[None])[0]


def mlp() -> nn.Sequential:
    """Two layers, float64. The first one's bias has shape (5,)."""
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def nested() -> nn.Sequential:
    inner = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.LayerNorm(4)))
    return nn.Sequential(inner, nn.Flatten(1), inner, nn.Linear(4, 2))


# --- batched ---

MODULES = {
    "linear": (lambda: nn.Linear(4, 2), [(K, 4)]),
    "no_batch": (lambda: nn.Linear(4, 2), [(4,)]),
    "convolution": (lambda: nn.Conv2d(2, 3, 3, padding=1), [(K, 2, 5, 5)]),
    "scaled": (Scaled, [(K, 2, 5, 5)]),
    "layer_norm": (lambda: nn.LayerNorm(4), [(K, 4)]),
    "batch_norm": (lambda: nn.BatchNorm1d(4, track_running_stats=False), [(K, 4)]),
    "nested": (nested, [(K, 4)]),
    "tied": (Tied, [(K, 4)]),
    "two_inputs": (Conditioned, [(K, 4), (K, 3)]),
    "attention": (lambda: Attending(evaluation=False), [(K, 4)]),
    "attention_evaluation": (lambda: Attending(evaluation=True), [(K, 4)]),
}


@pytest.mark.parametrize("name", MODULES)
def test_batched_is_a_loop_over_tasks(name):
    make, shapes = MODULES[name]
    module = make().double()
    params = {name: draw(B, *value.shape) for name, value in parameters(module).items()}
    inputs = [draw(B, *shape) for shape in shapes]
    expected = [
        functional_call(module, {n: v[b] for n, v in params.items()}, tuple(x[b] for x in inputs))
        for b in range(B)
    ]
    close(batched(module)(params, *inputs), torch.stack(expected))


@pytest.mark.parametrize("evaluation", [False, True])
def test_the_meta_gradient_goes_through_attention(evaluation):
    """Against central differences along a direction; torch's own kernels have no such gradient."""
    model, x = Attending(evaluation=evaluation).double(), draw(B, K, 4)
    forward, inner = batched(model), InnerLoop(SGD(0.1))
    start = inner.init(parameters(model))
    direction = {name: draw(*value.shape) for name, value in start.items()}

    def loss(params):
        return forward(params, x)[..., 0].square().mean(1)

    def meta_loss(meta, differentiable=False):
        state = inner.adapt(meta, [loss] * 2, B, differentiable=differentiable)
        return loss(inner.to_model_params(meta, state)).mean()

    meta = leaves(start)
    meta_loss(meta, differentiable=True).backward()
    slope = sum((meta[name].grad * direction[name]).sum() for name in meta)
    assert torch.backends.mha.get_fastpath_enabled()
    moved = [
        {name: value + sign * 1e-5 * direction[name] for name, value in start.items()}
        for sign in (1, -1)
    ]
    high, low = map(meta_loss, moved)
    torch.testing.assert_close(slope, (high - low) / 2e-5, rtol=1e-6, atol=1e-9)
    assert abs(slope) > 1e-4


def test_tasks_can_share_their_inputs():
    module, x = mlp(), draw(K, 2)
    params = {name: draw(B, *value.shape) for name, value in parameters(module).items()}
    forward = batched(module)
    close(forward(params, x.expand(B, K, 2)), forward(params, x.repeat(B, 1, 1)))


def test_the_modules_own_parameters_are_not_used():
    module, x = mlp(), draw(1, K, 2)
    own = {name: value[None] for name, value in parameters(module).items()}
    before = batched(module)(own, x)
    other = batched(mlp())
    close(other(own, x), before)


def test_dropout_draws_for_each_task_in_training_only():
    module = nn.Dropout(0.5)
    x = torch.ones(1, 100).expand(B, 100)
    dropped = batched(module)({}, x)
    assert len({tuple(row.tolist()) for row in dropped}) == B
    assert torch.equal(batched(module.eval())({}, x), x)


def test_running_statistics_are_refused():
    """Batch normalisation's buffers would have to change, for all tasks at once."""
    module = nn.BatchNorm1d(4)
    params = {name: value.expand(B, 4) for name, value in parameters(module).items()}
    with pytest.raises(RuntimeError, match="running_mean"):
        batched(module)(params, torch.randn(B, K, 4))
    assert batched(module.eval())(params, torch.randn(B, K, 4)).shape == (B, K, 4)


# --- a whole meta-gradient, by hand ---


def squared_error(prediction, target):
    """Mean squared error of each task: (B, K, C), (B, K, C) -> (B,)."""
    return (prediction - target).square().mean((1, 2))


def cross_entropy(prediction, target):
    """Cross-entropy of each task: (B, K, C), (B, K) -> (B,)."""
    losses = functional.cross_entropy(prediction.flatten(0, 1), target.flatten(), reduction="none")
    return losses.view(target.shape).mean(1)


def data(kind: str):
    """A loss, and a task's inputs and targets of points that are seen and that are new."""
    x, new_x = draw(B, K, 2), draw(B, K, 2)
    if kind == "regression":
        return squared_error, (x, draw(B, K, 3)), (new_x, draw(B, K, 3))
    labels = torch.randint(3, (2, B, K))
    return cross_entropy, (x, labels[0]), (new_x, labels[1])


def by_hand(module, start, distance, seen, new, rates, first_order=False):
    """Adapt a copy of each task's parameters in a loop, and return it with the new points' loss.

    Args:
        start: parameters that require a gradient.
        rates: per step, step sizes by name of what adapts.
    """
    adapted, losses = [], []
    for b in range(B):
        params = dict(start)

        def loss(points, params=params, b=b):
            prediction = functional_call(module, params, (points[0][b],))
            return distance(prediction[None], points[1][b][None]).sum()

        for rate in rates:
            names = list(rate)
            gradient = torch.autograd.grad(
                loss(seen), [params[n] for n in names], create_graph=not first_order
            )
            for name, piece in zip(names, gradient, strict=True):
                params[name] = params[name] - rate[name] * piece
        adapted.append(params)
        losses.append(loss(new))
    return {n: torch.stack([params[n] for params in adapted]) for n in start}, torch.stack(losses)


def by_library(module, inner, meta, distance, seen, new, steps):
    forward = batched(module)

    def loss(points):
        return lambda params: distance(forward(params, points[0]), points[1])

    state = inner.adapt(meta, [loss(seen)] * steps, num_tasks=B, differentiable=True)
    params = inner.to_model_params(meta, state)
    return params, loss(new)(params)


def compare(module, inner, distance, seen, new, rates, first_order=False):
    """Adapted parameters, losses and all meta-gradients. `rates(meta)` gives by_hand its rates."""
    meta = leaves(inner.init(parameters(module)))
    start = {name: meta[name] for name in parameters(module)}
    steps = rates(meta)
    mine = by_library(module, inner, meta, distance, seen, new, len(steps))
    hand = by_hand(module, start, distance, seen, new, steps, first_order)
    for name in start:
        close(mine[0][name], hand[0][name])
    close(mine[1], hand[1])
    wanted = list(meta.values())
    gradients = [torch.autograd.grad(losses.mean(), wanted) for _, losses in (mine, hand)]
    for one, other in zip(*gradients, strict=True):
        close(one, other)
    return dict(zip(meta, gradients[0], strict=True))


@pytest.mark.parametrize("kind", ["regression", "classification"])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_maml_is_plain_torch(kind, first_order, steps):
    module = mlp()
    rates = lambda _: [dict.fromkeys(parameters(module), 0.3)] * steps  # noqa: E731
    inner = InnerLoop(SGD(0.3), first_order=first_order)
    compare(module, inner, *data(kind), rates, first_order)


def test_first_and_second_order_are_not_the_same():
    module, (distance, seen, new) = mlp(), data("regression")
    rates = lambda _: [dict.fromkeys(parameters(module), 0.3)] * 2  # noqa: E731
    second, first = (
        compare(module, InnerLoop(SGD(0.3), first_order=fo), distance, seen, new, rates, fo)
        for fo in (False, True)
    )
    assert not torch.allclose(first["0.weight"], second["0.weight"], rtol=1e-2)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_head_is_the_last_layer(kind):
    """It alone adapts, and the layers before it have a meta-gradient all the same."""
    module = mlp()
    rates = lambda _: [{"2.weight": 0.3, "2.bias": 0.3}] * 2  # noqa: E731
    gradient = compare(
        module, InnerLoop(SGD(0.3), Head(["2.weight", "2.bias"])), *data(kind), rates
    )
    assert gradient["0.weight"].abs().min() > 0


def test_a_head_can_be_a_module_of_its_own():
    """On features computed once, outside: as learn2learn does ANIL. The body stays a module."""
    module, (distance, seen, new) = mlp(), data("regression")
    names = {"weight": "2.weight", "bias": "2.bias"}
    whole = InnerLoop(SGD(0.3), Head(names.values()))
    meta = leaves(whole.init(parameters(module)))
    by_library(module, whole, meta, distance, seen, new, 2)[1].mean().backward()

    body, head, inner = module[:2], module[2], InnerLoop(SGD(0.3))
    own = leaves(inner.init(parameters(head)))
    features = [(body(points[0]), points[1]) for points in (seen, new)]
    by_library(head, inner, own, distance, features[0], features[1], 2)[1].mean().backward()
    for name, full in names.items():
        close(own[name].grad, meta[full].grad)
    for name, value in body.named_parameters():
        close(value.grad, meta[name].grad)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_meta_sgd_learns_a_step_size_of_each_number(kind):
    module = mlp()

    def rates(meta):
        assert meta["lr:0.weight"].shape == (5, 2)
        return [{name: meta[f"lr:{name}"] for name in parameters(module)}] * 2

    gradient = compare(module, InnerLoop(MetaSGD(0.3)), *data(kind), rates)
    assert gradient["lr:0.weight"].abs().min() > 0


def image_data():
    x, new_x = draw(B, K, 2, 5, 5), draw(B, K, 2, 5, 5)
    distance = lambda prediction, target: (prediction - target).square().mean((1, 2, 3, 4))  # noqa: E731
    return distance, (x, draw(B, K, 3, 3, 3)), (new_x, draw(B, K, 3, 3, 3))


@pytest.mark.parametrize("steps", [1, 3])
def test_layer_step_sizes_for_any_shape(steps):
    """For tensors of 0, 1 and 4 dimensions; a third step takes the second one's sizes."""
    module = Scaled().double()

    def rates(meta):
        assert meta["lr:scale"].shape == (2,)
        assert meta["lr:conv.weight"].shape == (2, 1, 1, 1, 1)
        rows = (0, 1, 1)[:steps]
        return [{name: meta[f"lr:{name}"][row] for name in parameters(module)} for row in rows]

    gradient = compare(module, InnerLoop(PerLayerPerStepLR(0.3, 2)), *image_data(), rates)
    assert (gradient["lr:scale"] != 0).tolist() == [True, steps > 1]


@pytest.mark.parametrize("rule", [MetaSGD(0.3), MetaLSTM(0.3)])
@pytest.mark.parametrize("task_parameters", [AllParameters(), Head(["scale", "conv.bias"])])
def test_rules_begin_as_gradient_descent_for_any_shape(rule, task_parameters):
    module, (distance, seen, new) = Scaled().double(), image_data()
    results = []
    for inner in (InnerLoop(SGD(0.3), task_parameters), InnerLoop(rule, task_parameters)):
        meta = leaves(inner.init(parameters(module)))
        params, losses = by_library(module, inner, meta, distance, seen, new, 3)
        own = [value for name, value in meta.items() if ":" in name]
        if own:
            gradients = torch.autograd.grad(losses.mean(), own, retain_graph=True)
            assert all(piece.isfinite().all() and piece.any() for piece in gradients)
        results.append((params, losses))
    close(results[1], results[0])


def test_a_latent_step_goes_through_its_decoder():
    """x' = x - lr * D' D g for the gradient g of all parameters, D the decoder."""
    module, (distance, seen, _) = mlp(), data("regression")
    inner = InnerLoop(SGD(0.3), Latent(4))
    meta = inner.init(parameters(module))
    forward = batched(module)
    loss = lambda params: distance(forward(params, seen[0]), seen[1])  # noqa: E731
    state = inner.adapt(meta, [loss], num_tasks=B)
    assert state.fast_params["latent"].shape == (B, 1, 4)
    start = {name: value.expand(B, *value.shape) for name, value in parameters(module).items()}
    start = {name: value.clone().requires_grad_() for name, value in start.items()}
    gradient = torch.autograd.grad(loss(start).sum(), list(start.values()))
    flat = torch.cat([piece.flatten(1) for piece in gradient], 1)
    decoder = torch.cat([meta[f"latent:decoder.{name}"] for name in start], 1)
    expected = torch.cat([value.flatten(1) for value in start.values()], 1)
    expected = expected - 0.3 * flat @ decoder.T @ decoder
    params = inner.to_model_params(meta, state)
    close(torch.cat([value.flatten(1) for value in params.values()], 1), expected)


def test_a_context_is_a_further_input_of_an_nn_linear():
    """Whose bias is (units,): against a network that is given [x, context], task by task."""
    module, (distance, seen, new) = mlp(), data("regression")
    inner = InnerLoop(SGD(0.3), Context(4, bias="0.bias"))
    meta = leaves(inner.init(parameters(module)))
    _, mine = by_library(module, inner, meta, distance, seen, new, 2)

    def loss(points, b, context):
        x = torch.cat([points[0][b], context.expand(K, 4)], 1)
        weight = torch.cat([meta["0.weight"], meta["context:weight"].T], 1)
        hidden = torch.tanh(functional.linear(x, weight, meta["0.bias"]))
        prediction = functional.linear(hidden, meta["2.weight"], meta["2.bias"])
        return distance(prediction[None], points[1][b][None]).sum()

    hand = []
    for b in range(B):
        context = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        for _ in range(2):
            gradient = torch.autograd.grad(loss(seen, b, context), context, create_graph=True)
            context = context - 0.3 * gradient[0]
        hand.append(loss(new, b, context))
    close(mine, torch.stack(hand))
    wanted = list(meta.values())
    for one, other in zip(
        torch.autograd.grad(mine.mean(), wanted),
        torch.autograd.grad(torch.stack(hand).mean(), wanted),
        strict=True,
    ):
        close(one, other)


# --- what holds for all task parameters and rules ---

TASK_PARAMETERS = {
    "all": AllParameters(),
    "head": Head(["2.weight", "2.bias"]),
    "context": Context(4, bias="0.bias"),
    "latent": Latent(4),
}
RULES = {
    "sgd": SGD(0.1),
    "meta_sgd": MetaSGD(0.1),
    "lslr": PerLayerPerStepLR(0.1, 2),
    "meta_lstm": MetaLSTM(0.1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("task_parameters", TASK_PARAMETERS)
@pytest.mark.parametrize("rule", RULES)
def test_plain_adaptation_leaves_no_graph_and_everything_else_alone(rule, task_parameters, dtype):
    """It lowers the loss, in the parameters' own dtype, and does not touch them or the module."""
    module = mlp().to(dtype)
    before = copy.deepcopy(module.state_dict())
    inner = InnerLoop(RULES[rule], TASK_PARAMETERS[task_parameters])
    meta = leaves(inner.init(parameters(module)))
    meta_before = {name: value.detach().clone() for name, value in meta.items()}
    forward, x, y = batched(module), draw(B, K, 2).to(dtype), draw(B, K, 3).to(dtype)
    loss = lambda params: squared_error(forward(params, x), y)  # noqa: E731
    state = inner.adapt(meta, [loss] * 3, num_tasks=B)
    tensors = [*state.fast_params.values(), *state.optimizer_state.values()]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert {tensor.dtype for tensor in tensors} == {dtype}
    params = inner.to_model_params(meta, state)
    assert {value.dtype for value in params.values()} == {dtype}
    shapes = {name: (B, *value.shape) for name, value in module.named_parameters()}
    assert {name: tuple(value.shape) for name, value in params.items()} == shapes
    assert (loss(params) < loss(inner.to_model_params(meta, inner.init_state(meta, B)))).all()
    assert all(torch.equal(meta[name], value) for name, value in meta_before.items())
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    assert all(value.grad is None for value in (*meta.values(), *module.parameters()))


@pytest.mark.parametrize("rule", RULES)
def test_a_loss_need_not_touch_every_parameter(rule):
    """Here it sees the first layer only: the second stays, and its meta-gradient is that of 0."""
    module = mlp()
    inner = InnerLoop(RULES[rule])
    meta = leaves(inner.init(parameters(module)))
    first, x = batched(module[0]), draw(B, K, 2)

    def loss(params):
        own = {name.removeprefix("0."): params[name] for name in ("0.weight", "0.bias")}
        return first(own, x).square().mean((1, 2))

    state = inner.adapt(meta, [loss] * 2, num_tasks=B, differentiable=True)
    params = inner.to_model_params(meta, state)
    close(params["2.weight"], meta["2.weight"].expand(B, 3, 5))
    assert not torch.equal(params["0.weight"], meta["0.weight"].expand(B, 5, 2))
    gradients = torch.autograd.grad(
        loss(params).mean(), list(meta.values()), materialize_grads=True
    )
    gradient = dict(zip(meta, gradients, strict=True))
    assert not gradient["2.weight"].any()
    assert gradient["0.weight"].any()


def test_a_loss_can_be_anything_of_the_parameters():
    """Without a module at all, on tensors of no dimension: f(x) = (x - target)^2, lr 0.5, exact."""
    inner = InnerLoop(SGD(0.5))
    meta = inner.init({"x": torch.tensor(0.0)})
    target = torch.tensor([1.0, -2.0])
    state = inner.adapt(meta, [lambda params: (params["x"] - target).square()], num_tasks=2)
    assert state.fast_params["x"].tolist() == [1.0, -2.0]


# --- what is written about it ---


def test_the_code_of_library_md_runs():
    """All Python blocks of the page, one after the other."""
    text = (ROOT / "docs/library.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    names: dict = {}
    for block in blocks:
        exec(block, names)  # noqa: S102
    assert names["after"] < names["before"] / 2


def test_the_code_of_the_docstring_runs():
    doc = metarl.adaptation.__doc__ or ""
    code = textwrap.dedent("\n".join(line for line in doc.splitlines() if line.startswith("    ")))
    names = {name: getattr(metarl.adaptation, name) for name in metarl.adaptation.__all__}
    names |= {"torch": torch, "nn": nn, "x": torch.randn(B, K, 2), "y": torch.randn(B, K, 1)}
    names["new_x"] = torch.randn(B, 4, 2)
    exec(code, names)  # noqa: S102
    assert names["prediction"].shape == (B, 4, 1)
    assert names["prediction"].requires_grad


def test_a_loss_that_averages_over_the_tasks_is_refused():
    """It would divide every step by the number of tasks."""
    model = nn.Linear(2, 1)
    loop, forward = InnerLoop(SGD(0.1)), batched(model)
    meta, x = loop.init(parameters(model)), torch.randn(B, K, 2)
    with pytest.raises(ValueError, match="do not average over the tasks"):
        loop.step(meta, loop.init_state(meta, B), lambda params: forward(params, x).square().mean())


@pytest.mark.parametrize("task_parameters", [Head(["2.weigth"]), Context(4, bias="0.bais")])
def test_a_name_that_the_model_does_not_have_is_refused(task_parameters):
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    with pytest.raises(metarl.UserError, match=r"the model has no parameter .* \(nearest: "):
        InnerLoop(SGD(0.1), task_parameters).init(parameters(model))
