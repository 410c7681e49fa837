"""Task families for meta-reinforcement learning.

family = make_family("half_cheetah_vel", goal_high=3.0)
env = gymnasium.make("metarl/HalfCheetahVel-v0", task=[1.3])
"""

import gymnasium

from metarl.envs.bandit import Bandit
from metarl.envs.base import BatchEnv, TaskFamily
from metarl.envs.errors import SimulationDiverged, TaskError
from metarl.envs.external import (
    Environment,
    EnvironmentRefused,
    ExternalFamily,
    GymnasiumFamily,
    MetaWorld,
    WorkerError,
    locate,
)
from metarl.envs.gridworld import GridWorld
from metarl.envs.mujoco.ant import AntDir, AntGoal, AntVel
from metarl.envs.mujoco.half_cheetah import HalfCheetahBody, HalfCheetahDir, HalfCheetahVel
from metarl.envs.mujoco.humanoid import HumanoidDir
from metarl.envs.mujoco.planar import HopperParams, WalkerParams, WalkerVel
from metarl.envs.point import PointNav
from metarl.envs.registry import (
    FAMILIES,
    family_class,
    family_name,
    family_settings,
    make_family,
)
from metarl.envs.rendering import Renderer, RendererFailed, RenderingUnavailable
from metarl.envs.tabular import TabularMDP
from metarl.envs.task_distribution import SPLITS
from metarl.envs.wrappers.observed import TaskObserved
from metarl.envs.wrappers.perturbed import Perturbed

__all__ = [
    "FAMILIES",
    "SPLITS",
    "AntDir",
    "AntGoal",
    "AntVel",
    "Bandit",
    "BatchEnv",
    "Environment",
    "EnvironmentRefused",
    "ExternalFamily",
    "GridWorld",
    "GymnasiumFamily",
    "HalfCheetahBody",
    "HalfCheetahDir",
    "HalfCheetahVel",
    "HopperParams",
    "HumanoidDir",
    "MetaWorld",
    "Perturbed",
    "PointNav",
    "Renderer",
    "RendererFailed",
    "RenderingUnavailable",
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
    "locate",
    "make_family",
]

for _family in FAMILIES.values():
    # Gymnasium's convention: actions within the actuators' range, up to 1.
    _scale = {"action_scale": 1.0} if hasattr(_family, "action_scale") else {}
    gymnasium.register(
        f"metarl/{_family.__name__}-v0",
        entry_point="metarl.envs.gymnasium_env:make",
        kwargs={"family": _family.name, **_scale},
    )
