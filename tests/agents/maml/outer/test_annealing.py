"""The step sizes of metarl.agents.maml.outer.ppo and adam go to 0 where `lr_anneal` is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.agents.maml.outer.adam import AdamConfig
from metarl.agents.maml.outer.ppo import PPOConfig

UPDATES = {
    "adam": (AdamConfig, {}),
    "ppo": (PPOConfig, {"epochs": 2}),
    "ppo in minibatches": (PPOConfig, {"epochs": 2, "minibatches": 2}),
    "ppo in more minibatches than episodes": (PPOConfig, {"minibatches": 50}),
}


@pytest.mark.parametrize("name", UPDATES)
def test_the_step_size_goes_to_zero_by_updates_not_by_their_steps(make_problem, timer, name):
    """Updates of 3 start with the whole, two thirds, a third and nothing of the step size; after a
    restart too. They equal those of an update whose constant step size is set by hand."""
    cls, settings = UPDATES[name]
    problem = make_problem(1)
    objective = problem.objective()
    update = cls(lr=0.03, lr_anneal=3, **settings).make(problem.old)
    state = None
    for number, share in enumerate((1.0, 2 / 3, 1 / 3, 0.0, 0.0)):
        by_hand = cls(lr=max(0.03 * share, 1e-30), **settings).make(problem.old)
        if state is not None:
            by_hand.load_state_dict(state)
            update = cls(lr=0.03, lr_anneal=3, **settings).make(problem.old)
            update.load_state_dict(state)
        new, _ = update.step(objective, np.random.default_rng(number), timer)
        expected, _ = by_hand.step(objective, np.random.default_rng(number), timer)
        torch.testing.assert_close(new, expected, rtol=1e-12, atol=1e-12)
        assert bool((new == problem.old).all()) == (share == 0)
        state = update.state_dict()


@pytest.mark.parametrize("name", UPDATES)
def test_without_a_schedule_the_step_size_stays(make_problem, timer, name):
    cls, settings = UPDATES[name]
    problem = make_problem(1)
    update = cls(lr=0.03, **settings).make(problem.old)
    for _ in range(4):
        new, _ = update.step(problem.objective(), np.random.default_rng(0), timer)
        assert (new != problem.old).any()
