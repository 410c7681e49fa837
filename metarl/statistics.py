"""Statistics over tasks."""

from __future__ import annotations

import numpy as np
from scipy import stats

RESAMPLES = 9999


def interquartile_mean(values: np.ndarray) -> float:
    """Return the mean of the middle half of the values, (n,) (Agarwal et al. 2021)."""
    return float(stats.trim_mean(values, 0.25))


def mean_interval(
    values: np.ndarray, rng: np.random.Generator, confidence: float = 0.95
) -> tuple[float, float]:
    """Return a percentile-bootstrap confidence interval of the mean of independent values, (n,).

    A single value, or values that do not vary, give the interval of no width.
    """
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return float(interval.low), float(interval.high)
