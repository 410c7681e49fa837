"""A value function that sees the task (`value_sees_task`) in RL2 and VariBAD."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.agents.recurrent.trials import join_episodes
from metarl.config import Config
from metarl.core.errors import ConfigError
from metarl.core.params import concatenate, flatten, leaves, unflatten
from metarl.core.timer import Timer
from metarl.envs import Bandit, PointNav
from tests.agents.playing import merged, play

SEES = {"value_sees_task": True, "value_hidden": [7]}
UPDATE = {"epochs": 2, "minibatches": 2}
KINDS = {
    "rl2": {"kind": "rl2", "network": {"size": 6, **SEES}, "update": UPDATE},
    "truncated": {
        "kind": "rl2",
        "network": {"size": 6, "cell": "lstm", **SEES},
        "update": {**UPDATE, "truncate": 4},
    },
    "varibad": {
        "kind": "varibad",
        "encoder": {"size": 6, "latent": 2},
        "policy": {"hidden": [5], **SEES},
        "update": UPDATE,
        "model": {"trials": 5, "buffer": 12},
    },
}


def make(kind: str, threads: int = 1, sampling=None, **agent) -> Config:
    return Config(
        env=PointNav(horizon=5, action_scale=1.0, ends_at_goal=False),
        agent=merged(KINDS[kind], agent),
        sampling={
            "num_tasks": 4,
            "num_episodes": 2,
            "adaptation_steps": 1,
            **(sampling or {}),
        },
        threads=threads,
    )


def learn(config: Config, agent=None, first=0, last=2):
    agent = agent or config.make_agent()
    for iteration in range(first, last):
        rollouts = play(config, agent, iteration=iteration)
        if hasattr(agent, "record"):
            agent.record(iteration + 1, [episodes for _, episodes in rollouts])
        agent.update(rollouts, np.random.default_rng(iteration), Timer())
    return agent


def predictions(config: Config, agent, tasks=None):
    """What the network says on the steps of trials, by default with their own tasks."""
    trials = join_episodes([episodes for _, episodes in play(config, agent, iteration=7)])
    inputs, _ = agent._inputs_of(trials)
    if tasks is not None:
        inputs[..., -2:] = agent._tasks.normalise(tasks)[:, None]
    start = torch.zeros(len(inputs), agent.network.memory_size)
    return trials, agent.network(agent.params, torch.from_numpy(inputs), start)


@pytest.mark.parametrize("kind", KINDS)
def test_the_value_depends_on_the_task_and_the_policy_does_not(kind):
    config = make(kind)
    agent = learn(config)
    trials, own = predictions(config, agent)
    _, same = predictions(config, agent, trials.task)
    _, other = predictions(config, agent, -trials.task)
    assert torch.equal(own.value, same.value)
    assert (own.value != other.value).all()
    for policy, changed in zip(own.policy.outputs, other.policy.outputs, strict=True):
        assert torch.equal(policy, changed)
    # A memory of six and the task, or observation and belief and the task; one hidden layer.
    inputs = 6 + 2 if kind != "varibad" else 2 + 4 + 2
    assert agent.params["value.weight0"].shape == (inputs, 7)
    assert agent.params["value.weight1"].shape == (7, 1)


def test_the_gradient_of_the_value_is_that_of_differences():
    """In float64, in a direction for each parameter; the value function reaches the memory too."""
    config = make("rl2")
    agent = learn(config)
    params = {name: value.double() for name, value in agent.params.items()}
    trials = join_episodes([episodes for _, episodes in play(config, agent)])
    inputs = torch.from_numpy(agent._inputs_of(trials)[0]).double()
    memory = torch.zeros(len(inputs), agent.network.memory_size, dtype=torch.float64)

    def loss(vector):
        return agent.network(unflatten(vector, params), inputs, memory).value.square().sum()

    start = leaves({"all": flatten(params)})["all"]
    (gradient,) = torch.autograd.grad(loss(start), start)
    rng = np.random.default_rng(0)
    for name in params:
        direction = {
            other: torch.from_numpy(rng.standard_normal(value.shape)) * (other == name)
            for other, value in params.items()
        }
        v = concatenate(direction.values())
        eps = 1e-5 / float(v.norm())
        with torch.no_grad():
            expected = float(loss(start + eps * v) - loss(start - eps * v)) / (2 * eps)
        assert float(gradient @ v) == pytest.approx(expected, rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_checkpoints_do_not_change_a_bit(kind):
    config = make(kind)
    half = learn(config)
    resumed = config.make_agent(half.state_dict())
    if kind == "varibad":  # whose buffer comes from the replay log
        resumed._buffer = half._buffer
    state = half.state_dict()
    assert "tasks.mean" in state
    found = [
        learn(make(kind, threads=2), last=3),
        learn(config, resumed, first=2, last=3),
    ]
    whole = learn(config, last=3).state_dict()
    for agent in found:
        other = agent.state_dict()
        assert whole.keys() == other.keys()
        for name, value in whole.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


@pytest.mark.parametrize("kind", ["rl2", "varibad"])
def test_the_value_of_a_pull_is_that_of_the_arms(kind):
    """Of one pull of two arms nothing is known before, so its value is the policy's mean of the
    arms' probabilities."""
    config = Config(
        env=Bandit(horizon=1, num_arms=2),
        agent=merged(KINDS[kind], {"update": {"lr": 0.01}, "running_rewards": False}),
        sampling={"num_tasks": 64, "num_episodes": 4, "adaptation_steps": 0},
        threads=1,
    )
    agent = config.make_agent()
    for iteration in range(100):
        tasks = config.env.sample_tasks(np.random.default_rng(iteration), 64)
        rollouts = play(config, agent, tasks=tasks, iteration=iteration)
        if kind == "varibad":
            agent.record(iteration + 1, [episodes for _, episodes in rollouts])
        agent.update(rollouts, np.random.default_rng(iteration), Timer())
    trials = join_episodes([episodes for _, episodes in rollouts])
    inputs = torch.from_numpy(agent._inputs_of(trials)[0])
    start = torch.zeros(len(inputs), agent.network.memory_size)
    found = agent.network(agent.params, inputs, start)
    chances = found.policy.outputs[0][:, 0].softmax(-1).detach().numpy()
    expected = (chances * trials.task).sum(-1)
    error = np.abs(found.value[:, 0].detach().numpy() - expected).mean()
    assert error < 0.06  # 0.17 of a value that is the same for all tasks


def test_trials_of_several_tasks_are_refused():
    expected = r"agent\.network\.value_sees_task: expected false with sampling\.sequence"
    with pytest.raises(ConfigError, match=expected):
        make("rl2", sampling={"sequence": 2})
