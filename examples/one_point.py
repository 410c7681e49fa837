"""The least forgetting of 2D navigation without a memory: policies that go to one point.

    python -m examples.one_point

A policy that does not observe the goal goes to the same place in every task. After each task of a
sequence, this one goes straight to a point between the goal just met and the mean of all goals met,
and it knows these goals. The table has its plasticity and forgetting, by the place of the point.
"""

from __future__ import annotations

import numpy as np

from metarl.core.rng import Purpose, make_rng
from metarl.envs import PointNav
from metarl.evaluation.continual import SEQUENCE_LENGTH, forgetting
from metarl.runs.result import Evaluation

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
"""Shares of the way from the goal just met to the mean of all goals met."""


def straight_returns(family: PointNav, points: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Return the returns, (n,), of going straight from the origin to points, (n, 2), and staying
    there, where the goals are (n, 2)."""
    env = family.make_batch(len(points))
    obs = env.reset(goals, [np.random.default_rng(0)] * len(points))
    returns, active = np.zeros(len(points)), np.ones(len(points), bool)
    for _ in range(family.horizon):
        action = (points - obs) / family.max_step * family.action_scale
        obs, reward, ended = env.step(action.clip(-family.action_scale, family.action_scale))
        returns += np.where(active, reward, 0)
        active &= ~ended
    return returns


def trade_off(family: PointNav, share: float, num_sequences: int) -> tuple[float, float]:
    """Return mean plasticity and forgetting over random sequences of goals."""
    rng = make_rng(0, Purpose.TASKS)
    goals = family.sample_tasks(rng, num_sequences * SEQUENCE_LENGTH)
    goals = goals.reshape(num_sequences, SEQUENCE_LENGTH, 2)
    matrix = np.zeros((num_sequences, SEQUENCE_LENGTH, SEQUENCE_LENGTH + 1))
    for met in range(1, SEQUENCE_LENGTH + 1):
        points = goals[:, met - 1] + share * (goals[:, :met].mean(axis=1) - goals[:, met - 1])
        for task in range(SEQUENCE_LENGTH):
            matrix[:, task, met] = straight_returns(family, points, goals[:, task])
    by_task = matrix.reshape(-1, SEQUENCE_LENGTH + 1, 1)
    result = Evaluation(family.name, "random", "", goals.reshape(-1, 2), by_task)
    found = forgetting(result)
    return float(found.plasticity.mean()), float(found.forgetting.mean())


def main() -> None:
    """Print the table."""
    print("| share of the way to the mean | plasticity | forgetting |\n|---|---|---|")
    for share in SHARES:
        plasticity, lost = trade_off(PointNav(), share, 1000)
        print(f"| {share} | {plasticity:.1f} | {lost:.1f} |")


if __name__ == "__main__":
    main()
