"""A task family of your own on an existing environment: Gymnasium's Pendulum-v1.

metarl train point_nav/maml_trpo --env.family examples.unknown_pendulum:UnknownPendulum
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box

from metarl.envs import Environment, ExternalFamily


@dataclass(frozen=True)
class UnknownPendulum(ExternalFamily):
    """Swing up a pendulum whose mass and length are those of Pendulum-v1 times 2^U(-1, 1) each."""

    horizon: int = 100
    """Length of an episode in control steps."""
    octaves: float = 1.0
    """Range of mass and length: a factor of up to 2 to this power, up or down."""

    name: ClassVar[str] = "unknown_pendulum"
    source: ClassVar[str] = "an example"

    @property
    def environment(self) -> Environment:
        return Environment("Pendulum-v1", parameters=("m", "l"), route="attribute")

    @property
    def task_space(self) -> Box:
        return Box(2**-self.octaves, 2**self.octaves, (2,), np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return 2 ** rng.uniform(-self.octaves, self.octaves, (num_tasks, 2))
