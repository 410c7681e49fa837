"""metarl.agents.recurrent.hypernetwork: against ordinary networks, and derivatives in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from metarl.agents.recurrent.actor_critic import ActorCritic, ActorCriticConfig, to_tensors
from metarl.agents.recurrent.hypernetwork import HyperActorCritic, generated_layer

OBS, CONTEXT = 3, 2
ACTIONS = {"continuous": Box(-2.0, 2.0, (2,), np.float64), "discrete": Discrete(4)}

each_space = pytest.mark.parametrize("actions", ACTIONS.values(), ids=ACTIONS)


def config(**changes) -> ActorCriticConfig:
    return ActorCriticConfig(hidden=(5, 2), hypernetwork=True, **changes)


def drawn(head: ActorCritic, seed=0):
    """float64 parameters of which none is 0, and inputs of 3 steps of 4 trials."""
    rng = np.random.default_rng(seed)
    params = {
        name: value + 0.3 * torch.from_numpy(rng.standard_normal(value.shape))
        for name, value in to_tensors(head.init(rng), torch.float64).items()
    }
    return params, torch.from_numpy(rng.standard_normal((3, 4, head.num_inputs)))


@each_space
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_each_step_has_the_network_that_its_context_generates(actions, activation):
    settings = config(activation=activation)
    head = HyperActorCritic(settings, OBS, CONTEXT, actions)
    ordinary = ActorCritic(settings, OBS, actions)
    params, inputs = drawn(head)
    policy, value = head(params, inputs)
    assert value.shape == (4, 3)
    for step, trial in np.ndindex(3, 4):
        row = inputs[step, trial]
        context = torch.cat([row[OBS:], torch.ones(1, dtype=torch.float64)])
        own = {}
        for name, weight in params.items():
            if ".weight" in name:
                generated = torch.einsum("ick,c->ik", weight, context)
                own[name], own[name.replace("weight", "bias")] = generated[:-1], generated[-1]
            else:
                own[name] = weight
        wanted, wanted_value = ordinary(own, row[None, None, :OBS])
        torch.testing.assert_close(value[trial, step], wanted_value[0, 0])
        torch.testing.assert_close(policy.outputs[0][trial, step], wanted.outputs[0][0, 0])


@each_space
def test_at_first_it_is_an_ordinary_network_whatever_the_context(actions):
    head = HyperActorCritic(config(), OBS, CONTEXT, actions)
    ordinary = ActorCritic(config(), OBS, actions)
    own, plain = (
        to_tensors(each.init(np.random.default_rng(3)), torch.float64) for each in (head, ordinary)
    )
    _, inputs = drawn(head)
    policy, value = head(own, inputs)
    wanted, wanted_value = ordinary(plain, inputs[..., :OBS])
    torch.testing.assert_close(policy.outputs[0], wanted.outputs[0])
    torch.testing.assert_close(value, wanted_value)


@pytest.mark.parametrize("shape", [(2, 3, 5), (5, 3, 2)])  # products of inputs, and of outputs
def test_derivatives_are_those_of_differences(shape):
    rng = np.random.default_rng(1)
    inputs, size, _ = shape
    arguments = [
        torch.from_numpy(rng.standard_normal(each)).requires_grad_()
        for each in ((4, inputs), (4, size), shape)
    ]
    assert torch.autograd.gradcheck(generated_layer, arguments)


@pytest.mark.parametrize("bound", ["clip", "tanh"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_acting_and_the_module_are_the_learners_policy(bound, activation):
    settings = config(action_bound=bound, activation=activation)
    head = HyperActorCritic(settings, OBS, CONTEXT, ACTIONS["continuous"])
    params, inputs = drawn(head)
    wanted = head(params, inputs)[0].outputs[0].transpose(0, 1).numpy()
    arrays = {name: value.float().numpy() for name, value in params.items()}
    rows = inputs.float()
    np.testing.assert_allclose(head.actions(arrays, rows.numpy(), None), wanted, atol=1e-6)
    module = head.module(arrays)
    found = module(rows.flatten(0, 1)).action.unflatten(0, (3, 4))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
