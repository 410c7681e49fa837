"""Checks of a family towards the outside: words, pictures, Gymnasium, and speed."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import check_env

from metarl.envs.base import TaskFamily
from metarl.envs.contract.recording import (
    Skipped,
    Violation,
    expect,
    first_line,
    some_actions,
    some_tasks,
    step_through,
    streams,
)
from metarl.envs.gymnasium_env import TaskEnv
from metarl.envs.mujoco.rendering import RenderingUnavailable

WIDTH, HEIGHT = 64, 48
COSTLY = 5e-6  # seconds of physics per env step from which on its share of the time matters
LEAST_SHARE = 0.3  # of the physics limit that `step` has to reach where the physics is costly


def _episode(family: TaskFamily) -> tuple[np.ndarray, np.ndarray]:
    """The drawn states, (T + 1, k), of an episode's beginning, and its task, (task_dim,)."""
    env, task = family.make_batch(1), some_tasks(family, 1)
    env.reset(task, streams([0]))
    states = [env.drawn_state(0)]
    states += [env.drawn_state(0) for _ in step_through(env, some_actions(family, 1))]
    return np.stack(states), task[0]


def description(family: TaskFamily) -> str:
    """`describe` says something in one line."""
    states, task = _episode(family)
    texts = [family.describe(state, task) for state in states]
    for text in texts:
        expect(
            isinstance(text, str) and text and "\n" not in text,
            f"describe: expected a few words on one line, got {text!r}",
        )
    return texts[-1]


def pictures(family: TaskFamily) -> str:
    """A scene draws uint8 pictures of the asked size, with something in them."""
    states, task = _episode(family)
    try:
        scene = family.make_scene(WIDTH, HEIGHT)
        scene.draw(states, task, 0.5)  # between two control steps
        picture = scene.draw(states, task)
    except RenderingUnavailable as error:
        raise Skipped(str(error)) from error
    scene.close()
    expected, shape = (HEIGHT, WIDTH, 3), np.shape(picture)
    expect(shape == expected, f"draw: expected the shape {expected}, got {shape}")
    expect(picture.dtype == np.uint8, f"draw: expected uint8, got {picture.dtype}")
    expect(np.ptp(picture) > 0, "draw: the picture has one colour only")
    return ""


def gymnasium_checker(family: TaskFamily) -> str:
    """Gymnasium's own check_env has no complaints about a task of the family."""
    if family.horizon < 2:
        raise Skipped("check_env takes episodes of one step for a mistake; choose a longer horizon")
    # Gymnasium's users expect actions up to 1: so are the registered environments.
    fields: dict[str, Any] = {"action_scale": 1.0} if hasattr(family, "action_scale") else {}
    env = TaskEnv(replace(family, **fields))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env, skip_render_check=True)
        except Exception as error:  # the checker calls the family, which may raise anything
            raise Violation(f"check_env: {type(error).__name__}: {first_line(error)}") from error
        finally:
            env.close()
    return f"it warns: {first_line(caught[0].message)}" if caught else ""


@dataclass(frozen=True)
class Speed:
    """Env steps per second: closed loop, by `step`, and at the limit that `advance` sets."""

    closed_loop: float
    limit: float

    @property
    def share(self) -> float:
        """What part of the limit the closed loop reaches."""
        return self.closed_loop / self.limit


def measure_speed(
    family: TaskFamily,
    num_episodes: int = 32,
    num_steps: int = 5,
    num_threads: int = 1,
    repeats: int = 3,
) -> Speed:
    """Time `step` and `advance` by turns on the same episodes and actions: the best of each."""
    env = family.make_batch(num_episodes, num_threads)
    tasks = some_tasks(family, num_episodes)
    actions = some_actions(family, num_episodes, num_steps)
    seconds: dict[str, list[float]] = {"step": [], "advance": []}
    for _ in range(repeats + 1):
        env.reset(tasks, streams(range(num_episodes)))
        lives, spent = [], 0.0
        stepping = step_through(env, actions)
        while True:
            start = time.perf_counter()
            stepped = next(stepping, None)
            spent += time.perf_counter() - start
            if stepped is None:
                break
            lives.append(stepped[0])
        seconds["step"].append(spent)
        env.reset(tasks, streams(range(num_episodes)))
        # The episodes that ended in the closed loop are left out here too.
        subsets = [None if live.all() else np.flatnonzero(live) for live in lives]
        start = time.perf_counter()
        for action, ids in zip(actions, subsets, strict=False):
            env.advance(action, ids)
        seconds["advance"].append(time.perf_counter() - start)
    env_steps = int(np.sum(lives))
    # The first time of each warms up.
    best = {name: max(min(times[1:]), 1e-9) for name, times in seconds.items()}
    return Speed(env_steps / best["step"], env_steps / best["advance"])


def speed_of_step(family: TaskFamily) -> str:
    """Observing and rewarding does not take most of the time where the physics is costly."""
    speed = measure_speed(family)
    text = (
        f"{speed.closed_loop:,.0f} env steps/s, {speed.share:.2f} of the physics limit "
        f"({speed.limit:,.0f}), one thread"
    )
    if 1 / speed.limit > COSTLY:
        expect(
            speed.share >= LEAST_SHARE,
            f"{text}; expected {LEAST_SHARE} or more: vectorise observe and reward over episodes",
        )
    return text
