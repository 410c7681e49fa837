"""The inset of a panel that shows what the agent believes about the task, where the task is one or
two numbers.

T is the number of steps of the episode, k the number of numbers of the task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from metarl.agents.base import MetaAgent
from metarl.agents.optional import Beliefs, has_beliefs
from metarl.envs import TaskFamily
from metarl.evaluation.beliefs import Reading, fit_reading

MAX_NUMBERS = 2
"""Numbers of a task of which an inset is drawn."""
MARGIN = 0.1
"""Part of the task space that is drawn around it on each side."""
BACKGROUND, FRAME, BELIEF, TASK = "#ffffff", "#5b6470", "#2a6fbb", "#c0392b"

font = cache(ImageFont.load_default)  # by size in pixels; the font comes with Pillow


@dataclass(frozen=True)
class TaskBelief:
    """The belief about the numbers of a task at each step of an episode, Gaussian.

    Attributes:
        mean: (T, k).
        covariance: (T, k, k).
        low, high: bounds of the tasks that are drawn, (k,).
    """

    mean: np.ndarray
    covariance: np.ndarray
    low: np.ndarray
    high: np.ndarray


def has_inset(agent: MetaAgent, family: TaskFamily) -> bool:
    """Return whether the agent has beliefs and tasks have at most `MAX_NUMBERS` numbers."""
    return has_beliefs(agent) and family.task_space.shape[0] <= MAX_NUMBERS


def task_reading(agent: MetaAgent, family: TaskFamily, adaptations: int) -> Reading | None:
    """Return how an agent's beliefs are read as beliefs about the task; None without an inset."""
    return fit_reading(agent, family, adaptations) if has_inset(agent, family) else None


def task_belief(reading: Reading, found: Beliefs, family: TaskFamily) -> TaskBelief:
    """Return the belief about the task in an episode, given the one over the latent, (T, d)."""
    space = family.task_space
    margin = MARGIN * (space.high - space.low)
    return TaskBelief(*reading(found), space.low - margin, space.high + margin)


def draw_belief(
    image: Image.Image,
    corner: tuple[int, int],
    size: int,
    belief: TaskBelief,
    step: int,
    task: np.ndarray,
) -> None:
    """Draw the belief at a step, by two standard deviations, and the task itself as a cross.

    Args:
        image: the image to draw on.
        corner: the right lower corner of the inset.
        size: its width, and its height if the task has two numbers; else that is half of it.
        belief: the belief.
        step: number of steps that took place; after the last one the last belief is shown.
        task: the task, (k,).
    """
    height = size if len(task) == 2 else size // 2
    gap = max(2, size // 16)
    box = (corner[0] - size, corner[1] - height, *corner)
    inset = Image.new("RGBA", image.size, (0, 0, 0, 0))
    canvas, line = ImageDraw.Draw(inset), max(1, size // 40)
    canvas.rectangle(box, BACKGROUND, FRAME)
    canvas.text((box[0] + gap, box[1] + gap), "belief", FRAME, font(max(6, size // 7)), "lt")

    def place(point: np.ndarray) -> tuple[float, float]:
        """Return the pixel of a task; the second number goes up."""
        x, *rest = (point - belief.low) / (belief.high - belief.low)
        y = 1 - rest[0] if rest else 0.5
        return box[0] + x * size, box[1] + y * height

    at = min(step, len(belief.mean) - 1)
    mean, covariance = belief.mean[at], belief.covariance[at]
    if len(task) == 1:
        reach = np.array([2 * math.sqrt(covariance[0, 0])])
        canvas.line([place(mean - reach), place(mean + reach)], BELIEF, 2 * line)
    else:
        angles = np.linspace(0, 2 * math.pi, 33)
        values, vectors = np.linalg.eigh(covariance)
        axes = 2 * np.sqrt(np.maximum(values, 0)) * vectors
        circle = np.stack([np.cos(angles), np.sin(angles)], 1)
        canvas.line([place(mean + axes @ point) for point in circle], BELIEF, line)
    draw_mark(canvas, place(mean), 1.5 * line, BELIEF)
    x, y = place(task)
    reach = 3 * line
    for slope in (-1, 1):
        canvas.line((x - reach, y - slope * reach, x + reach, y + slope * reach), TASK, line)
    # What reaches beyond the inset is cut off.
    part = inset.crop((*box[:2], corner[0] + 1, corner[1] + 1))
    image.paste(part, box[:2], part)


def draw_mark(
    canvas: ImageDraw.ImageDraw, centre: Sequence[float], radius: float, colour: str
) -> None:
    """Draw a dot."""
    x, y = centre
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
