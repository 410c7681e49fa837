"""Check of the mean rewards that a family tells."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Discrete

from metarl.envs.base import TaskFamily
from metarl.envs.contract.recording import (
    Violation,
    expect,
    make_rngs,
    random_actions,
    random_tasks,
)

NUM_TASKS, NUM_ACTIONS, NUM_REWARDS = 4, 4, 400
MAX_ERRORS = 6.0  # standard errors by which a difference of means may be off
ROUNDING = 1e-6  # by which it may be off beside them, relative to the largest reward


def expected_rewards(family: TaskFamily) -> str:
    """The mean rewards of actions differ as `expected_reward` says."""
    if not family.knows_expected_reward:
        return "the family does not define expected_reward"
    space = family.action_space
    if isinstance(space, Discrete):
        choices = np.arange(min(int(space.n), NUM_ACTIONS), dtype=np.float32)[:, None]
    else:
        choices = random_actions(family, NUM_ACTIONS, 1)[0]
    tasks = random_tasks(family, NUM_TASKS)
    shape = (len(tasks), len(choices), NUM_REWARDS)
    played = np.repeat(tasks, shape[1] * shape[2], axis=0)
    action = np.tile(np.repeat(choices, shape[2], axis=0), (shape[0], 1))
    env = family.make_batch(len(played))
    obs = np.array(env.reset(played, make_rngs(range(len(played)))))
    reward = np.array(env.step(action, None)[1], np.float64)
    told = np.asarray(family.expected_reward(played, obs[:, None], action[:, None]))
    expect(
        told.shape == (len(played), 1),
        f"expected_reward: expected one for each step, the shape ({len(played)}, 1), got "
        f"{told.shape}",
    )
    expect(bool(np.isfinite(told).all()), "expected_reward: expected finite numbers")
    left = (reward - told[:, 0]).reshape(shape)
    mean, error = left.mean(axis=2), left.std(axis=2) / NUM_REWARDS**0.5
    rounding = ROUNDING * max(1.0, float(np.abs(reward).max()))
    for number, (means, errors) in enumerate(zip(mean, error, strict=True)):
        low, high = int(means.argmin()), int(means.argmax())
        if means[high] - means[low] > MAX_ERRORS * np.hypot(*errors[[low, high]]) + rounding:
            found = reward.reshape(shape)[number].mean(axis=1)
            said = told.reshape(shape)[number].mean(axis=1)
            raise Violation(
                f"expected_reward: in the task {np.round(tasks[number], 3).tolist()} the rewards "
                f"of the actions {choices[high].tolist()} and {choices[low].tolist()} differ by "
                f"{found[high] - found[low]:.3g} in the mean of {NUM_REWARDS}, but what it "
                f"returns differs by {said[high] - said[low]:.3g}"
            )
    return ""
