"""Fixtures of the tests of MAML."""

import numpy as np
import pytest
import torch

from metarl.agents.base import Rollout
from metarl.core.policies import CategoricalMLP, PolicyConfig
from tests.agents.maml.settings import FAMILY, TASKS


@pytest.fixture
def meta_step(play, timer):
    """One iteration of `steps` adaptations and an update, which returns the diagnostics."""

    def meta_step(agent, family=FAMILY, tasks=TASKS, steps=1, seed=0):
        state = agent.initial_state(len(tasks), training=True)
        for step in range(steps):
            episodes = play(agent, state, family, tasks, 5, seed=seed, adaptation_step=step)
            state = agent.adapt(state, episodes)
        episodes = play(agent, state, family, tasks, 5, seed=seed, adaptation_step=steps)
        return agent.update([Rollout(state, episodes)], np.random.default_rng(0), timer)

    return meta_step


@pytest.fixture
def discrete() -> dict:
    """For `make_problem`: a policy with three actions."""
    rng = np.random.default_rng(1)
    policy = CategoricalMLP(PolicyConfig(hidden=(4,)), 3, 3)
    params = {
        name: value + 0.1 * torch.from_numpy(rng.standard_normal(value.shape))
        for name, value in policy.init(rng, torch.float64).items()
    }
    return {"policy": policy, "params": params}
