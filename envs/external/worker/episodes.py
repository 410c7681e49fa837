"""Episodes of one environment, whatever its spaces and however tasks are passed to it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .makers import EnvRejected


class EpisodeRunner:
    """Plays one episode of the environment after another, each under its own task.

    Attributes:
        env: the environment, which is made anew only if its constructor's arguments change.
        ended: whether the current episode has ended.
    """

    def __init__(self, maker: Callable[..., Any], spec: Mapping[str, Any], render: bool) -> None:
        self.maker, self.spec = maker, spec
        self.kwargs = {**spec["kwargs"], **({"render_mode": "rgb_array"} if render else {})}
        self.env: Any = None
        self.made_with: Mapping[str, float] | None = None
        self.last_reset: tuple[np.ndarray, int] | None = None
        self.ended = False

    def reset(self, task: np.ndarray, seed: int) -> np.ndarray:
        """Begin an episode and return its first observation, (obs_dim,)."""
        names, route = self.spec["parameters"], self.spec["route"]
        values = dict(zip(names, (float(value) for value in task)))  # noqa: B905 (Python 3.9)
        self.make(values if route == "keyword" else {})
        if route == "attribute":
            self.set_attributes(values)
        options = {"options": values} if route == "options" else {}
        obs, _ = self.env.reset(seed=int(seed), **options)
        self.last_reset, self.ended = (task, seed), False
        return np.asarray(obs, np.float64).ravel()

    def make(self, values: Mapping[str, float]) -> None:
        """Make the environment, unless the current one was made with the same arguments."""
        if self.env is not None and self.made_with == values:
            return
        self.close()
        try:
            self.env = self.maker(**self.kwargs, **values)
        except TypeError as error:
            if "argument" not in str(error):
                raise
            given = ", ".join([*self.kwargs, *values]) or "none"
            raise EnvRejected(
                f"does not take these keyword arguments ({given}): {error}"
            ) from error
        self.made_with = values

    def set_attributes(self, values: Mapping[str, float]) -> None:
        """Set attributes of the unwrapped environment, which must exist."""
        unwrapped = getattr(self.env, "unwrapped", self.env)
        for name, value in values.items():
            if not hasattr(unwrapped, name):
                numbers = [key for key in dir(unwrapped) if is_number(unwrapped, key)]
                near = difflib.get_close_matches(name, numbers, 1, cutoff=0.4)
                hint = f"nearest: {near[0]}" if near else f"it has {', '.join(numbers) or 'none'}"
                raise EnvRejected(f"has no attribute {name!r} for a task to set; {hint}")
            try:
                setattr(unwrapped, name, value)
            except AttributeError as error:
                raise EnvRejected(f"does not let its attribute {name!r} be set: {error}") from error

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, float]:
        """Return the flat observation, reward, terminated, truncated, and success or NaN.

        An episode that has ended is reset first: only speed measurements step it.
        """
        if self.ended and self.last_reset is not None:
            self.reset(*self.last_reset)
        space = self.env.action_space
        if hasattr(space, "n"):
            chosen: Any = int(action[0]) + int(getattr(space, "start", 0))
        else:
            chosen = action.reshape(space.shape).astype(space.dtype)
        obs, reward, terminated, truncated, info = self.env.step(chosen)
        self.ended = bool(terminated or truncated)
        success = float(info.get("success", math.nan))
        return np.asarray(obs, np.float64).ravel(), reward, terminated, truncated, success

    def description(self) -> dict[str, Any]:
        """Return spaces, frame rate and render mode.

        Raises:
            EnvRejected: if a space is not supported.
        """
        obs, action = self.env.observation_space, self.env.action_space
        wrap = "; name a function (package.module:function) that returns it suitably wrapped"
        if not is_box(obs):
            flatten = "such as gymnasium.wrappers.FlattenObservation"
            raise EnvRejected(f"observes {obs}: expected a Box{wrap}, {flatten}")
        discrete = type(action).__name__ == "Discrete"
        if not (discrete or is_box(action)):
            raise EnvRejected(f"acts by {action}: expected Discrete or Box{wrap}")
        box = {} if discrete else {"low": flat(action.low), "high": flat(action.high)}
        metadata = getattr(self.env, "metadata", None) or {}
        return {
            "obs": {"low": flat(obs.low), "high": flat(obs.high)},
            "action": {"n": int(action.n)} if discrete else box,
            "fps": metadata.get("render_fps"),
            "can_render": "rgb_array" in metadata.get("render_modes", ()),
        }

    def render(self) -> np.ndarray:
        """Return the image that the environment renders, (height, width, 3) uint8."""
        frame = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
            raise EnvRejected("returned no picture from render() in the mode rgb_array")
        return np.ascontiguousarray(frame, np.uint8)

    def close(self) -> None:
        """Close the environment."""
        if self.env is not None:
            self.env.close()
        self.env = None


def is_box(space: Any) -> bool:
    """Return whether a space is a Box, by name: it may be of Gym or a compatible package."""
    return type(space).__name__ == "Box"


def is_number(owner: Any, key: str) -> bool:
    """Return whether a public attribute is a number."""
    try:
        value = getattr(owner, key)
    except Exception:  # a property may raise anything
        return False
    is_plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_plain and not key.startswith("_")


def flat(bound: np.ndarray) -> list[float]:
    """Return a bound as a flat list."""
    return [float(value) for value in np.ravel(bound)]
