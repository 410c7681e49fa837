"""metarl.core.policies: functions of stacked parameters."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary

from metarl.core.errors import ConfigError
from metarl.core.layers import glorot, orthogonal
from metarl.core.params import stack
from metarl.core.policies import (
    CategoricalMLP,
    GaussianMLP,
    PolicyConfig,
    make_policy,
)


def test_a_scale_divides_the_observations():
    """The outputs and, what adaptation follows, their gradients are those at scaled ones."""
    rng = np.random.default_rng(0)
    scale = (2.0, 6.0, 0.2)
    plain, scaled = (GaussianMLP(PolicyConfig(hidden=(6,), obs_scale=s), 3, 2) for s in ((), scale))
    params = stack(plain.init(rng, torch.float64), 4)
    params = {name: value.clone().requires_grad_() for name, value in params.items()}
    obs = torch.from_numpy(rng.standard_normal((4, 7, 3)))
    means = scaled(params, obs).mean, plain(params, obs / torch.tensor(scale)).mean
    assert torch.allclose(*means)
    grads = [torch.autograd.grad(mean.square().sum(), params["weight0"])[0] for mean in means]
    assert torch.allclose(*grads)


def test_a_bias_transformation_is_an_input_that_is_the_same_everywhere():
    """The policy is that of observations with it, times its factor, appended."""
    rng = np.random.default_rng(0)
    policy = GaussianMLP(PolicyConfig(hidden=(6,), bias_transform=(2.0, 5.0)), 3, 2)
    params = policy.init(rng, torch.float64)
    assert torch.equal(params["input"], torch.zeros(1, 2, dtype=torch.float64))
    wider = {name: x for name, x in params.items() if not name.startswith("input")}
    wider["weight0"] = torch.cat([params["weight0"], params["input_weight"]])
    params["input"] = torch.tensor([[0.5, -0.3]], dtype=torch.float64)
    obs = torch.from_numpy(rng.standard_normal((4, 7, 3)))
    appended = torch.tensor([1.0, -1.5], dtype=torch.float64).expand(4, 7, 2)
    expected = GaussianMLP(PolicyConfig(hidden=(6,)), 5, 2)(
        stack(wider, 4), torch.cat([obs, appended], -1)
    )
    assert torch.allclose(policy(stack(params, 4), obs).mean, expected.mean, rtol=1e-13)


def test_stacked_equals_one_by_one():
    rng = np.random.default_rng(0)
    policy = GaussianMLP(PolicyConfig(hidden=(6, 4)), 3, 2)
    singles = [policy.init(rng, torch.float64) for _ in range(4)]
    obs = torch.from_numpy(rng.standard_normal((4, 7, 3)))
    together = policy(
        {name: torch.stack([single[name] for single in singles]) for name in singles[0]}, obs
    )
    for task, single in enumerate(singles):
        alone = policy(stack(single, 1), obs[task : task + 1])
        assert torch.allclose(together.mean[task], alone.mean[0], rtol=1e-13)
        assert torch.equal(together.log_std[task], alone.log_std[0])


def test_the_network_is_what_it_says():
    """One hidden unit, worked by hand: mean = 2 tanh(3 x + 1) - 1, std = e^0.5."""
    policy = GaussianMLP(PolicyConfig(hidden=(1,)), 1, 1)
    values = {"weight0": 3.0, "bias0": 1.0, "weight1": 2.0, "bias1": -1.0, "log_std": 0.5}
    params = {
        name: torch.tensor([[[value]]], dtype=torch.float64) for name, value in values.items()
    }
    normal = policy(params, torch.tensor([[[0.2]]], dtype=torch.float64))
    assert float(normal.mean) == pytest.approx(2 * math.tanh(1.6) - 1, rel=1e-14)
    assert float(normal.log_std) == 0.5


@pytest.mark.parametrize("init_std", [1.0, 0.1])
def test_initial_parameters(init_std):
    """Biases 0, weights within Glorot's bound and spread over it, std as configured."""
    policy = GaussianMLP(PolicyConfig(hidden=(50, 40), init_std=init_std), 30, 6)
    params = policy.init(np.random.default_rng(0))
    assert [tuple(params[f"weight{i}"].shape) for i in range(3)] == [(30, 50), (50, 40), (40, 6)]
    for layer in range(3):
        weight = params[f"weight{layer}"]
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.9 * bound < float(weight.abs().max()) <= bound
        assert not params[f"bias{layer}"].any()
    assert torch.allclose(params["log_std"].exp(), torch.tensor(init_std))


