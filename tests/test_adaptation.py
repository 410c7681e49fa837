"""metarl.adaptation, and the agent's adapt: inner steps on stacks of tasks that never touch."""

import numpy as np
import pytest
import torch

from envs import PointNav
from metarl.adaptation import InnerConfig, adapt, sgd_step, stack
from metarl.objectives import INNER_SURROGATES
from metarl.policies import Params

FAMILY = PointNav(horizon=6, action_scale=1.0)
TASKS = np.array([[0.4, 0.1], [-0.3, 0.2], [0.1, -0.5]])


def copy_of(params: Params) -> Params:
    return {name: value.clone() for name, value in params.items()}


def equal(one: Params, other: Params) -> bool:
    """Whether two dicts of parameters are the same bit for bit."""
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def joined(state) -> Params:
    """The parameters of all chunks of a state, (B, ...)."""
    names = state.chunks[0].params
    return {name: torch.cat([chunk.params[name] for chunk in state.chunks]) for name in names}


@pytest.mark.parametrize("surrogate", INNER_SURROGATES)
def test_a_step_goes_down_each_tasks_own_gradient(surrogate, tiny_policy, tiny_params, invent):
    """Against a loop over tasks of plain autograd of -sum weight * log pi * advantage.

    Both surrogates have this gradient where the policy is the one that acted.
    """
    params, lr = stack(tiny_params, 3), 0.3
    experience = invent(tiny_policy, params, np.random.default_rng(0))
    config = InnerConfig(lr=lr, surrogate=surrogate)
    stepped = sgd_step(tiny_policy, params, experience, config, lr)
    for task in range(3):
        leaves = {name: value.clone().requires_grad_() for name, value in tiny_params.items()}
        normal = tiny_policy(stack(leaves, 1), experience.obs[task : task + 1])
        log_prob = normal.log_prob(experience.action[task : task + 1])[0]
        loss = -(log_prob * experience.advantage[task] * experience.weight[task]).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        for (name, value), gradient in zip(leaves.items(), gradients, strict=True):
            expected = value.detach() - lr * gradient
            torch.testing.assert_close(stepped[name][task], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("first_order", [False, True])
def test_only_second_order_differentiates_the_inner_gradient(
    first_order, tiny_policy, tiny_params, invent
):
    """First order: d adapted / d params is the identity. Values are the same in both."""
    leaves = {name: value.clone().requires_grad_() for name, value in tiny_params.items()}
    experience = invent(tiny_policy, stack(tiny_params, 1), np.random.default_rng(0))
    config = InnerConfig(lr=0.3, first_order=first_order)
    adapted = adapt(tiny_policy, stack(leaves, 1), [experience], config, differentiable=True)
    plain = adapt(tiny_policy, stack(tiny_params, 1), [experience], config)
    assert equal({name: value.detach() for name, value in adapted.items()}, plain)
    cotangent = {name: torch.ones_like(value) for name, value in adapted.items()}
    pulled = torch.autograd.grad(
        list(adapted.values()), list(leaves.values()), list(cotangent.values())
    )
    is_identity = all(torch.equal(piece, torch.ones_like(piece)) for piece in pulled)
    assert is_identity == first_order


def test_a_plain_step_leaves_no_graph_and_does_not_write(tiny_policy, tiny_params, invent):
    params = stack(tiny_params, 2)
    before = copy_of(params)
    experience = invent(tiny_policy, params, np.random.default_rng(0))
    stepped = sgd_step(tiny_policy, params, experience, InnerConfig(), 0.1)
    assert equal(params, before)
    assert not any(value.requires_grad for value in (*stepped.values(), *params.values()))


def test_adapt_takes_its_steps_one_after_the_other(tiny_policy, tiny_params, invent):
    params, config = stack(tiny_params, 2), InnerConfig(lr=0.3)
    experiences = [invent(tiny_policy, params, np.random.default_rng(seed)) for seed in range(2)]
    expected = params
    for experience in experiences:
        expected = sgd_step(tiny_policy, expected, experience, config, 0.3)
    assert equal(adapt(tiny_policy, params, experiences, config), expected)
    assert equal(adapt(tiny_policy, params, [], config), params)


def adapted_and_updated(agent, play, clock, steps=2):
    """Adapt twice and update once, on episodes that do not depend on how the agent computes."""
    state, states = agent.initial_state(3), []
    for phase in range(steps):
        episodes = play(agent, agent.initial_state(3), FAMILY, TASKS, 4, phase=phase)
        state = agent.adapt(state, episodes)
        states.append(state)
    after = play(agent, agent.initial_state(3), FAMILY, TASKS, 4, phase=steps)
    diagnostics = agent.update(state, after, clock)
    return joined(states[-1]), agent.params, diagnostics


@pytest.mark.parametrize("tasks_per_chunk", [2, 3])
def test_chunks_of_tasks_agree_with_one_task_at_a_time(tasks_per_chunk, make_agent, play, clock):
    """Adapted parameters and update, float64: equal to rounding."""
    one, many = (
        adapted_and_updated(
            make_agent(FAMILY, dtype=torch.float64, tasks_per_chunk=size), play, clock
        )
        for size in (1, tasks_per_chunk)
    )
    for name in one[0]:
        torch.testing.assert_close(one[0][name], many[0][name], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(one[1][name], many[1][name], rtol=1e-6, atol=1e-8)
    assert one[2] == pytest.approx(many[2], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_do_not_change_a_bit(dtype, make_agent, play, clock):
    """Neither of the adapted parameters, nor of the update and its diagnostics."""
    one, two = (
        adapted_and_updated(make_agent(FAMILY, dtype=dtype, num_threads=threads), play, clock)
        for threads in (1, 2)
    )
    assert equal(one[0], two[0])
    assert equal(one[1], two[1])
    assert one[2] == two[2]


@pytest.mark.parametrize("tasks_per_chunk", [1, 2, 3])
def test_no_task_leaks_into_another(tasks_per_chunk, make_agent, play):
    """With other episodes for one task, the others adapt to the same bits in both steps."""
    agent = make_agent(FAMILY, tasks_per_chunk=tasks_per_chunk)
    moved = TASKS.copy()
    moved[1] = [0.5, 0.5]
    adapted = []
    for tasks in (TASKS, moved):
        state = agent.initial_state(3)
        for phase in range(2):
            state = agent.adapt(state, play(agent, state, FAMILY, tasks, 4, phase=phase))
        adapted.append(joined(state))
    for name in agent.params:
        same = [torch.equal(adapted[0][name][task], adapted[1][name][task]) for task in range(3)]
        assert same == [True, False, True], name


def test_every_adaptation_starts_from_the_meta_parameters(make_agent, play):
    """After adapting, the agent and its initial state are as before, and so is a second go."""
    agent = make_agent(FAMILY)
    meta = copy_of(agent.params)

    def adapted_once() -> Params:
        state = agent.initial_state(3)
        assert equal(joined(state), copy_of(stack(meta, 3)))
        state = agent.adapt(state, play(agent, state, FAMILY, TASKS, 4))
        return joined(agent.adapt(state, play(agent, state, FAMILY, TASKS, 4, phase=1)))

    first = adapted_once()
    assert equal(agent.params, meta)
    assert equal(adapted_once(), first)


def test_adapt_leaves_its_state_alone(make_agent, play):
    """A state adapted to twice gives the same result twice, and keeps parameters and trail."""
    agent = make_agent(FAMILY)
    episodes = play(agent, agent.initial_state(3), FAMILY, TASKS, 4)
    state = agent.adapt(agent.initial_state(3), episodes)
    before = copy_of(joined(state))
    results = [joined(agent.adapt(state, episodes)) for _ in range(2)]
    assert equal(*results)
    assert equal(joined(state), before)
    assert [len(chunk.trail) for chunk in state.chunks] == [1, 1, 1]


@pytest.mark.parametrize("lr", [0.0, 0.05])
def test_a_given_step_size_replaces_the_configured_one(lr, make_agent, play):
    """Also 0, which does not move. The step is proportional to its size."""
    agent = make_agent(FAMILY, dtype=torch.float64, inner=InnerConfig(lr=0.1))
    episodes = play(agent, agent.initial_state(3), FAMILY, TASKS, 4)
    default, given = (
        joined(agent.adapt(agent.initial_state(3), episodes, *size)) for size in ((), (lr,))
    )
    for name, value in stack(agent.params, 3).items():
        expected = value + lr / 0.1 * (default[name] - value)
        torch.testing.assert_close(given[name], expected, rtol=1e-10, atol=1e-12)
