"""Fields of families are checked wherever a family is made, not only in configs."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import metarl.envs  # noqa: F401  (registers the environments)
from metarl.envs import make_family


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        (
            "half_cheetah_vel",
            {"velocity_of": "center_of_mass"},
            r"velocity_of: expected one of torso, centre_of_mass, got 'center_of_mass' "
            r"\(nearest: centre_of_mass\)",
        ),
        (
            "point_nav",
            {"reward": "dense"},
            "reward: expected one of distance, sparse, progress, got 'dense'",
        ),
        ("ant_goal", {"region": "circle"}, "region: expected one of disk, square, got 'circle'"),
        ("gridworld", {"observation": "xy"}, "observation: expected one of one_hot, coordinates"),
        ("half_cheetah_vel", {"goal_high": np.nan}, "goal_high: expected a finite number"),
        ("half_cheetah_vel", {"goal_high": 1e39}, "goal_high: expected a finite number in single"),
        ("half_cheetah_vel", {"goal_high": "3"}, "goal_high: expected a finite number"),
        ("half_cheetah_vel", {"observe_torso": 1}, "observe_torso: expected true or false, got 1"),
        ("point_nav", {"horizon": 10.5}, "horizon: expected a whole number, got 10.5"),
        ("point_nav", {"horizon": True}, "horizon: expected a whole number, got True"),
    ],
)
def test_a_wrong_value_is_refused(family, fields, message):
    with pytest.raises(ValueError, match=message):
        make_family(family, **fields)


def test_a_registered_environment_refuses_a_misspelt_choice():
    with pytest.raises(ValueError, match="nearest: centre_of_mass"):
        gymnasium.make("metarl/HalfCheetahVel-v0", velocity_of="center_of_mass")


def test_numbers_of_numpy_are_numbers():
    family = make_family(
        "half_cheetah_vel",
        horizon=np.int64(9),
        goal_high=np.float32(0.5),
        observe_torso=np.bool_(True),
    )
    assert family == make_family("half_cheetah_vel", horizon=9, goal_high=0.5, observe_torso=True)
