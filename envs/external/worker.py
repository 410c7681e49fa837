"""The worker program: plays episodes of an environment for a `Pool`, as a process of its own.

It is run as a script, under any Python from 3.9 on, and needs the standard library, NumPy and what
the environment needs: nothing of this project. Commands come on stdin and answers go to stdout, a
line of JSON each; arrays are in shared memory, laid out by `views`. It ends with its parent.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # A script's folder leads the import path, and our files would hide packages of their names.
    ours = os.path.dirname(os.path.realpath(__file__))
    sys.path = [entry for entry in sys.path if os.path.realpath(entry or ".") != ours]

import copy
import difflib
import faulthandler
import importlib
import importlib.util
import json
import math
import mmap
import re
import signal
import sysconfig
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

TRACEBACK_LINES = 12
INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")  # sysconfig's names of places
STDERR_LIMIT = 1 << 20  # bytes that the file of a worker's messages may hold


class Refused(Exception):
    """The environment cannot be used like this; the message says why, and what helps."""


def views(
    sizes: Mapping[str, int], buffer: mmap.mmap | None = None
) -> tuple[dict[str, np.ndarray], int]:
    """Lay the shared arrays out: every number takes 8 bytes.

    Args:
        sizes: `episodes` N, `workers` W, and the dimensions `obs`, `action` and `task`.
        buffer: the shared memory; None to only measure.

    Returns:
        The arrays by name, and how many bytes they take.
    """
    n, w = sizes["episodes"], sizes["workers"]
    shapes = {
        "task": (n, sizes["task"]),
        "seed": (n,),
        "action": (n, sizes["action"]),
        "active": (n,),  # whether to step the episode
        "obs": (n, sizes["obs"]),
        "reward": (n,),
        "terminated": (n,),
        "truncated": (n,),
        "success": (n,),  # NaN where the environment does not say
        "calls": (w,),  # of environments, so far: a worker that counts on is not hanging
        "row": (w,),  # the episode being worked on
        "seconds": (w,),  # inside the environments, of the last command
    }
    whole = ("seed", "active", "terminated", "truncated", "calls", "row")
    arrays: dict[str, np.ndarray] = {}
    offset = 0
    for name, shape in shapes.items():
        kind = np.int64 if name in whole else np.float64
        if buffer is not None:
            arrays[name] = np.ndarray(shape, kind, buffer, offset)
        offset += 8 * math.prod(shape)
    return arrays, max(offset, 8)


def find_maker(name: str) -> Callable[..., Any]:
    """Return what makes the environment: called with keyword arguments.

    Args:
        name: a Gymnasium id, `package.module:Name`, or `/path/to/file.py:Name`.
    """
    module, _, attribute = name.rpartition(":")
    if not module or re.search(r"-v\d+$", name):
        return gymnasium_maker(name)
    try:
        if module.endswith(".py"):
            spec = importlib.util.spec_from_file_location(os.path.basename(module)[:-3], module)
            assert spec is not None
            assert spec.loader is not None
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
        else:
            loaded = importlib.import_module(module)
        maker = getattr(loaded, attribute)
    except Exception as error:
        raise Refused(f"cannot be imported by {sys.executable}: {short(error)}") from error
    check_maker(maker)
    return maker


def check_maker(maker: Any) -> None:
    """Refuse what a config must not be able to call, with arguments of its choice: all but classes
    of environments, and functions written for this purpose."""
    if isinstance(maker, type):
        if not (hasattr(maker, "reset") and hasattr(maker, "step")):
            raise Refused("is a class, but not of environments: it has no reset and no step")
        return
    if not isinstance(maker, types.FunctionType):
        raise Refused("is neither a class nor a function")
    file = os.path.realpath(maker.__code__.co_filename)
    if file == os.path.join(os.path.dirname(os.path.realpath(__file__)), "meta_world_env.py"):
        return
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    places = [sysconfig.get_path(name, scheme) for name in INSTALLED for scheme in schemes]
    installed = {os.path.realpath(place) for place in places if place}
    if any(file.startswith(folder + os.sep) for folder in installed) or not os.path.isfile(file):
        raise Refused(
            "is a function of Python or an installed package, which might do anything; name the "
            "environment's class, or a function of your own that calls this one"
        )


def gymnasium_maker(name: str) -> Callable[..., Any]:
    """Return what makes a registered environment, without its time limit: the horizon is ours."""
    try:
        import gymnasium
    except ImportError as error:
        help = f"install it with: {sys.executable} -m pip install gymnasium"
        raise Refused(f"needs Gymnasium, which {sys.executable} does not have; {help}") from error
    try:
        spec = copy.deepcopy(gymnasium.spec(name))
    except (gymnasium.error.Error, ImportError) as error:
        known = list(gymnasium.registry)
        near = difflib.get_close_matches(name, known, 3, cutoff=0.4)
        hint = f"; nearest: {', '.join(near)}" if near else f" ({short(error)})"
        raise Refused(f"is not an environment that Gymnasium knows{hint}") from error
    spec.max_episode_steps = None
    return lambda **kwargs: gymnasium.make(spec, disable_env_checker=True, **kwargs)


class Episode:
    """One episode of the environment at a time, under one task after another."""

    def __init__(self, maker: Callable[..., Any], spec: Mapping[str, Any], render: bool) -> None:
        self.maker, self.spec = maker, spec
        self.kwargs = {**spec["kwargs"], **({"render_mode": "rgb_array"} if render else {})}
        self.env: Any = None
        self.made_for: Mapping[str, float] | None = None
        self.begun_with: tuple[np.ndarray, int] | None = None
        self.ended = False

    def reset(self, task: np.ndarray, seed: int) -> np.ndarray:
        """Begin an episode and return its first observation, flat."""
        names, route = self.spec["parameters"], self.spec["route"]
        values = dict(zip(names, (float(value) for value in task)))  # noqa: B905 (Python 3.9)
        self.make(values if route == "keyword" else {})
        if route == "attribute":
            self.set_attributes(values)
        options = {"options": values} if route == "options" else {}
        obs, _ = self.env.reset(seed=int(seed), **options)
        self.begun_with, self.ended = (task, seed), False
        return np.asarray(obs, np.float64).ravel()

    def make(self, values: Mapping[str, float]) -> None:
        """Make the environment, unless there is one already that was made like this."""
        if self.env is not None and self.made_for == values:
            return
        self.close()
        try:
            self.env = self.maker(**self.kwargs, **values)
        except TypeError as error:
            if "argument" not in str(error):
                raise
            given = ", ".join([*self.kwargs, *values]) or "none"
            raise Refused(f"does not take these keyword arguments ({given}): {error}") from error
        self.made_for = values

    def set_attributes(self, values: Mapping[str, float]) -> None:
        inner = getattr(self.env, "unwrapped", self.env)
        for name, value in values.items():
            if not hasattr(inner, name):
                numbers = [key for key in dir(inner) if is_number(inner, key)]
                near = difflib.get_close_matches(name, numbers, 1, cutoff=0.4)
                hint = f"nearest: {near[0]}" if near else f"it has {', '.join(numbers) or 'none'}"
                raise Refused(f"has no attribute {name!r} for a task to set; {hint}")
            try:
                setattr(inner, name, value)
            except AttributeError as error:
                raise Refused(f"does not let its attribute {name!r} be set: {error}") from error

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, float]:
        """Return the flat observation, reward, terminated, truncated, and success or NaN.

        An episode that has ended begins again: only a measurement of speed steps it.
        """
        if self.ended and self.begun_with is not None:
            self.reset(*self.begun_with)
        space = self.env.action_space
        if hasattr(space, "n"):
            chosen: Any = int(action[0]) + int(getattr(space, "start", 0))
        else:
            chosen = action.reshape(space.shape).astype(space.dtype)
        obs, reward, terminated, truncated, info = self.env.step(chosen)
        self.ended = bool(terminated or truncated)
        success = float(info.get("success", math.nan))
        return np.asarray(obs, np.float64).ravel(), reward, terminated, truncated, success

    def describe(self) -> dict[str, Any]:
        """Return the spaces, and how fast to show it; refuses spaces that are not supported."""
        obs, action = self.env.observation_space, self.env.action_space
        wrap = "; name a function (package.module:function) that returns it suitably wrapped"
        if not is_box(obs):
            flatten = "such as gymnasium.wrappers.FlattenObservation"
            raise Refused(f"observes {obs}: expected a Box{wrap}, {flatten}")
        discrete = type(action).__name__ == "Discrete"
        if not (discrete or is_box(action)):
            raise Refused(f"acts by {action}: expected Discrete or Box{wrap}")
        box = {} if discrete else {"low": flat(action.low), "high": flat(action.high)}
        metadata = getattr(self.env, "metadata", None) or {}
        return {
            "obs": {"low": flat(obs.low), "high": flat(obs.high)},
            "action": {"n": int(action.n)} if discrete else box,
            "fps": metadata.get("render_fps"),
            "draws": "rgb_array" in metadata.get("render_modes", ()),
        }

    def picture(self) -> np.ndarray:
        """Return what the environment draws, (height, width, 3) uint8."""
        frame = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
            raise Refused("returned no picture from render() in the mode rgb_array")
        return np.ascontiguousarray(frame, np.uint8)

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
        self.env = None


class Worker:
    """Carries the commands out."""

    def __init__(self) -> None:
        self.episodes: dict[int, Episode] = {}
        self.views: dict[str, np.ndarray] = {}

    def open(
        self,
        spec: Mapping[str, Any],
        path: Sequence[str],
        render: bool,
        sizes: Mapping[str, int] | None = None,
        fd: int = -1,
        index: int = 0,
        rows: Sequence[int] = (0, 1),
    ) -> dict[str, Any] | None:
        """Make ready. Without shared memory, try the task `spec["trial"]` and describe."""
        sys.path += [entry for entry in path if entry not in sys.path]
        maker = find_maker(spec["name"])
        self.index, self.rows = index, range(*rows)
        self.episodes = {row: Episode(maker, spec, render) for row in self.rows}
        if sizes is None:
            episode = self.episodes[0]
            size = episode.reset(np.array(spec["trial"]), 0).size
            found = episode.describe()
            if size != len(found["obs"]["low"]):
                raise Refused(f"observes {size} numbers, not as its observation space says")
            return found
        _, length = views(sizes)
        self.views, _ = views(sizes, mmap.mmap(fd, length))
        return None

    def each(self, rows: Iterable[int]) -> Iterator[int]:
        """Go through the rows of a command, letting the parent know how far it is."""
        shared, start = self.views, time.perf_counter()
        for row in rows:
            shared["row"][self.index] = row
            yield row
            shared["calls"][self.index] += 1
        shared["seconds"][self.index] = time.perf_counter() - start

    def reset(self) -> None:
        shared = self.views
        if os.fstat(2).st_size > STDERR_LIMIT:
            os.ftruncate(2, 0)
        for row in self.each(self.rows):
            task, seed = shared["task"][row].copy(), shared["seed"][row]
            shared["obs"][row] = self.checked(self.episodes[row].reset(task, seed))

    def step(self) -> None:
        shared = self.views
        outcome = ("reward", "terminated", "truncated", "success")
        for row in self.each([row for row in self.rows if shared["active"][row]]):
            obs, *values = self.episodes[row].step(shared["action"][row])
            shared["obs"][row] = self.checked(obs)
            for name, value in zip(outcome, values):  # noqa: B905 (Python 3.9)
                shared[name][row] = value

    def checked(self, obs: np.ndarray) -> np.ndarray:
        """Refuse an observation of another size, of which one number would fill all places."""
        size = self.views["obs"].shape[1]
        if obs.size != size:
            raise Refused(f"observes {obs.size} numbers, not {size} as its observation space says")
        return obs

    def picture(self, row: int) -> np.ndarray:
        return self.episodes[row].picture()

    def close(self) -> None:
        for episode in self.episodes.values():
            episode.close()


def is_box(space: Any) -> bool:
    """By name: the space may be of another package that follows Gymnasium, or of Gym."""
    return type(space).__name__ == "Box"


def is_number(thing: Any, key: str) -> bool:
    try:
        value = getattr(thing, key)
    except Exception:  # a property may do anything
        return False
    is_plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_plain and not key.startswith("_")


def flat(bound: np.ndarray) -> list[float]:
    return [float(value) for value in np.ravel(bound)]


def short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def where(error: BaseException) -> list[str]:
    """Return the end of an error's traceback, without our own part of it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_tb(trace)).splitlines()[-TRACEBACK_LINES:]


def serve(commands: BinaryIO, answers: BinaryIO) -> None:
    """Carry out commands until there are no more."""
    worker = Worker()
    for line in iter(commands.readline, b""):
        command = json.loads(line)
        name, number, picture = command.pop("do"), command.pop("number"), None
        try:
            answer = {"done": getattr(worker, name)(**command)}
            if name == "picture":
                picture = answer["done"]
                answer["done"] = picture.shape
        except Refused as error:
            answer = {"refused": str(error)}
        except Exception as error:
            answer = {"raised": short(error), "traceback": where(error)}
        answers.write(json.dumps({"number": number, **answer}).encode() + b"\n")
        if picture is not None:
            answers.write(picture.tobytes())
        answers.flush()
    worker.close()


def watch_parent() -> None:
    """End with the parent, even in the middle of a command."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    # Ctrl-C and a scheduler's warning reach the whole group: the parent alone decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    threading.Thread(target=watch_parent, daemon=True).start()
    commands, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what environments print must not come between the answers
    serve(commands, answers)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
