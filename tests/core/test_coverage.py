"""How often intervals contain the true mean, in simulated experiments of a few runs.

Each case is 10 000 experiments, so that a coverage of 95 % is estimated to within 0.7 % in all of
them together. The bootstrap over runs and tasks covers 71 to 92 % at two and three runs.
"""

import numpy as np
import pytest

from metarl.core.statistics import difference_interval, mean_interval, repeats_interval

EXPERIMENTS = 10_000
NUM_TASKS = 25
RESIDUALS = (0.0, 0.5)
"""Share of the residuals in the variance of a score that is not of the run."""
RUN_SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)
"""Share of the runs in the variance of the mean score."""


def variances(
    num_runs: int, num_tasks: int, run_share: float, residual: float
) -> tuple[float, float, float]:
    """Return the variances of runs, tasks and residuals."""
    if run_share == 1:
        return 1.0, 0.0, 0.0
    rest = (1 - residual) / num_tasks + residual / (num_runs * num_tasks)
    return num_runs * run_share / (1 - run_share) * rest, 1 - residual, residual


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal((EXPERIMENTS, *shape), dtype=np.float32)


def coverage(interval: tuple[np.ndarray, np.ndarray], mean: float = 0.0) -> float:
    """Return the fraction of intervals that contain the true mean."""
    low, high = interval
    return float(((low <= mean) & (high >= mean)).mean())


@pytest.mark.parametrize(("num_runs", "most"), [(2, 0.98), (3, 0.98), (5, 0.97), (10, 0.97)])
@pytest.mark.parametrize("residual", RESIDUALS)
def test_intervals_of_few_runs_cover(num_runs, most, residual):
    check_intervals(num_runs, NUM_TASKS, residual, most)


@pytest.mark.parametrize("num_runs", [2, 3, 5, 10])
@pytest.mark.parametrize("residual", RESIDUALS)
def test_intervals_of_few_tasks_cover(num_runs, residual):
    check_intervals(num_runs, 5, residual, 0.985)


def check_intervals(num_runs: int, num_tasks: int, residual: float, most: float) -> None:
    for run_share in RUN_SHARES:
        parts = variances(num_runs, num_tasks, run_share, residual)
        run, task, rest = np.sqrt(parts, dtype=np.float32)
        rng = np.random.default_rng(num_runs)
        scores = run * draw(rng, num_runs, 1) + task * draw(rng, 1, num_tasks)
        scores += rest * draw(rng, num_runs, num_tasks)
        assert 0.93 <= coverage(mean_interval(scores)) <= most, f"share of the runs {run_share}"


def test_intervals_of_scores_with_a_long_tail_cover_less():
    """As the documentation says: of lognormal losses on 40 tasks, and where a tenth of the runs
    fails, which few runs do not show."""
    rng = np.random.default_rng(0)
    losses = np.exp(draw(rng, 1, 40))
    assert coverage(mean_interval(losses), np.sqrt(np.e)) == pytest.approx(0.89, abs=0.01)
    fails = rng.random((EXPERIMENTS, 3, 1)) < 0.1
    scores = -10 * fails + 0.5 * draw(rng, 3, 1) + draw(rng, 1, 40)
    assert coverage(mean_interval(scores), -1.0) == pytest.approx(0.65, abs=0.02)


@pytest.mark.parametrize("num_runs", [2, 3, 5, 10])
def test_intervals_with_fixed_tasks_cover(num_runs):
    """Exactly, whatever the tasks, since only runs vary."""
    rng = np.random.default_rng(num_runs)
    scores = draw(rng, num_runs, 1) + 0.5 * draw(rng, num_runs, 2)
    scores += np.array([100.0, -100.0])
    assert coverage(mean_interval(scores, fixed_tasks=True)) == pytest.approx(0.95, abs=0.007)


@pytest.mark.parametrize("num_tasks", [5, NUM_TASKS])
@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (2, 5), (3, 3), (5, 5)])
def test_intervals_of_differences_cover(sizes, num_tasks):
    """At two runs each they are wider than they need be, never narrower."""
    for run in (0.1, 0.3, 1.0):
        rng = np.random.default_rng(sum(sizes))
        shared, scores = 10 * draw(rng, 1, num_tasks), []
        for num_runs in sizes:
            own = draw(rng, 1, num_tasks) + 0.5 * draw(rng, num_runs, num_tasks)
            varies = run if num_runs > 1 else 0.0  # a single run counts as the method
            scores.append(shared + own + varies * draw(rng, num_runs, 1))
        assert 0.94 <= coverage(difference_interval(*scores)) <= 0.995


@pytest.mark.parametrize("counts", [(20, 20), (3, 3), (4, 12)])
def test_intervals_of_repetitions_cover(counts):
    rng = np.random.default_rng(0)
    values = np.concatenate([(1 + i) * draw(rng, count) for i, count in enumerate(counts)], axis=1)
    groups = np.repeat(np.arange(len(counts)), counts)
    assert 0.935 <= coverage(repeats_interval(values, groups)) <= 0.965
