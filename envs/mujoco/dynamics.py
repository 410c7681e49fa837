"""Tasks that are physical parameters of a model: masses, inertias, frictions and dampings."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np
from gymnasium.spaces import Box
from mujoco.batch import Batch

from metarl.envs.mujoco.family import MujocoFamily
from metarl.envs.task_distribution import MARGIN

# Factors on these fields of the model are base ** task.
BASES = {"body_mass": 1.5, "body_inertia": 1.5, "geom_friction": 1.5, "dof_damping": 1.3}


def power(base: float, exponents: np.ndarray) -> np.ndarray:
    """Return base ** exponents, rounded alike with and without AVX-512.

    NumPy's own power is not: tasks, and the hashes of their sets, would depend on the processor.
    """
    return np.array([math.pow(base, x) for x in exponents.flat]).reshape(exponents.shape)


@dataclass(frozen=True)
class RandomParams(MujocoFamily):
    """A task is the exponent of a factor for each number of the model's physical parameters.

    In this order: the masses of the bodies, their inertias (three each), the frictions of the geoms
    (three each; the floor is the first geom) and the dampings of the degrees of freedom. Exponents
    are uniform in [-3, 3]; a factor is 1.5 to its power, 1.3 for dampings. Out of distribution are
    models of which some exponents are beyond, in [-4.5, 4.5].
    """

    log_scale_limit: float = 3.0
    """The largest exponent of a factor on a physical parameter."""

    source: ClassVar[str] = "Rothfuss et al. 2019 (ProMP)"
    dynamics_tasks: ClassVar[bool] = True
    uniform_tasks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.log_scale_limit > 0:
            raise ValueError(f"log_scale_limit: expected more than 0, got {self.log_scale_limit}")

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the model's own values of the fields that tasks scale."""
        return {name: getattr(self.model, name) for name in BASES}

    @property
    def task_dim(self) -> int:
        """The number of scaled parameters: all but the world body's mass and inertia."""
        sizes = {name: values.size for name, values in self.parameters().items()}
        return sum(sizes.values()) - 1 - 3

    @property
    def task_space(self) -> Box:
        return Box(-self.log_scale_limit, self.log_scale_limit, (self.task_dim,), np.float64)

    @property
    def ood_space(self) -> Box:
        limit = MARGIN * self.log_scale_limit
        return Box(-limit, limit, (self.task_dim,), np.float64)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        limit = self.log_scale_limit
        return rng.uniform(-limit, limit, (num_tasks, self.task_dim))

    def scaled(self, tasks: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of the fields under tasks, (N, task_dim): (N, ...) by name."""
        values, start = {}, 0
        for name, own in self.parameters().items():
            of_world = name.startswith("body_")
            exponents = np.zeros((len(tasks), *own.shape))
            scaled = exponents[:, 1:] if of_world else exponents
            size = scaled[0].size
            scaled[:] = tasks[:, start : start + size].reshape(scaled.shape)
            values[name], start = own * power(BASES[name], exponents), start + size
        return values

    def apply_task(self, batch: Batch, tasks: np.ndarray) -> None:
        for name, values in self.scaled(tasks).items():
            batch.expand(name)[:] = values
        batch.set_const()

    def task_model(self, task: np.ndarray) -> mujoco.MjModel:
        batch = Batch(self.model, 1, 1)
        self.apply_task(batch, task[None])
        return batch.get_model(0)

    def caption(self, state: np.ndarray, task: np.ndarray) -> str:
        mass = self.scaled(task[None])["body_mass"].sum() / self.model.body_mass.sum()
        return f"speed {state[self.model.nq]:+z.1f} m/s, total mass x{mass:.1f}"
