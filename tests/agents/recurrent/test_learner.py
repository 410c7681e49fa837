"""metarl.agents.recurrent.learner: sequences shared out, and weights of trials."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents.recurrent.learner import encode_trials, microbatches
from metarl.agents.recurrent.trials import join_episodes
from metarl.config import Config
from metarl.envs import PointNav
from tests.agents.playing import play


@pytest.mark.parametrize(
    ("count", "steps", "expected"),
    [
        (10, 400, [10]),
        (16, 400, [8, 8]),
        (32, 50, [16, 16]),
        (80, 50, [40, 40]),
        (81, 50, [27, 27, 27]),
        (40, 800, [20, 20]),
        (17, 5000, [6, 6, 5]),
    ],
)
def test_parts_are_of_similar_size_and_smaller_if_sequences_are_long(count, steps, expected):
    rows = torch.arange(count) + 3
    parts = microbatches(rows, steps)
    assert [len(part) for part in parts] == expected
    assert torch.equal(torch.cat(parts), rows)


def weighed_batch(weight, **update):
    """The learner of RL2, parameters in float64 and the batch of four trials of 10 steps."""
    config = Config(
        env=PointNav(horizon=5, action_scale=1.0, ends_at_goal=False),
        agent={"kind": "rl2", "network": {"size": 4}, "update": update},
        sampling={"num_tasks": 4, "num_episodes": 1, "adaptation_steps": 1},
        threads=1,
    )
    agent = config.make_agent()
    trials = join_episodes([episodes for _, episodes in play(config, agent)])
    weight = None if weight is None else np.array(weight)
    params = {name: value.double() for name, value in agent.params.items()}
    inputs = encode_trials(agent.encoder, trials)
    batch, _ = agent._learner.batch(params, replace(trials, weight=weight), *inputs, 0.7)
    return agent._learner, params, batch


@pytest.mark.parametrize("truncate", [0, 4])
def test_minibatches_have_the_weighted_gradient_on_average(truncate):
    """Of all trials together, also where each minibatch is one trial; weights of mean 2 are made
    weights of mean 1."""
    learner, params, batch = weighed_batch([5.0, 0.5, 1.5, 1.0], truncate=truncate)
    weight = batch.weight.unflatten(0, (4, -1)).amax((1, 2))
    torch.testing.assert_close(weight, torch.tensor([2.5, 0.25, 0.75, 0.5]).double())

    def gradient(batch, *trials):
        rows = batch.rows_of(torch.tensor(trials))
        return learner._gradient(params, batch, rows, learner._config)[1]

    whole = gradient(batch, 0, 1, 2, 3)
    mean = torch.stack([gradient(batch, trial) for trial in range(4)]).mean(0)
    torch.testing.assert_close(mean, whole)
    plain = weighed_batch(None, truncate=truncate)[2]
    each = torch.stack([gradient(plain, trial) for trial in range(4)])
    torch.testing.assert_close(weight @ each / 4, whole)
    assert float((whole - each.mean(0)).norm()) > 0.1 * float(whole.norm())


def test_equal_weights_change_no_bit():
    plain, equal = (weighed_batch(weight)[2].tensors for weight in (None, [2.0] * 4))
    assert all(torch.equal(plain[name], equal[name]) for name in plain)
