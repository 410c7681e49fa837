"""Task families for meta-reinforcement learning.

family = make_family("half_cheetah_vel", goal_high=3.0)
env = gymnasium.make("metarl/HalfCheetahVel-v0", task=[1.3])
"""

import gymnasium

from envs.ant import AntDir, AntGoal, AntVel
from envs.base import (
    SPLITS,
    BatchEnv,
    SimulationDiverged,
    TaskError,
    TaskFamily,
)
from envs.biped import HopperParams, WalkerParams, WalkerVel
from envs.external import Environment, ExternalFamily, GymnasiumFamily, MetaWorld, WorkerError
from envs.half_cheetah import HalfCheetahBody, HalfCheetahDir, HalfCheetahVel
from envs.humanoid import HumanoidDir
from envs.observed import TaskObserved
from envs.perturbed import Perturbed
from envs.point import PointNav
from envs.registry import FAMILIES, family_class, family_name, family_settings, make_family
from envs.rendering import RenderingUnavailable
from envs.scenes import Scene
from envs.tabular import TabularMDP

__all__ = [
    "FAMILIES",
    "SPLITS",
    "AntDir",
    "AntGoal",
    "AntVel",
    "BatchEnv",
    "Environment",
    "ExternalFamily",
    "GymnasiumFamily",
    "HalfCheetahBody",
    "HalfCheetahDir",
    "HalfCheetahVel",
    "HopperParams",
    "HumanoidDir",
    "MetaWorld",
    "Perturbed",
    "PointNav",
    "RenderingUnavailable",
    "Scene",
    "SimulationDiverged",
    "TabularMDP",
    "TaskError",
    "TaskFamily",
    "TaskObserved",
    "WalkerParams",
    "WalkerVel",
    "WorkerError",
    "family_class",
    "family_name",
    "family_settings",
    "make_family",
]

for _family in FAMILIES.values():
    # Gymnasium's users expect actions in the actuators' own range, up to 1.
    _scale = {"action_scale": 1.0} if hasattr(_family, "action_scale") else {}
    gymnasium.register(
        f"metarl/{_family.__name__}-v0",
        entry_point="envs.gymnasium:make",
        kwargs={"family": _family.name, **_scale},
    )
