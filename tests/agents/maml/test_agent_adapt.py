"""metarl.agents.maml.agent: adaptation, in training and outside, whatever the microbatches."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from metarl.agents.base import Rollout
from metarl.agents.maml.inner_config import InnerConfig
from metarl.config import Config
from metarl.core.params import Params, stack
from metarl.envs import PointNav
from tests.agents.maml.parameters import copy_of, equal, joined

FAMILY = PointNav(horizon=6, action_scale=1.0)
TASKS = np.array([[0.4, 0.1], [-0.3, 0.2], [0.1, -0.5]])


def adapted_and_updated(agent, play, timer, steps=2):
    """Adapt twice and update once, on episodes that do not depend on how the agent computes."""
    state = agent.initial_state(3, training=True)
    for step in range(steps):
        episodes = play(agent, agent.initial_state(3), FAMILY, TASKS, 4, adaptation_step=step)
        state = agent.adapt(state, episodes)
    episodes = play(agent, agent.initial_state(3), FAMILY, TASKS, 4, adaptation_step=steps)
    diagnostics = agent.update([Rollout(state, episodes)], np.random.default_rng(0), timer)
    return joined(state), agent.meta, diagnostics


@pytest.mark.parametrize("tasks_per_microbatch", [2, 3])
def test_microbatches_of_tasks_agree_with_one_task_at_a_time(
    tasks_per_microbatch, make_agent, play, timer
):
    """Adapted parameters and update, float64: equal to rounding."""
    one, many = (
        adapted_and_updated(
            make_agent(FAMILY, dtype=torch.float64, tasks_per_microbatch=size), play, timer
        )
        for size in (1, tasks_per_microbatch)
    )
    for name in one[0]:
        torch.testing.assert_close(one[0][name], many[0][name], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(one[1][name], many[1][name], rtol=1e-6, atol=1e-8)
    assert one[2] == pytest.approx(many[2], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_do_not_change_a_bit(dtype, make_agent, play, timer):
    """Neither of the adapted parameters, nor of the update and its diagnostics."""
    one, two = (
        adapted_and_updated(make_agent(FAMILY, dtype=dtype, num_threads=threads), play, timer)
        for threads in (1, 2)
    )
    assert equal(one[0], two[0])
    assert equal(one[1], two[1])
    assert one[2] == two[2]


@pytest.mark.parametrize("tasks_per_microbatch", [1, 2, 3])
def test_no_task_leaks_into_another(tasks_per_microbatch, make_agent, play):
    """With other episodes for one task, the others adapt to the same bits in both steps."""
    agent = make_agent(FAMILY, tasks_per_microbatch=tasks_per_microbatch)
    moved = TASKS.copy()
    moved[1] = [0.5, 0.5]
    adapted = []
    for tasks in (TASKS, moved):
        state = agent.initial_state(3, training=True)
        for step in range(2):
            state = agent.adapt(state, play(agent, state, FAMILY, tasks, 4, adaptation_step=step))
        adapted.append(joined(state))
    for name in agent.meta:
        same = [torch.equal(adapted[0][name][task], adapted[1][name][task]) for task in range(3)]
        assert same == [True, False, True], name


def test_every_adaptation_starts_from_the_meta_parameters(make_agent, play):
    """After adapting, the agent and its initial state are as before, and so is a second go."""
    agent = make_agent(FAMILY)
    meta = copy_of(agent.meta)

    def adapted_once() -> Params:
        state = agent.initial_state(3, training=True)
        assert equal(joined(state), copy_of(stack(meta, 3)))
        state = agent.adapt(state, play(agent, state, FAMILY, TASKS, 4))
        return joined(agent.adapt(state, play(agent, state, FAMILY, TASKS, 4, adaptation_step=1)))

    first = adapted_once()
    assert equal(agent.meta, meta)
    assert equal(adapted_once(), first)


def test_the_support_is_what_was_adapted_from_step_by_step(make_agent, play):
    """In order, each with the probabilities by the policy that acted."""
    agent = make_agent(FAMILY, tasks_per_microbatch=3)
    state = agent.initial_state(3, training=True)
    for step in range(3):
        (before,) = state.microbatches
        episodes = play(agent, state, FAMILY, TASKS, 4, adaptation_step=step)
        state = agent.adapt(state, episodes)
        (microbatch,) = state.microbatches
        assert len(microbatch.support) == microbatch.inner_state.step == step + 1
        obs, action = (
            torch.from_numpy(array).flatten(1, 2) for array in (episodes.obs, episodes.action)
        )
        assert torch.equal(microbatch.support[step].obs, obs)
        expected = agent.policy(before.params, obs).log_prob(action)
        assert torch.equal(microbatch.support[step].log_prob, expected)
        assert all(
            one is other for one, other in zip(microbatch.support, before.support, strict=False)
        )


def test_adapt_leaves_its_state_alone(make_agent, play):
    """A state that is adapted twice gives the same result twice, and keeps its own values."""
    agent = make_agent(FAMILY)
    episodes = play(agent, agent.initial_state(3), FAMILY, TASKS, 4)
    state = agent.adapt(agent.initial_state(3), episodes)
    before = copy_of(joined(state))
    results = [joined(agent.adapt(state, episodes)) for _ in range(2)]
    assert equal(*results)
    assert equal(joined(state), before)
    assert [len(microbatch.support) for microbatch in state.microbatches] == [1, 1, 1]


# --- the step sizes of an adaptation ---


def steps_taken(agent, episodes, num_adaptations: int, *, training: bool = False) -> list[float]:
    """The length of each step of task 0 on the same episodes, in units of the first.

    For a tiny step size the gradient stays what it is.
    """
    state = agent.initial_state(3, training=training)
    points = [joined(state)]
    for _ in range(num_adaptations):
        state = agent.adapt(state, episodes)
        points.append(joined(state))
    lengths = [
        float((after["bias0"][0] - before["bias0"][0]).norm()) for before, after in pairwise(points)
    ]
    return [length / lengths[0] for length in lengths]


@pytest.fixture
def linear(make_agent, play):
    """Makes a linear agent with tiny steps, and the episodes that its meta-parameters play."""

    def linear(**settings):
        inner = InnerConfig(lr=1e-6, **settings)
        agent = make_agent(FAMILY, dtype=torch.float64, hidden=(), inner=inner)
        return agent, play(agent, agent.initial_state(3), FAMILY, TASKS, 4)

    return linear


@pytest.mark.parametrize(
    ("schedule", "scales"),
    [
        ("halving", [1.0, 0.5, 0.5]),
        ("geometric", [1.0, 0.5, 0.25]),
        ("constant", [1.0, 1.0, 1.0]),
    ],
)
def test_the_schedule_scales_the_steps_outside_training(linear, schedule, scales):
    agent, episodes = linear(test_lr_schedule=schedule)
    assert steps_taken(agent, episodes, 3) == pytest.approx(scales, rel=1e-3)
    assert steps_taken(agent, episodes, 3, training=True) == pytest.approx([1.0] * 3, rel=1e-3)


def test_steps_that_training_had_are_whole_outside_it_too(play):
    """Three in a config that trains by two: the third one is halved."""
    sampling = {"num_tasks": 3, "num_episodes": 4, "adaptation_steps": 2, "sequence": 2}
    settings = {"policy": {"hidden": []}, "inner": {"lr": 1e-3}}
    agent = Config(env=FAMILY, sampling=sampling, agent=settings).make_agent()
    episodes = play(agent, agent.initial_state(3), FAMILY, TASKS, 4)
    assert steps_taken(agent, episodes, 3) == pytest.approx([1.0, 1.0, 0.5], rel=0.05)


def test_a_scaled_step_is_a_share_of_the_whole_one(make_agent, play):
    """The second step outside training against that in training, from the same state."""
    agent = make_agent(FAMILY, dtype=torch.float64)
    episodes = play(agent, agent.initial_state(3), FAMILY, TASKS, 4)
    states = [agent.adapt(agent.initial_state(3, training=t), episodes) for t in (True, False)]
    before = joined(states[0])
    assert equal(joined(states[1]), before), "the first step is whole"
    whole, half = (joined(agent.adapt(state, episodes)) for state in states)
    for name, value in before.items():
        expected = value + 0.5 * (whole[name] - value)
        torch.testing.assert_close(half[name], expected, rtol=1e-10, atol=1e-12)


def test_the_next_task_begins_the_schedule_anew_from_the_adapted_parameters(make_agent, play):
    agent = make_agent(FAMILY)
    episodes = play(agent, agent.initial_state(3), FAMILY, TASKS, 4)
    state = agent.adapt(agent.adapt(agent.initial_state(3), episodes), episodes)
    following = agent.next_task(state)
    assert (state.num_adaptations, following.num_adaptations) == (2, 0)
    assert equal(joined(following), joined(state))
    whole = agent.adapt(following, episodes)
    assert whole.num_adaptations == 1
    before = joined(state)
    for name, value in joined(agent.adapt(state, episodes)).items():
        expected = before[name] + 0.5 * (joined(whole)[name] - before[name])
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("adapts", ["all", "head", "context", "latent", "nothing"])
def test_only_an_agent_of_which_nothing_adapts_has_a_limit_of_adaptations(make_agent, adapts):
    agent = make_agent(FAMILY, inner=InnerConfig(adapts=adapts))
    assert agent.max_adaptations == (0 if adapts == "nothing" else None)


def test_the_rule_of_an_agent_sees_the_tasks_loss(make_agent, play):
    """The negative mean reward per step of each task, in the units of the rewards: with lr + the
    loss times its factor for a step size."""
    settings = {"dtype": torch.float64, "tasks_per_microbatch": 3}
    plain = make_agent(FAMILY, inner=InnerConfig(lr=1.0), **settings)
    scaled = make_agent(FAMILY, inner=InnerConfig(lr=0.2, loss_scaled_lr=0.3), **settings)
    episodes = play(plain, plain.initial_state(3), FAMILY, TASKS, 4)
    reward = episodes.reward.astype(np.float64)
    sizes = 0.2 - 0.3 * np.array([r[m].mean() for r, m in zip(reward, episodes.mask, strict=True)])
    assert sizes.min() > 0
    assert np.ptp(sizes) > 0.01
    before = stack(plain.meta, 3)
    one, other = (
        joined(agent.adapt(agent.initial_state(3), episodes)) for agent in (plain, scaled)
    )
    for name, value in before.items():
        size = torch.from_numpy(sizes).view(-1, 1, 1)
        expected = value + size * (one[name] - value)
        torch.testing.assert_close(other[name], expected, rtol=1e-9, atol=1e-11)


# --- the update ---


def test_an_update_learns_from_the_last_rollout_which_holds_the_earlier_ones(
    make_agent, play, timer
):
    """Alone or after the others, to the bit; the random stream is not drawn from."""
    found = []
    for first in (0, 1):
        agent, rng = make_agent(FAMILY, inner_steps=2), np.random.default_rng(0)
        state, rollouts = agent.initial_state(3, training=True), []
        for step in range(3):
            episodes = play(agent, state, FAMILY, TASKS, 4, adaptation_step=step)
            rollouts.append(Rollout(state, episodes))
            state = agent.adapt(state, episodes)
        metrics = agent.update(rollouts if first == 0 else rollouts[-1:], rng, timer)
        assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
        found.append((metrics, agent.meta))
    assert found[0][0] == found[1][0]
    assert equal(found[0][1], found[1][1])
