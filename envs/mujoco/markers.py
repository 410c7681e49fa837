"""Markers in rendered images that are not part of the model: goals and distances."""

# The names of MuJoCo's bindings are compiled, without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

BLUE = (0.165, 0.435, 0.733, 1.0)  # of distances on the floor
RED = (0.753, 0.224, 0.169, 1.0)  # of goals
GOAL_RADIUS, GOAL_HEIGHT = 0.35, 1.5  # of the disk and the post of a goal that is a place, m


@dataclass(frozen=True)
class Marker:
    """A shape that is added to a rendered scene.

    Attributes:
        kind: the shape.
        position: of the centre; of an arrow, of its foot. (3,), m.
        size: as MuJoCo's models define it for the shape (a cylinder's radius and half height),
            (3,), m.
        heading: direction of the marker's x axis (for an arrow, of its tip) in the horizontal
            plane, radians from the x axis.
        colour: red, green, blue, opacity.
    """

    kind: mujoco.mjtGeom
    position: Sequence[float] | np.ndarray
    size: Sequence[float] = (0.1, 0.1, 0.1)
    heading: float = 0.0
    colour: Sequence[float] = RED

    def add_to(self, scene: mujoco.MjvScene) -> None:
        """Add the marker to a scene."""
        geom = scene.geoms[scene.ngeom]
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        if self.kind == mujoco.mjtGeom.mjGEOM_ARROW:  # points along its z axis
            frame = [0.0, -sin, cos, 0.0, cos, sin, -1.0, 0.0, 0.0]
        else:
            frame = [cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0]
        position, colour = np.array(self.position, float), np.array(self.colour, np.float32)
        mujoco.mjv_initGeom(geom, self.kind, np.array(self.size), position, np.array(frame), colour)
        scene.ngeom += 1


@dataclass(frozen=True)
class Label:
    """A text in a rendered image, centred at a position in the scene, (3,), m."""

    position: Sequence[float]
    text: str


def metre_markers(metres: Iterable[int], y: float) -> Iterator[Marker]:
    """Mark whole metres along x on the floor, between the robot, at `y`, and the camera."""
    for metre in metres:
        size = (0.02 if metre else 0.05, 0.3, 0.002)
        yield Marker(mujoco.mjtGeom.mjGEOM_BOX, (metre, y - 0.3, 0.0), size, colour=BLUE)


def metre_labels(metres: Iterable[int], y: float, every: int) -> Iterator[Label]:
    """Name every so many of these metres: in a small image there is not enough room for all."""
    for metre in metres:
        if metre % every == 0:
            yield Label((metre, y - 0.8, 0.0), f"{metre} m" if metre else "start")
