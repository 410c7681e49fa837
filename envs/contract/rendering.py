"""Checks of captions, rendering, Gymnasium's interface, and speed."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, fields, replace

import numpy as np
from gymnasium.utils.env_checker import check_env

from metarl.envs.base import TaskFamily
from metarl.envs.contract.recording import (
    Skipped,
    Violation,
    expect,
    make_rngs,
    random_actions,
    random_tasks,
    step_through,
)
from metarl.envs.errors import first_line
from metarl.envs.gymnasium_env import TaskEnv
from metarl.envs.rendering import RenderingUnavailable, without_glfw_warnings

WIDTH, HEIGHT = 64, 48
COSTLY_PHYSICS = 5e-6  # seconds per env step above which the speed of `step` is checked
MIN_SHARE = 0.3  # of the physics limit that `step` has to reach with costly physics
REPEATS = 3  # of a measurement of speed, the best of which counts


def _episode(family: TaskFamily) -> tuple[np.ndarray, np.ndarray]:
    """Return the render states, (T + 1, k), of the first steps of an episode, and its task."""
    env, task = family.make_batch(1), random_tasks(family, 1)
    env.reset(task, make_rngs([0]))
    states = [env.render_state(0)]
    states += [env.render_state(0) for _ in step_through(env, random_actions(family, 1))]
    return np.stack(states), task[0]


def caption(family: TaskFamily) -> str:
    """`caption` returns one line of text."""
    states, task = _episode(family)
    texts = [family.caption(state, task) for state in states]
    for text in texts:
        expect(
            isinstance(text, str) and text and "\n" not in text,
            f"caption: expected a few words on one line, got {text!r}",
        )
    return texts[-1]


def pictures(family: TaskFamily) -> str:
    """The renderer draws uint8 images of the given size that are not of one colour."""
    states, task = _episode(family)
    try:
        with without_glfw_warnings():
            renderer = family.make_renderer(WIDTH, HEIGHT)
        renderer.draw(states, task, 0.5)  # between two control steps
        image = renderer.draw(states, task)
    except RenderingUnavailable as error:
        raise Skipped(str(error)) from error
    renderer.close()
    expected, shape = (HEIGHT, WIDTH, 3), np.shape(image)
    expect(shape == expected, f"draw: expected the shape {expected}, got {shape}")
    expect(image.dtype == np.uint8, f"draw: expected uint8, got {image.dtype}")
    expect(np.ptp(image) > 0, "draw: the picture has one colour only")
    return ""


def gymnasium_checker(family: TaskFamily) -> str:
    """Gymnasium's own check_env accepts a task of the family."""
    if family.horizon < 2:
        raise Skipped("check_env takes episodes of one step for a mistake; choose a longer horizon")
    # As in the registered environments, whose actions are within the actuators' range.
    scaled = "action_scale" in {field.name for field in fields(family)}
    env = TaskEnv(replace(family, action_scale=1.0) if scaled else family)
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
        """The closed loop's speed as a fraction of the limit."""
        return self.closed_loop / self.limit

    @property
    def is_enough(self) -> bool:
        """Whether the share is, or the physics costs too little for it to matter."""
        return self.share >= MIN_SHARE or 1 / self.limit <= COSTLY_PHYSICS


def measure_speed(
    family: TaskFamily,
    num_episodes: int = 32,
    num_steps: int = 5,
    num_threads: int = 1,
    repeats: int = REPEATS,
) -> Speed:
    """Return the best speeds of `step` and `advance`, timed alternately on the same episodes."""
    env = family.make_batch(num_episodes, num_threads)
    tasks = random_tasks(family, num_episodes)
    actions = random_actions(family, num_episodes, num_steps)
    seconds: dict[str, list[float]] = {"step": [], "advance": []}
    for _ in range(repeats + 1):
        env.reset(tasks, make_rngs(range(num_episodes)))
        active_rows, spent = [], 0.0
        stepping = step_through(env, actions)
        while True:
            start = time.perf_counter()
            stepped = next(stepping, None)
            spent += time.perf_counter() - start
            if stepped is None:
                break
            active_rows.append(stepped[0])
        seconds["step"].append(spent)
        env.reset(tasks, make_rngs(range(num_episodes)))
        # Skip the episodes that had ended in the closed loop.
        subsets = [None if active.all() else np.flatnonzero(active) for active in active_rows]
        start = time.perf_counter()
        for action, ids in zip(actions, subsets, strict=False):
            env.advance(action, ids)
        seconds["advance"].append(time.perf_counter() - start)
    env_steps = int(np.sum(active_rows))
    # The first round of each is a warm-up.
    best = {name: max(min(times[1:]), 1e-9) for name, times in seconds.items()}
    return Speed(env_steps / best["step"], env_steps / best["advance"])


def speed_of_step(family: TaskFamily) -> str:
    """Observations and rewards do not take most of the time if the physics is costly."""
    speed = measure_speed(family)
    if not speed.is_enough:  # perhaps for other processes of a busy machine
        speed = measure_speed(family, repeats=10 * REPEATS)
    share = f"{speed.share:.2f} of" if speed.share <= 1 else "no less than"
    text = (
        f"{speed.closed_loop:,.0f} env steps/s, {share} the physics limit "
        f"({speed.limit:,.0f}), one thread"
    )
    expect(
        speed.is_enough,
        f"{text}; expected {MIN_SHARE} or more: vectorise observe and reward over episodes",
    )
    return text
