"""Episodes of one environment, whatever its spaces and however tasks are passed to it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .makers import EnvRejected

OUTCOMES = {
    "reset": ("observation", "info"),
    "step": ("observation", "reward", "terminated", "truncated", "info"),
}
"""What the methods of an environment return, by Gymnasium's interface."""
NUMBER_KINDS = "biuf"  # NumPy's kinds of bool, int, unsigned int and float
MAX_SHOWN = 80  # characters of a value in an error message
SIGNATURE_ERROR = r"(unexpected|required) .*argument|takes .* argument|multiple values"
"""What Python says of a call whose arguments do not fit."""
WRAP = "; name a function (package.module:function) that returns it suitably wrapped"


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
        self.action_space: Any = None
        self.last_reset: tuple[np.ndarray, int] | None = None
        self.ended = False

    def reset(self, task: np.ndarray, seed: int) -> np.ndarray:
        """Begin an episode and return its first observation, (obs_dim,)."""
        values = self.begin(task)
        options = {"options": values} if self.spec["route"] == "options" else {}
        obs, _ = outcome_of("reset", self.env.reset(seed=int(seed), **options))
        self.last_reset, self.ended = (task, seed), False
        return flat_obs(obs)

    def begin(self, task: np.ndarray) -> dict[str, float]:
        """Make the environment that plays a task, before its reset; return the task by name."""
        names, route = self.spec["parameters"], self.spec["route"]
        values = dict(zip(names, (float(value) for value in task)))  # noqa: B905 (Python 3.9)
        self.make(values if route == "keyword" else {})
        if route == "attribute":
            self.set_attributes(values)
        self.check_actions(values)
        return values

    def check_actions(self, values: Mapping[str, float]) -> None:
        """Check that the environment has the action space of the tasks before, to which the actions
        of the policy are scaled.

        Raises:
            EnvRejected: if it has another one.
        """
        found = self.env.action_space
        if self.action_space is None:
            self.action_space = found
        elif found is not self.action_space and found != self.action_space:
            raise EnvRejected(
                f"acts by {found} under {shown(values)}, and by {self.action_space} under another "
                "task: expected the same action space for all tasks"
            )

    def make(self, values: Mapping[str, float]) -> None:
        """Make the environment, unless the current one was made with the same arguments."""
        if self.env is not None and self.made_with == values:
            return
        self.close()
        try:
            self.env = self.maker(**self.kwargs, **values)
        except TypeError as error:
            # Not of a call in the constructor, such as "int() argument must be ..."
            if not re.search(SIGNATURE_ERROR, str(error)):
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
        if is_kind(space, "Discrete"):
            chosen: Any = int(action[0]) + int(getattr(space, "start", 0))
        else:
            whole = np.issubdtype(space.dtype, np.integer)
            chosen = (np.rint(action) if whole else action).reshape(space.shape).astype(space.dtype)
        obs, reward, *ends, info = outcome_of("step", self.env.step(chosen))
        reward = number(reward, "the reward", "a number")
        terminated, truncated = (
            bool(number(end, name, "true or false"))
            for name, end in zip(("terminated", "truncated"), ends)  # noqa: B905 (Python 3.9)
        )
        self.ended = terminated or truncated
        expected = "true or false, or no such entry if it is not known"
        key = "is_success" if "success" not in info else "success"
        success = number(info.get(key, math.nan), f"info[{key!r}]", expected)
        return flat_obs(obs), reward, terminated, truncated, success

    def check_spaces(self) -> None:
        """Reject spaces that are not supported."""
        obs, action = self.env.observation_space, self.env.action_space
        if not is_kind(obs, "Box"):
            flatten = "such as gymnasium.wrappers.FlattenObservation"
            raise EnvRejected(f"observes {obs}: expected a Box{WRAP}, {flatten}")
        if not (is_kind(action, "Discrete") or is_kind(action, "Box")):
            raise EnvRejected(f"acts by {action}: expected Discrete or Box{WRAP}")

    def description(self) -> dict[str, Any]:
        """Return spaces, frame rate and render mode.

        Raises:
            EnvRejected: if a space is not supported.
        """
        self.check_spaces()
        obs, action = self.env.observation_space, self.env.action_space
        discrete = is_kind(action, "Discrete")
        metadata = getattr(self.env, "metadata", None) or {}
        return {
            "obs": bounds_of(obs),
            "action": {"n": int(action.n)} if discrete else bounds_of(action),
            "fps": frames_per_second(metadata),
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


def bounds_of(box: Any) -> dict[str, Any]:
    """Return the size of a flat Box, and its bounds: a single one if all are the same, as of the
    pixels of an image."""
    ends = {"low": flat(box.low), "high": flat(box.high)}
    short = {name: values[:1] if len(set(values)) == 1 else values for name, values in ends.items()}
    return {"size": len(ends["low"]), **short}


def frames_per_second(metadata: Mapping[str, Any]) -> float | None:
    """Return the frame rate of an environment, which may be a number of NumPy; None if it has
    none."""
    rate = metadata.get("render_fps")
    return None if rate is None else float(rate)


def is_kind(space: Any, kind: str) -> bool:
    """Return whether a space is of a class or a subclass of it, by name: it may be of Gym or a
    compatible package."""
    return any(base.__name__ == kind for base in type(space).__mro__)


def outcome_of(method: str, outcome: Any) -> Any:
    """Return what `reset` or `step` returned.

    Raises:
        EnvRejected: if it is no tuple of the values of `OUTCOMES`, the last of them a mapping.
    """
    names = OUTCOMES[method]
    expected = f"expected ({', '.join(names)})"
    if not isinstance(outcome, (tuple, list)):
        raise EnvRejected(f"returned {shown(outcome)} from {method}: {expected}{WRAP}")
    if len(outcome) != len(names):
        count = f"{len(outcome)} value{'s' * (len(outcome) != 1)}"
        raise EnvRejected(f"returned {count} from {method}, {shown(outcome)}: {expected}{WRAP}")
    if not isinstance(outcome[-1], Mapping):
        raise EnvRejected(
            f"returned {shown(outcome[-1])} as the last value of {method}: expected info, a dict"
        )
    return outcome


def number(value: Any, name: str, expected: str) -> float:
    """Return a number, true or false that an environment returned, as a float.

    Args:
        value: what it returned, also as an array without axes.
        name: what it is, in the error message.
        expected: what was expected, in the error message.

    Raises:
        EnvRejected: if it is anything else, such as None or an array with axes.
    """
    if type(value) in (float, bool, int):
        return float(value)
    array = as_array(value)
    if array is None or array.ndim or array.dtype.kind not in NUMBER_KINDS:
        shape = f", an array of the shape {array.shape}" if array is not None and array.ndim else ""
        raise EnvRejected(f"returned {shown(value)} as {name}{shape}: expected {expected}")
    return float(array)


def flat_obs(obs: Any) -> np.ndarray:
    """Return an observation as a flat array, (obs_dim,) float64.

    Raises:
        EnvRejected: if it is no array of numbers.
    """
    array = as_array(obs)
    if array is None or array.dtype.kind not in NUMBER_KINDS:
        raise EnvRejected(f"observes {shown(obs)}: expected numbers, as its observation space says")
    return array.astype(np.float64).ravel()


def as_array(value: Any) -> np.ndarray | None:
    """Return a value as an array; None if NumPy cannot make one."""
    try:
        return np.asarray(value)
    except Exception:  # of lists of different lengths, or from another package
        return None


def shown(value: Any) -> str:
    """Return a value as text of one line, cut if it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


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
