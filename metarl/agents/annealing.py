"""Settings that go linearly to 0 over a number of iterations."""

from __future__ import annotations

from collections.abc import Mapping


def remaining(num_updates: int, total: int) -> float:
    """Return the share of `total` updates that is left after `num_updates`; 1 if it is 0."""
    return max(0.0, 1 - num_updates / total) if total else 1.0


def annealed_away(schedules: Mapping[str, int], iterations: int) -> list[str]:
    """Return a warning for each step size that is 0 before the last of some iterations.

    Args:
        schedules: keys that count iterations, with their values.
        iterations: the number of iterations of the training.
    """
    return [
        f"agent.{key}: {value:,} leaves nothing to learn in the last {iterations - value:,} of "
        f"{iterations:,} iterations, whose step size is 0; expected at least as many"
        for key, value in schedules.items()
        if key.endswith("lr_anneal") and 0 < value < iterations
    ]
