"""The camera of rendered MuJoCo families: where it stands, what it sees, and text in its image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from metarl.envs.mujoco.markers import Label

MARGIN = 0.92  # share of half an image that what has to be seen may take
TEXT, HALO = "#1a4a80", "#ffffff"  # colours of labels and of the light line around them
MIN_TEXT = 9  # height of a label, pixels

font = cache(ImageFont.load_default)  # by size in pixels; the font comes with Pillow


@dataclass(frozen=True)
class View:
    """A camera that looks along the y axis, from above.

    Attributes:
        size: width and height of its image, pixels.
        fovy: the vertical angle that it sees, degrees.
        elevation: of the direction that it looks in, degrees; negative from above.
    """

    size: tuple[int, int]
    fovy: float
    elevation: float

    @property
    def slopes(self) -> np.ndarray:
        """Half of what it sees at distance 1, across and upwards."""
        upwards = math.tan(math.radians(self.fovy) / 2)
        return np.array([upwards * self.size[0] / self.size[1], upwards])

    def axes(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return offsets from the point looked at, (..., 3): across and up, (..., 2), and ahead."""
        angle = math.radians(self.elevation)
        x, y, z = np.moveaxis(offsets, -1, 0)
        up = -math.sin(angle) * y + math.cos(angle) * z
        return np.stack([x, up], axis=-1), math.cos(angle) * y + math.sin(angle) * z

    def distance_to_see(self, offsets: np.ndarray, reach: float = 0.0) -> float:
        """Return the smallest distance, m, from which spheres are seen whole.

        Args:
            offsets: of their centres from the point looked at, (..., 3).
            reach: their radius.
        """
        sideways, ahead = self.axes(offsets)
        needed = (np.abs(sideways) + reach) / (MARGIN * self.slopes)
        return float((needed - ahead[..., None]).max())

    def pixels(self, offset: np.ndarray, distance: float) -> tuple[float, float]:
        """Return the place in the image, from its left upper corner, of an offset, (3,)."""
        sideways, ahead = self.axes(offset)
        x, y = sideways / (self.slopes * (distance + ahead))
        return (1 + x) * self.size[0] / 2, (1 - y) * self.size[1] / 2

    def with_labels(
        self, image: np.ndarray, labels: Iterable[Label], lookat: np.ndarray, distance: float
    ) -> np.ndarray:
        """Return the image, (height, width, 3), with those labels that are in it as a whole."""
        picture = Image.fromarray(image)
        canvas, text = ImageDraw.Draw(picture), font(max(MIN_TEXT, self.size[0] // 32))
        for label in labels:
            place = self.pixels(np.subtract(label.position, lookat), distance)
            left, top, right, bottom = canvas.textbbox(place, label.text, text, "mm")
            if min(left, top) >= 1 and right < self.size[0] and bottom < self.size[1]:
                canvas.text(place, label.text, TEXT, text, "mm", stroke_width=1, stroke_fill=HALO)
        return np.asarray(picture)
