"""metarl.agents.maml.task_parameters: the fast parameters and the model parameters they map to."""

import numpy as np
import pytest
import torch

from metarl.agents.maml.inner_loop import InnerLoop
from metarl.agents.maml.modules import batched, parameters
from metarl.agents.maml.surrogates import likelihood_ratio
from metarl.agents.maml.task_parameters import AllParameters, Context, Head, Latent, model_params
from metarl.agents.maml.update_rules import SGD
from metarl.core.params import stack
from metarl.core.policies import GaussianMLP, PolicyConfig

HEAD = ("weight1", "bias1", "log_std")
TASK_PARAMETERS = {
    "all": AllParameters(),
    "head": Head(HEAD),
    "context": Context(4),
    "latent": Latent(3),
}
FAST_PARAMS = {
    "all": {
        "weight0": (3, 5),
        "bias0": (1, 5),
        "weight1": (5, 2),
        "bias1": (1, 2),
        "log_std": (1, 2),
    },
    "head": {"weight1": (5, 2), "bias1": (1, 2), "log_std": (1, 2)},
    "context": {"context": (1, 4)},
    "latent": {"latent": (1, 3)},
}


def meta_of(task_parameters, params):
    """The meta-parameters with those of the task parameters, drawn from a fixed stream."""
    return {**params, **task_parameters.init_meta(params, np.random.default_rng(0))}


def noisy(fast_params, seed=1):
    """Different fast parameters for each task."""
    rng = np.random.default_rng(seed)
    return {
        name: value + torch.from_numpy(rng.standard_normal(value.shape))
        for name, value in fast_params.items()
    }


@pytest.mark.parametrize("name", TASK_PARAMETERS)
def test_before_adaptation_every_task_has_the_models_parameters(name, tiny_params):
    """to_model_params(init), stacked: to the bit, as a context and a latent code begin at 0."""
    task_parameters, meta = TASK_PARAMETERS[name], meta_of(TASK_PARAMETERS[name], tiny_params)
    fast_params = task_parameters.init(meta, 3)
    assert {key: tuple(v.shape) for key, v in fast_params.items()} == {
        key: (3, *shape) for key, shape in FAST_PARAMS[name].items()
    }
    decoded = task_parameters.to_model_params(meta, fast_params)
    assert list(decoded) == list(tiny_params)
    for key, value in stack(tiny_params, 3).items():
        assert decoded[key].shape == value.shape
        assert torch.equal(decoded[key], value), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TASK_PARAMETERS)
def test_task_parameters_keep_the_models_type_and_leaves_its_names_alone(name, dtype, tiny_params):
    """Names of a task_parameters's own meta-parameters have a colon."""
    params = {key: value.to(dtype) for key, value in tiny_params.items()}
    own = TASK_PARAMETERS[name].init_meta(params, np.random.default_rng(0))
    assert all(":" in key for key in own)
    assert {value.dtype for value in own.values()} <= {dtype}
    meta = {**params, **own}
    assert model_params(meta) == params
    fast_params = TASK_PARAMETERS[name].init(meta, 2)
    decoded = TASK_PARAMETERS[name].to_model_params(meta, fast_params)
    assert {value.dtype for value in (*fast_params.values(), *decoded.values())} == {dtype}


@pytest.mark.parametrize("name", TASK_PARAMETERS)
def test_each_task_has_its_own_fast_parameters(name, tiny_params):
    """Three tasks at once equal one at a time; changing one leaves the others."""
    task_parameters, meta = TASK_PARAMETERS[name], meta_of(TASK_PARAMETERS[name], tiny_params)
    fast_params = noisy(task_parameters.init(meta, 3))
    together = task_parameters.to_model_params(meta, fast_params)
    for task in range(3):
        alone = task_parameters.to_model_params(
            meta, {key: v[task : task + 1] for key, v in fast_params.items()}
        )
        for key, value in alone.items():
            torch.testing.assert_close(together[key][task], value[0], rtol=1e-14, atol=1e-15)
    changed = {key: v.clone() for key, v in fast_params.items()}
    for value in changed.values():
        value[1] += 1
    after = task_parameters.to_model_params(meta, changed)
    for task, same in enumerate((True, False, True)):
        assert all(torch.equal(after[key][task], together[key][task]) for key in after) == same


