"""Which configs are one experiment, and the name of their group in tracking."""

from __future__ import annotations

import pytest

import metarl
from metarl.runs.identity import group_name, settings

CONFIG = metarl.load_config("point_nav/maml_trpo")


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 7},
        {"threads": 3},
        {"device": "cuda"},
        {"iterations": 3},
        {"tracking.mode": "offline", "tracking.project": "other"},
    ],
)
def test_seeds_of_one_experiment_have_one_group(changed):
    other = metarl.load_config("point_nav/maml_trpo", **changed)
    assert group_name(other) == group_name(CONFIG)
    assert group_name(other).startswith("point_nav/maml_trpo-")


@pytest.mark.parametrize(
    "changed",
    [{"agent.inner.lr": 5}, {"inner_steps": 3}, {"env.horizon": 7}, {"num_tasks": 3}],
)
def test_other_settings_have_other_groups_though_the_label_is_the_same(changed):
    other = metarl.load_config("point_nav/maml_trpo", **changed)
    assert group_name(other) != group_name(CONFIG)


def test_settings_are_all_else():
    found = settings(CONFIG)
    assert {"method", "env.horizon", "agent.inner.lr", "checkpoint_every"} < set(found)
    assert not [path for path in found if path.split(".")[0] in ("seed", "tracking", "device")]
