"""Gymnasium's MuJoCo models, parsed and compiled."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import mujoco
import numpy as np

GYMNASIUM_ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MuJoCo from printing, and from writing MUJOCO_LOG.TXT into the current folder."""
    config = mujoco.MjLogConfig.get()
    before = config.logto_console, config.logto_file
    config.logto_console = config.logto_file = False
    mujoco.MjLogConfig.set(config)
    try:
        yield
    finally:
        config.logto_console, config.logto_file = before
        mujoco.MjLogConfig.set(config)


def load_spec(file: str) -> mujoco.MjSpec:
    """Parse a model (`load_model`), to be changed before it is compiled."""
    with quiet():
        return mujoco.MjSpec.from_file(str(GYMNASIUM_ASSETS / file))


def compile_model(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Compile a model, without warnings about deprecated elements in Gymnasium's models."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spec.compile()


@functools.cache
def load_model(file: str, contact_forces: bool = False) -> mujoco.MjModel:
    """Compile one of Gymnasium's MuJoCo models. The model is shared: do not write to it.

    Args:
        file: its name, or the absolute path of a model of a user.
        contact_forces: whether MuJoCo computes the bodies' external forces, `cfrc_ext`. MuJoCo
            computes them only if a sensor needs them, so one is added. The sensor takes no part in
            the physics.

    Raises:
        ValueError: if the model cannot be loaded or driven; `family` is the key of configs.
    """
    try:
        model = _compile(file, contact_forces)
    except ValueError as error:  # of MuJoCo, on several lines
        raise ValueError(f"family: model {file}: {' '.join(str(error).split())}") from error
    low, high = model.actuator_ctrlrange.T
    if not (model.nu and (low < high).all()):
        undriven = [model.actuator(i).name or f"number {i}" for i in np.flatnonzero(low >= high)]
        found = f"actuator {undriven[0]} has none" if undriven else "there is no actuator"
        raise ValueError(
            f"family: model {file}: expected actuators with a ctrlrange, over which actions drive "
            f"them; {found}"
        )
    return model


def _compile(file: str, contact_forces: bool) -> mujoco.MjModel:
    spec = load_spec(file)
    if contact_forces:
        site = spec.worldbody.first_body().add_site(name="contact_forces")
        spec.add_sensor(
            type=mujoco.mjtSensor.mjSENS_FORCE,
            objtype=mujoco.mjtObj.mjOBJ_SITE,
            objname=site.name,
        )
    return compile_model(spec)