@pytest.mark.parametrize("name", ["context", "latent"])
def test_initial_values_are_those_of_the_random_stream(name, tiny_params):
    draws = [
        TASK_PARAMETERS[name].init_meta(tiny_params, np.random.default_rng(seed))
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(draws[0][key], draws[1][key]) for key in draws[0])
    drawn = "context:weight" if name == "context" else "latent:decoder.weight0"
    assert not torch.equal(draws[0][drawn], draws[2][drawn])


# --- the head ---


def test_a_step_adapts_the_head_exactly_and_leaves_the_body(tiny_policy, tiny_params, make_batch):
    """The head steps down the gradient by its own parameters, the body is the same to the bit."""
    played = make_batch(tiny_policy, stack(tiny_params, 3), np.random.default_rng(0))

    def loss(params):
        return likelihood_ratio(tiny_policy(params, played.obs), played)

    found = {}
    for name, task_parameters in (("head", Head(tiny_policy.head)), ("all", AllParameters())):
        loop = InnerLoop(SGD(0.3), task_parameters)
        state = loop.step(tiny_params, loop.init_state(tiny_params, 3), loss)
        found[name] = loop.to_model_params(tiny_params, state)
    for name, value in stack(tiny_params, 3).items():
        expected = found["all"][name] if name in tiny_policy.head else value
        assert torch.equal(found["head"][name], expected), name
        assert not torch.equal(found["all"][name], value)


def test_the_body_is_shared_and_has_a_gradient_from_every_task(tiny_params):
    meta = {name: value.clone().requires_grad_() for name, value in tiny_params.items()}
    task_parameters = Head(HEAD)
    task_parameters.to_model_params(meta, task_parameters.init(meta, 3))["weight0"].sum().backward()
    assert torch.equal(meta["weight0"].grad, torch.full((3, 5), 3.0).double())


# --- the context ---


def test_a_context_is_a_further_input(tiny_policy, tiny_params):
    """Of a network whose first layer has the context's weights as further rows."""
    meta, task_parameters = meta_of(Context(4), tiny_params), Context(4)
    context = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 1, 4)))
    obs = torch.from_numpy(np.random.default_rng(2).standard_normal((3, 7, 3)))
    decoded = task_parameters.to_model_params(meta, {"context": context})

    wide = GaussianMLP(PolicyConfig(hidden=(5,)), 3 + 4, 2)
    weight = torch.cat([tiny_params["weight0"], meta["context:weight"]])
    enlarged = stack({**tiny_params, "weight0": weight}, 3)
    inputs = torch.cat([obs, context.expand(3, 7, 4)], -1)
    one, other = tiny_policy(decoded, obs), wide(enlarged, inputs)
    torch.testing.assert_close(one.mean, other.mean, rtol=1e-12, atol=1e-14)
    assert torch.equal(one.log_std, other.log_std)


def test_the_contexts_weights_are_spread_over_glorots_bound():
    """As of a layer from the context to the units of the first one."""
    params = {"weight0": torch.zeros(3, 50), "bias0": torch.zeros(1, 50)}
    weight = Context(30).init_meta(params, np.random.default_rng(0))["context:weight"]
    bound = np.sqrt(6 / 80)
    assert weight.shape == (30, 50)
    assert 0.95 * bound < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert abs(float(weight.mean())) < 0.03