BOUNDS = PolicyConfig(hidden=(), min_std=0.1, max_std=2.0)


@pytest.mark.parametrize(
    ("std", "clamped", "has_gradient"),
    [(0.01, 0.1, False), (0.5, 0.5, True), (1.9, 1.9, True), (5.0, 2.0, False)],
)
def test_std_bounds_are_a_clamp_without_gradient_beyond(std, clamped, has_gradient):
    """Floor and ceiling, as documented, alike in the policy and in the actor."""
    policy = GaussianMLP(BOUNDS, 1, 2)
    params = stack(policy.init(np.random.default_rng(0)), 1)
    log_std = torch.full((1, 1, 2), math.log(std), requires_grad=True)
    params = {**params, "log_std": log_std}
    obs = torch.ones(1, 3, 1)
    normal = policy(params, obs)
    assert torch.allclose(normal.log_std.exp(), torch.tensor(clamped))
    normal.log_prob(torch.full((1, 3, 2), 0.7)).sum().backward()
    assert bool((log_std.grad != 0).all()) == has_gradient
    assert bool((log_std.grad == 0).all()) == (not has_gradient)

    actor, zeros = policy.actor(params), np.zeros((1, 3, 2), np.float32)
    others = np.zeros((1, 3), np.float32), np.ones((1, 3), bool)
    spread = actor.act(obs.numpy(), zeros + 1, *others) - actor.act(obs.numpy(), zeros, *others)
    np.testing.assert_allclose(spread, clamped, rtol=1e-5)


# --- initialisation ---


@pytest.mark.parametrize("initialisation", ["glorot", "orthogonal"])
def test_gains_are_factors_on_the_initial_weights(initialisation):
    """The hidden gain on all layers but the last, which has the output gain. The draws stay."""
    plain, scaled = (
        GaussianMLP(PolicyConfig(hidden=(6, 5), initialisation=initialisation, **gains), 4, 2).init(
            np.random.default_rng(0), torch.float64
        )
        for gains in ({}, {"hidden_gain": 2.0, "output_gain": 0.25})
    )
    for name, factor in (("weight0", 2.0), ("weight1", 2.0), ("weight2", 0.25)):
        assert torch.equal(scaled[name], factor * plain[name])
    for name in ("bias0", "bias1", "bias2", "log_std"):
        assert torch.equal(scaled[name], plain[name])


def test_the_configured_initialisation_is_drawn_layer_by_layer():
    for name, draw in (("glorot", glorot), ("orthogonal", orthogonal)):
        config = PolicyConfig(hidden=(5,), initialisation=name)
        params = CategoricalMLP(config, 3, 4).init(np.random.default_rng(3), torch.float64)
        rng = np.random.default_rng(3)
        for layer, (fan_in, fan_out) in enumerate([(3, 5), (5, 4)]):
            assert np.array_equal(params[f"weight{layer}"].numpy(), draw(rng, fan_in, fan_out))
            assert params[f"weight{layer}"].is_contiguous()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("hidden_gain", 0.0, "hidden_gain: expected more than 0"),
        ("output_gain", -1.0, "output_gain: expected more than 0"),
        ("hidden", (8, 0), r"hidden\[1\]: expected at least 1, got 0"),
        ("obs_scale", (1.0, 0.0), r"obs_scale\[1\]: expected more than 0, got 0"),
        ("obs_scale", (math.inf, 1.0), r"obs_scale\[0\]: expected number, got inf"),
        ("bias_transform", (1.0, 0.0), r"bias_transform\[1\]: expected more than 0, got 0"),
    ],
)
def test_bad_policy_settings_are_refused(field, value, expected):
    with pytest.raises(ConfigError, match=expected):
        PolicyConfig(**{field: value})


