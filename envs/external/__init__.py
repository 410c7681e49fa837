"""Environments that are not ours as task families: they run in worker processes."""

from envs.external.description import Environment
from envs.external.family import ExternalFamily, GymnasiumFamily
from envs.external.meta_world import MetaWorld
from envs.external.process import WorkerError

__all__ = ["Environment", "ExternalFamily", "GymnasiumFamily", "MetaWorld", "WorkerError"]
