"""PEARL learns: two goals, one on each side, that only rewards tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.core.timer import Timer
from metarl.envs import PointNav
from tests.agents.pearl.test_agent import LOSSES, make, play

GOALS = np.array([[3.0, 0.0], [-3.0, 0.0], [3.0, 0.0], [-3.0, 0.0]])
UPDATE = {
    "gradient_steps": 20,
    "meta_batch": 2,
    "batch": 64,
    "context": 16,
    "warmup_iterations": 3,
    "lr": 0.003,
    "discount": 0.8,
    "target_rate": 0.02,
    "reward_scale": 10.0,
}


@pytest.mark.parametrize("encoder_loss", LOSSES)
def test_an_episode_of_experience_tells_on_which_side_the_goal_is(encoder_loss):
    """Whoever stands still has -24, whoever goes to the wrong goal less, and to the right one -3.
    A policy that does not adapt has -24 at best."""
    family = PointNav(horizon=8, ends_at_goal=False, goal_range=4.0, max_step=1.0)
    network = {"hidden": [32, 32], "encoder_hidden": [32], "latent_dim": 2}
    update = {**UPDATE, "encoder_loss": encoder_loss}
    config = make(family=family, network=network, update=update, replay_size=10_000)
    agent, returns = config.make_agent(), []
    for iteration in range(1, 41):
        rollouts = play(config, agent, iteration, tasks=GOALS, ids=np.array([0, 1, 0, 1]))
        agent.record(iteration, [episodes for _, episodes in rollouts])
        agent.update(rollouts, np.random.default_rng(iteration), Timer())
        returns.append([episodes.returns.mean() for _, episodes in rollouts])
    before, after = np.mean(returns[-10:], axis=0)
    assert after > -19
    assert after > before + 4
