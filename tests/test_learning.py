"""Learning, end to end and small: MAML-TRPO learns to adapt, and the baseline really fits."""

from __future__ import annotations

import os

import numpy as np
import pytest

from envs import HalfCheetahVel, PointNav
from metarl.adaptation import InnerConfig
from metarl.agents.gradient import GradientAgent
from metarl.experience import ReturnConfig, make_experience
from metarl.rollout import collect
from metarl.stopwatch import Stopwatch
from metarl.streams import Purpose, stream

NUM_THREADS = min(2, os.cpu_count() or 1)


def returns_by_step(agent: GradientAgent, family, tasks, num_episodes: int) -> np.ndarray:
    """Mean returns before and after one adaptation step, at tasks of no training, (2,)."""
    state, means = agent.initial_state(len(tasks)), []
    env = family.make_batch(len(tasks) * num_episodes)
    for phase in range(2):
        episodes = rollouts(agent, state, env, tasks, Purpose.EVALUATION_EPISODES, 0, phase)
        means.append(episodes.returns.mean())
        if phase == 0:
            state = agent.adapt(state, episodes)
    return np.array(means)


def rollouts(agent, state, env, tasks, purpose: Purpose, iteration: int, phase: int):
    num_episodes = env.num_episodes // len(tasks)
    rngs = [
        stream(1, purpose, iteration=iteration, phase=phase, task=task, episode=episode)
        for task in range(len(tasks))
        for episode in range(num_episodes)
    ]
    return collect(env, agent.actor(state), tasks, rngs, Stopwatch())


def train(agent, family, num_iterations: int, num_tasks: int, num_episodes: int) -> list[dict]:
    """MAML-TRPO with one inner step; returns the diagnostics of each iteration."""
    env, diagnostics = family.make_batch(num_tasks * num_episodes, NUM_THREADS), []
    for iteration in range(num_iterations):
        tasks = family.sample_tasks(stream(1, Purpose.TASKS, iteration=iteration), num_tasks)
        state = agent.initial_state(num_tasks)
        before = rollouts(agent, state, env, tasks, Purpose.TRAIN_EPISODES, iteration, 0)
        state = agent.adapt(state, before)
        after = rollouts(agent, state, env, tasks, Purpose.TRAIN_EPISODES, iteration, 1)
        diagnostics.append(agent.update(state, after, Stopwatch()))
    return diagnostics


@pytest.mark.slow
def test_maml_trpo_learns_to_adapt(make_agent):
    """On point_nav, tested on held-out goals. The best return is around -3, standing still -20.

    Adaptation gains little before training and much after it.
    """
    family = PointNav(horizon=50, action_scale=1.0)
    agent = make_agent(family, hidden=(32, 32), inner=InnerConfig(lr=0.5), num_threads=NUM_THREADS)
    tasks = family.tasks("test", 40)
    untrained = returns_by_step(agent, family, tasks, 10)
    diagnostics = train(agent, family, 40, 20, 10)
    trained = returns_by_step(agent, family, tasks, 10)
    assert trained[1] > untrained[1] + 10, "training improves the return after adaptation"
    assert trained[1] > trained[0] + 8, "adapting improves it"
    assert untrained[1] - untrained[0] < 5, "adapting improves it because of training"
    assert sum(found["line_search_rejected"] for found in diagnostics) <= 4


@pytest.mark.slow
def test_the_baseline_explains_the_returns(make_agent):
    """On half_cheetah_vel, under untrained policies, for each of the tasks."""
    family = HalfCheetahVel()
    agent = make_agent(family, hidden=(32, 32))
    tasks = family.tasks("train", 4)
    state = agent.initial_state(4)
    env = family.make_batch(4 * 10, NUM_THREADS)
    episodes = rollouts(agent, state, env, tasks, Purpose.TRAIN_EPISODES, 0, 0)
    params = {name: value.expand(4, *value.shape) for name, value in agent.params.items()}
    _, explained = make_experience(episodes, agent.policy, params, ReturnConfig(), agent.device)
    assert explained.min() > 0.5
    assert explained.max() <= 1
