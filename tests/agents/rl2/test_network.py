"""metarl.agents.rl2.network and the recurrent memory: against torch's own cells, and derivatives in
float64."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from metarl.agents.recurrent.actor_critic import ActorCritic, to_tensors
from metarl.agents.recurrent.gru import GRUSequence
from metarl.agents.recurrent.memory import fused_gru
from metarl.agents.rl2.network import NetworkConfig, RecurrentNetwork
from metarl.core.distributions import Categorical, Normal

CELLS = ["gru", "lstm"]


def network(cell="gru", inputs=7, outputs=3, discrete=False, **config) -> RecurrentNetwork:
    actions = Discrete(outputs) if discrete else Box(-2.0, 2.0, (outputs,), np.float64)
    observations = Box(-1.0, 1.0, (inputs - outputs - 2,), np.float64)
    return RecurrentNetwork(NetworkConfig(cell=cell, size=6, **config), observations, actions)


def drawn(network: RecurrentNetwork, dtype=torch.float64, seed=0):
    """Parameters of which none is 0, inputs of 4 sequences of 7 steps, and memories."""
    rng = np.random.default_rng(seed)
    params = {
        name: value + 0.3 * torch.from_numpy(rng.standard_normal(value.shape)).to(dtype)
        for name, value in network.init(rng, dtype).items()
    }
    inputs = torch.from_numpy(rng.standard_normal((4, 7, network.memory.num_inputs))).to(dtype)
    memory = torch.from_numpy(rng.standard_normal((4, network.memory_size))).to(dtype)
    return params, inputs, memory


@pytest.mark.parametrize("cell", CELLS)
def test_the_memory_is_torchs_own(cell):
    net = network(cell)
    params, inputs, memory = drawn(net)
    own = (nn.GRU if cell == "gru" else nn.LSTM)(7, 6, batch_first=True, dtype=torch.float64)
    values = {
        "weight_ih_l0": params["memory.input_weight"].T,
        "weight_hh_l0": params["memory.weight"].T,
        "bias_ih_l0": params["memory.input_bias"],
        "bias_hh_l0": params["memory.bias"],
    }
    own.load_state_dict(values)
    start = [part.contiguous() for part in memory[None].split(6, -1)]
    outputs, last = own(inputs, start[0] if cell == "gru" else tuple(start))
    found = net(params, inputs, memory).memory
    torch.testing.assert_close(found[..., :6], outputs)
    if cell == "lstm":
        torch.testing.assert_close(found[:, -1, 6:], last[1][0])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hypernetwork", [False, True])
def test_weights_are_counted(cell, hypernetwork):
    net = network(cell, hidden=(4, 3), hypernetwork=hypernetwork)
    params = net.init(np.random.default_rng(0))
    assert net.memory.num_weights + net.head.num_weights == sum(
        each.numel() for each in params.values() if each.ndim >= 2
    )


def test_the_derivatives_of_the_gru_are_those_of_differences():
    rng = np.random.default_rng(1)
    shapes = [(5, 3, 12), (3, 4), (4, 12), (12,)]
    arguments = [torch.from_numpy(rng.standard_normal(s)).requires_grad_() for s in shapes]
    assert torch.autograd.gradcheck(GRUSequence.apply, arguments)


@pytest.mark.parametrize("cell", CELLS)
def test_sequences_can_be_cut_where_the_memory_is_carried(cell):
    net = network(cell, hidden=(4,))
    params, inputs, memory = drawn(net)
    whole = net(params, inputs, memory)
    first = net(params, inputs[:, :3], memory)
    second = net(params, inputs[:, 3:], first.memory[:, -1])
    torch.testing.assert_close(whole.value, torch.cat([first.value, second.value], 1))
    torch.testing.assert_close(whole.memory[:, 3:], second.memory)


def test_no_sequence_sees_another():
    net = network()
    params, inputs, memory = drawn(net)
    before = net(params, inputs, memory).memory
    inputs[1] += 1
    after = net(params, inputs, memory).memory
    same = [torch.equal(before[i], after[i]) for i in range(4)]
    assert same == [True, False, True, True]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("discrete", [False, True])
def test_the_initial_policy_hardly_depends_on_its_inputs(cell, discrete):
    net = network(cell, discrete=discrete, output_gain=1e-3, init_std=0.5)
    params = net.init(np.random.default_rng(0))
    _, inputs, memory = drawn(net, torch.float32)
    policy = net(params, inputs, memory).policy
    if discrete:
        assert isinstance(policy, Categorical)
        torch.testing.assert_close(policy.logits, torch.zeros(4, 7, 3), atol=0.01, rtol=0)
    else:
        assert isinstance(policy, Normal)
        torch.testing.assert_close(policy.mean, torch.zeros(4, 7, 3), atol=0.01, rtol=0)
        torch.testing.assert_close(policy.log_std.exp(), torch.full((1, 1, 3), 0.5))
    forget = params["memory.bias"][6:12]
    assert torch.equal(forget, torch.full((6,), float(cell == "lstm")))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 1.0), (-1.0, 0.0)])
def test_tanh_bounds_the_mean_on_both_sides_of_any_space(low, high):
    actions = Box(low, high, (2,), np.float64)
    head = ActorCritic(NetworkConfig(action_bound="tanh"), 4, actions)
    rng = np.random.default_rng(0)
    params = {name: 30 * value for name, value in head.init(rng).items()}
    inputs = rng.standard_normal((50, 4))
    learned = head(to_tensors(params, torch.float64), torch.from_numpy(inputs)[None])[0].outputs[0]
    assert low <= learned.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < learned.max() <= high
    acted = head.actions({name: np.float32(x) for name, x in params.items()}, inputs, None)
    np.testing.assert_allclose(acted, learned[:, 0], atol=1e-5)
    shown = head.module(params)(torch.from_numpy(inputs).float()).action
    np.testing.assert_allclose(shown.detach(), learned[:, 0], atol=1e-5)


def test_tanh_bounds_the_mean_of_the_actions():
    net = network(action_bound="tanh", output_gain=100.0)
    params, inputs, memory = drawn(net)
    mean = net(params, inputs, memory).policy.outputs[0]
    assert 1.9 < mean.abs().max() <= 2.0
    free = network(output_gain=100.0)
    torch.testing.assert_close(mean, 2 * torch.tanh(free(params, inputs, memory).policy.outputs[0]))


def test_the_standard_deviation_has_a_lower_bound():
    net = network(min_std=0.1)
    params, inputs, memory = drawn(net)
    params["policy.log_std"] = torch.tensor([-9.0, 0.0, 1.0], dtype=torch.float64)
    policy = net(params, inputs, memory).policy
    expected = torch.tensor([0.1, 1.0, np.e], dtype=torch.float64)
    torch.testing.assert_close(policy.outputs[1].exp().flatten(), expected)


def test_the_gru_of_a_gpu_is_that_of_a_cpu():
    """torch's own, here on the CPU: values and derivatives."""
    net = network()
    params, inputs, memory = drawn(net)
    found = []
    for gru in (net.memory, fused_gru):
        start = {name: value.clone().requires_grad_() for name, value in params.items()}
        states = gru(start, inputs.transpose(0, 1).contiguous(), memory)
        names = [name for name in start if name.startswith("memory.")]
        gradient = torch.autograd.grad(states.square().sum(), [start[name] for name in names])
        found.append((states, *gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_warning_of_cudnn_about_the_layout_of_weights_is_not_shown(monkeypatch):
    """Other warnings are: here they are errors."""
    net, gru = network(), torch.gru
    texts = ["RNN module weights are not part of single contiguous chunk of memory.", "other"]

    def warning_gru(*args, **settings):
        warnings.warn(texts.pop(0), stacklevel=1)
        return gru(*args, **settings)

    monkeypatch.setattr("torch.gru", warning_gru)
    params, inputs, memory = drawn(net)
    steps = inputs.transpose(0, 1).contiguous()
    assert fused_gru(params, steps, memory).shape == (*steps.shape[:2], memory.shape[1])
    with pytest.raises(UserWarning, match="other"):
        fused_gru(params, steps, memory)


@pytest.mark.cuda
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_predicts_what_a_cpu_does(cell):
    net = network(cell)
    params, inputs, memory = drawn(net)
    on_gpu = {name: value.cuda() for name, value in params.items()}
    found = net(on_gpu, inputs.cuda(), memory.cuda())
    expected = net(params, inputs, memory)
    torch.testing.assert_close(found.value.cpu(), expected.value)
    torch.testing.assert_close(found.memory.cpu(), expected.memory)