def test_weights_that_no_machine_holds_are_refused_whatever_they_belong_to():
    config = PolicyConfig(hidden=(10**6,), bias_transform=(1.0,) * 6)
    with pytest.raises(ConfigError, match="layers of at most 10,000,000 weights"):
        GaussianMLP(config, 3, 2)
    GaussianMLP(config.replace(bias_transform=(1.0,) * 5), 3, 2)


# --- which policy for which actions ---


def test_the_policy_follows_from_the_action_space():
    obs = Box(-1, 1, (3,))
    gaussian = make_policy(PolicyConfig(hidden=(4,)), obs, Box(-1, 1, (2,)))
    categorical = make_policy(PolicyConfig(hidden=(4,)), obs, Discrete(5))
    assert isinstance(gaussian, GaussianMLP)
    assert isinstance(categorical, CategoricalMLP)
    assert (gaussian.sizes, categorical.sizes) == ((3, 4, 2), (3, 4, 5))
    with pytest.raises(TypeError, match="expected Box or Discrete"):
        make_policy(PolicyConfig(), obs, MultiBinary(2))


@pytest.mark.parametrize("hidden", [(), (4,), (4, 6)])
def test_the_head_is_the_last_layer_and_what_belongs_to_the_outputs(hidden):
    config, last = PolicyConfig(hidden=hidden), len(hidden)
    gaussian, categorical = GaussianMLP(config, 3, 2), CategoricalMLP(config, 3, 2)
    assert gaussian.head == (f"weight{last}", f"bias{last}", "log_std")
    assert categorical.head == (f"weight{last}", f"bias{last}")
    assert gaussian.num_layers == categorical.num_layers == last + 1


def test_the_initial_std_leaves_the_weights_as_they_are():
    """A Gaussian and a categorical policy draw the same network from the same stream."""
    config = PolicyConfig(hidden=(4,), init_std=0.5)
    gaussian, categorical = (
        cls(config, 3, 2).init(np.random.default_rng(0)) for cls in (GaussianMLP, CategoricalMLP)
    )
    assert set(gaussian) - set(categorical) == {"log_std"}
    assert all(torch.equal(gaussian[name], value) for name, value in categorical.items())


def test_the_network_gives_the_logits():
    """One hidden unit, worked by hand: (2, -1) tanh(3 x + 1) + (0.5, 0)."""
    policy = CategoricalMLP(PolicyConfig(hidden=(1,)), 1, 2)
    values = {"weight0": [[3.0]], "bias0": [[1.0]], "weight1": [[2.0, -1.0]], "bias1": [[0.5, 0]]}
    params = {name: torch.tensor([value]).double() for name, value in values.items()}
    logits = policy(params, torch.tensor([[[0.2]]], dtype=torch.float64)).logits[0, 0].tolist()
    hidden = math.tanh(1.6)
    assert logits == pytest.approx([2 * hidden + 0.5, -hidden], rel=1e-14)


def test_a_layer_is_the_sum_of_its_rows_times_its_parameters():
    """The first with scaled observations and a bias transformation."""
    rng = np.random.default_rng(0)
    config = PolicyConfig(hidden=(6, 5), obs_scale=(2.0, 6.0, 0.2), bias_transform=(2.0, 5.0))
    policy = GaussianMLP(config, 3, 2)
    params = {name: value + 0.5 for name, value in policy.init(rng, torch.float64).items()}
    params = stack(params, 4)
    obs = torch.from_numpy(rng.standard_normal((4, 7, 3)))
    inputs = policy.layer_inputs(params, obs)
    assert [each.shape[-1] for each in inputs] == [3, 6, 5]
    outputs = [*(each.atanh() for each in inputs[1:]), policy.forward(params, obs)]
    for number, (each, expected) in enumerate(zip(inputs, outputs, strict=True)):
        rows = policy.layer_rows(params, number, each)
        torch.testing.assert_close(sum(rows[name] @ params[name] for name in rows), expected)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_slope_of_an_activation_is_its_derivative(activation):
    policy = GaussianMLP(PolicyConfig(activation=activation), 3, 2)
    x = torch.linspace(-2, 2, 8, dtype=torch.float64, requires_grad=True)
    hidden = getattr(torch, activation)(x)
    (expected,) = torch.autograd.grad(hidden.sum(), x)
    torch.testing.assert_close(policy.activation_slope(hidden.detach()), expected)
