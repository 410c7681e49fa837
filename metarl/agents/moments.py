"""Running mean and variance, for the normalisation of observations and rewards."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.agents.base import AgentState

LIMIT = 10.0  # bound of the distance of normalised values from their mean
MIN_VARIATION = 1e-6
"""Smallest ratio of a standard deviation to the mean that is no rounding error of 32 bits."""
MIN_STD = 1e-8
"""Smallest standard deviation that is no rounding error."""
FIELDS = ("count", "mean", "square")
KEPT_ROWS = 10_000
"""Number of rows, at most, by which the moments of another agent count in a warm start."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of the rows seen so far, float64.

    Attributes:
        count: number of rows, ().
        mean: (k,).
        square: sum of squared deviations from the mean, (k,).
    """

    count: np.ndarray
    mean: np.ndarray
    square: np.ndarray

    @classmethod
    def empty(cls, size: int) -> Moments:
        """Return the moments of no rows of `size` numbers."""
        return cls(np.zeros(()), np.zeros(size), np.zeros(size))

    def with_rows(self, rows: np.ndarray) -> Moments:
        """Return the moments with further rows, (m, k) (Chan et al. 1983, equations 2.1)."""
        if not len(rows):
            return self
        rows = np.asarray(rows, np.float64)
        count, mean = len(rows), rows.mean(axis=0)
        square = ((rows - mean) ** 2).sum(axis=0)
        total, shift = self.count + count, mean - self.mean
        return Moments(
            np.asarray(total),
            self.mean + shift * count / total,
            self.square + square + shift**2 * self.count * count / total,
        )

    @property
    def std(self) -> np.ndarray:
        """Standard deviations, (k,); 1 before there are rows, and where all are equal but for
        rounding errors of 32 bits."""
        return varying_std(self.mean, np.sqrt(self.square / np.maximum(self.count, 1)))

    def normalise(self, values: np.ndarray, *, shift: bool = True) -> np.ndarray:
        """Return values (..., k) divided by the standard deviations, float32, within `LIMIT` of
        the mean.

        Args:
            values: the values.
            shift: whether the means are subtracted before.
        """
        mean, std, centre = self._in_float32
        shifted = np.subtract(values, mean if shift else np.float32(0), dtype=np.float32)
        shifted /= std
        # Rewards may be far from 0, such as a bonus for being alive, and differ by little.
        middle = np.float32(0) if shift else centre
        np.maximum(shifted, middle - LIMIT, out=shifted)
        return np.minimum(shifted, middle + LIMIT, out=shifted)

    @functools.cached_property
    def _in_float32(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means, standard deviations, and their ratios, (k,) each."""
        ratio = (self.mean / self.std).astype(np.float32)
        return self.mean.astype(np.float32), self.std.astype(np.float32), ratio

    def weakened(self) -> Moments:
        """Return the moments as those of `KEPT_ROWS` rows, if there are more: new rows, such as
        those of another task family, then soon outweigh them."""
        share = min(1.0, KEPT_ROWS / max(float(self.count), 1.0))
        return Moments(self.count * share, self.mean, self.square * share)

    def state_dict(self, name: str) -> dict[str, Tensor]:
        """Return the moments as tensors, named `NAME.count` and so on."""
        return {f"{name}.{key}": torch.tensor(getattr(self, key)) for key in FIELDS}

    @classmethod
    def from_state(cls, state: dict[str, Tensor], name: str) -> Moments:
        """Return the moments of a `state_dict` with this name."""
        return cls(*(state[f"{name}.{key}"].numpy().copy() for key in FIELDS))


def varying_std(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return standard deviations, with 1 for those that may be rounding errors of 32 bits."""
    return np.where(std > np.maximum(MIN_VARIATION * np.abs(mean), MIN_STD), std, 1.0)


def with_weakened_moments(state: AgentState) -> AgentState:
    """Return the state of an agent with all its moments `weakened`, for a warm start."""
    tensors = {key: torch.as_tensor(value) for key, value in state.items()}
    names = [key.removesuffix(".count") for key in state if key.endswith(".count")]
    for name in names:
        state = {**state, **Moments.from_state(tensors, name).weakened().state_dict(name)}
    return state
