"""Checks of what an environment and an actor return at each step: shapes and types, and which
numbers are finite. Their code may be the user's."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarl.core.errors import UserError
from metarl.envs import BatchEnv
from metarl.envs.base import StepResult
from metarl.rollout.failures import MAX_FLOAT32


def check_obs(env: BatchEnv, obs: Any, size: tuple[int, ...]) -> None:
    """Check that observations are an array with a row of a size, (obs_dim,), for each episode.

    Raises:
        UserError: if they are not.
    """
    _check_array(env, "observations", obs, size)


def check_result(env: BatchEnv, result: Any, size: tuple[int, ...]) -> StepResult:
    """Return the results of a step if they are those that `BatchEnv.step` promises; `size` is that
    of an observation, (obs_dim,).

    Raises:
        UserError: if they are not, or if `success` or `truncated` are not what they are to be.
    """
    if not isinstance(result, tuple) or len(result) != 3:
        count = len(result) if isinstance(result, tuple) else type(result).__name__
        raise _wrong(env, f"its step returns {count}, expected (obs, reward, terminated)")
    obs, reward, terminated = result
    check_obs(env, obs, size)
    _check_array(env, "rewards", reward)
    _check_array(env, "ends of episodes", terminated, dtype=bool)
    for name in ("success", "truncated"):
        if (values := getattr(env, name)) is not None:
            _check_array(env, f"`{name}`", values, dtype=bool)
    return obs, reward, terminated


def check_action(env: BatchEnv, action: Any, shape: tuple[int, ...]) -> None:
    """Check that the actions of an actor are an array of a shape, (B, E, action_dim).

    Raises:
        UserError: if they are not.
    """
    got = action.shape if isinstance(action, np.ndarray) else type(action).__name__
    if got != shape:
        raise UserError(
            f"agent: act: expected actions of the shape {shape} on {env.family.name}, got {got}"
        )


def _check_array(
    env: BatchEnv, what: str, values: Any, size: tuple[int, ...] = (), dtype: type | None = None
) -> None:
    if not isinstance(values, np.ndarray):
        raise _wrong(env, f"its {what} are {type(values).__name__}, expected an array of NumPy")
    expected = (env.num_episodes, *size)
    if values.shape != expected:
        raise _wrong(env, f"its {what} have the shape {values.shape}, expected {expected}")
    if dtype is not None and values.dtype != dtype:
        raise _wrong(env, f"its {what} are {values.dtype}, expected {dtype.__name__}")


def _wrong(env: BatchEnv, reason: str) -> UserError:
    return UserError(f"{env.family.name}: {reason}; metarl check-env looks at the rest")


def all_in_range(array: np.ndarray) -> bool:
    """Return whether all numbers are finite in float32; faster than `in_range(array).all()`."""
    return bool(array.min() >= -MAX_FLOAT32 and array.max() <= MAX_FLOAT32)  # False for NaN


def in_range(array: np.ndarray) -> np.ndarray:
    """Return the mask of the numbers that are finite in float32, shaped like `array`."""
    return np.abs(array) <= MAX_FLOAT32  # False for NaN
