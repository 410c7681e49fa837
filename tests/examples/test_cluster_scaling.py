"""examples.cluster_scaling: the simulated time of an iteration on a cluster."""

from __future__ import annotations

import pytest

import metarl
from examples.cluster_scaling import CALL, Measured, measure


def test_the_slowest_worker_has_the_most_tasks():
    found = Measured(8.0, 1.0, 3.0, 0.5, 10**9, 2, separate=True)
    parts = found.seconds(4, 10, 1e9)  # 3 of 10 tasks
    expected = {"episodes": 2.4, "policy": 0.3, "network": 1.0, "calls": 8 * CALL}
    assert parts == pytest.approx({**expected, "merging": 0.5, "learner": 3.0})
    together = Measured(8.0, 1.0, 3.0, 0.5, 10**9, 2, separate=False)
    assert together.seconds(4, 10, 1e9)["policy"] == 1.0


@pytest.mark.parametrize(
    ("name", "phases", "settings"),
    [
        ("point_nav/continual_maml", 5, {"agent.policy.hidden": [4], "sampling.sequence": 2}),
        ("point_nav/pearl", 3, {"sampling.adaptation_steps": 2, "agent.update.context": 4}),
    ],
)
def test_all_phases_of_other_trainings_are_measured(name, phases, settings):
    """Of sequences, and of agents that need the ids of their tasks."""
    sizes = {"num_tasks": 2, "num_episodes": 1, "env.horizon": 5}
    found = measure(metarl.load_config(name, **sizes, **settings, threads=1))
    assert found.num_phases == phases


def test_a_meta_iteration_is_measured():
    sizes = {"num_tasks": 3, "num_episodes": 2, "env.horizon": 5, "agent.policy.hidden": [4]}
    found = measure(metarl.load_config("point_nav/maml_trpo", **sizes, threads=1))
    assert found.separate
    assert found.num_phases == 2
    assert min(found.episodes, found.policy, found.learner) > 0
    assert found.merging >= 0
    # obs and last_obs (2 numbers each), action (2), reward: float32; mask, terminated, bootstrap
    steps, episodes = 2 * 3 * 2 * 5, 2 * 3 * 2
    assert found.num_bytes >= steps * 4 * (2 + 2 + 1) + steps + episodes * (2 * 4 + 2)
