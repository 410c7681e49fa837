"""Third-party environments as task families: they run in worker processes."""

from metarl.envs.external.description import Environment
from metarl.envs.external.family import ExternalFamily
from metarl.envs.external.gymnasium_family import GymnasiumFamily, locate
from metarl.envs.external.meta_world import MetaWorld
from metarl.envs.external.process import EnvironmentRefused, WorkerError

__all__ = [
    "Environment",
    "EnvironmentRefused",
    "ExternalFamily",
    "GymnasiumFamily",
    "MetaWorld",
    "WorkerError",
    "locate",
]
