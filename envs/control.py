"""Families whose environments get the policy's actions on another scale."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gymnasium.spaces import Box


def action_of_zero(space: Box, control: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the action, (action_dim,), that is zero in the environment's own units.

    Args:
        space: the action space of the family.
        control: returns actions in the environment's own units, given actions (N, action_dim). It
            is linear in the action space where the bounds of that are finite, and the identity
            elsewhere.
    """
    zero, bounds = np.zeros(space.shape), np.stack([space.low, space.high]).astype(np.float64)
    own = control(bounds)
    scaled = np.isfinite(bounds).all(axis=0) & (own[0] < own[1])
    (low, high), (own_low, own_high) = bounds[:, scaled], own[:, scaled]
    zero[scaled] = low - own_low / (own_high - own_low) * (high - low)
    return zero