def test_a_context_shifts_whichever_bias_it_is_given():
    """Of a torch module, whose biases are (units,): as a further input of its second layer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 4))
    task_parameters = Context(5, bias="2.bias")
    meta = InnerLoop(SGD(0.1), task_parameters).init(parameters(model))
    assert meta["context:weight"].shape == (5, 4)
    context = torch.randn(2, 1, 5)
    decoded = task_parameters.to_model_params(meta, {"context": context})
    assert decoded["2.bias"].shape == (2, 4)
    x = torch.randn(2, 6, 2)
    expected = model(x) + context @ meta["context:weight"]
    torch.testing.assert_close(batched(model)(decoded, x), expected)


# --- the latent code ---


def test_a_latent_code_is_decoded_linearly_by_hand():
    """Parameters w = (1, 2) and b = 3, and code (z1, z2): w + z1 (1, 0) + z2 (5, -1),
    b - 2 z1 + 4 z2."""
    meta = {
        "w": torch.tensor([[1.0], [2.0]]),
        "b": torch.tensor(3.0),
        "latent:start": torch.tensor([[0.5, 0.0]]),
        "latent:decoder.w": torch.tensor([[1.0, 0.0], [5.0, -1.0]]),
        "latent:decoder.b": torch.tensor([[-2.0], [4.0]]),
    }
    task_parameters = Latent(2)
    start = task_parameters.init(meta, 2)
    assert start["latent"].tolist() == [[[0.5, 0.0]]] * 2
    decoded = task_parameters.to_model_params(meta, start)
    assert decoded["w"].tolist() == [[[1.5], [2.0]]] * 2
    assert decoded["b"].tolist() == [2.0, 2.0]
    other = task_parameters.to_model_params(
        meta, {"latent": torch.tensor([[[0.0, 1.0]], [[1.0, 2.0]]])}
    )
    assert other["w"].tolist() == [[[6.0], [1.0]], [[12.0], [0.0]]]
    assert other["b"].tolist() == [7.0, 9.0]


def test_a_latent_step_is_at_first_a_projection_on_a_random_subspace():
    """The decoder's rows have length 1, and the code that all tasks begin with is 0."""
    params = {"w": torch.zeros(30, 40, dtype=torch.float64), "b": torch.zeros(1, 40).double()}
    own = Latent(6).init_meta(params, np.random.default_rng(0))
    rows = torch.cat([own["latent:decoder.w"], own["latent:decoder.b"]], -1)
    assert rows.shape == (6, 30 * 40 + 40)
    assert rows.norm(dim=1).tolist() == pytest.approx([1.0] * 6, rel=0.1)
    assert not own["latent:start"].any()
    assert own["latent:start"].shape == (1, 6)


def test_a_latent_step_by_hand():
    """Loss (w - 4)^2 at w = 1 + 2 z, z = 0: dz = 2 (w - 4) 2 = -12, a step of 0.1 leads to 1.2."""
    meta = {
        "w": torch.tensor([1.0]),
        "latent:start": torch.tensor([[0.0]]),
        "latent:decoder.w": torch.tensor([[2.0]]),
    }
    loop = InnerLoop(SGD(0.1), Latent(1))
    state = loop.step(
        meta, loop.init_state(meta, 1), lambda params: (params["w"][:, 0] - 4).square()
    )
    assert state.fast_params["latent"].tolist() == [[[pytest.approx(1.2)]]]
    assert loop.to_model_params(meta, state)["w"].tolist() == [[pytest.approx(3.4)]]


def test_a_step_of_a_bias_transformation_is_one_of_a_context_by_the_square_of_its_factor():
    """CAVIA with lr * factor^2 and MAML whose bias transformation alone adapts."""
    rng = np.random.default_rng(0)
    obs = torch.from_numpy(rng.standard_normal((3, 7, 3)))
    inside = GaussianMLP(PolicyConfig(hidden=(5,), bias_transform=(4.0, 4.0)), 3, 2)
    meta = inside.init(rng, torch.float64)
    plain = {name: x for name, x in meta.items() if not name.startswith("input")}
    outside = {**plain, "context:weight": meta["input_weight"]}
    means = []
    for policy, task_parameters, lr, start in (
        (inside, Head(["input"]), 0.1, meta),
        (GaussianMLP(PolicyConfig(hidden=(5,)), 3, 2), Context(2), 1.6, outside),
    ):
        loop = InnerLoop(SGD(lr), task_parameters)

        def loss(params, policy=policy):
            return (policy(params, obs).mean - 1).square().sum((1, 2))

        stepped = loop.step(start, loop.init_state(start, 3), loss)
        means.append(policy(loop.to_model_params(start, stepped), obs).mean)
    torch.testing.assert_close(*means, rtol=1e-12, atol=1e-12)
    before = inside(stack(meta, 3), obs).mean
    assert float((means[0] - before).abs().max()) > 0.1
