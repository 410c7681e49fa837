"""envs.contract: every check passes the registered families, and fails a family that breaks it."""

# Some of the broken families here draw from the legacy generators.
# ruff: noqa: NPY002

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import mujoco
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from metarl.envs import (
    SPLITS,
    Bandit,
    HalfCheetahVel,
    Perturbed,
    PointNav,
    RenderingUnavailable,
    SimulationDiverged,
    TabularMDP,
    TaskFamily,
    TaskObserved,
)
from metarl.envs.contract import CHECKS, check_family, rendering, run_check
from metarl.envs.contract.recording import random_actions, record
from metarl.envs.mujoco.models import load_model
from metarl.envs.point import PointBatchEnv
from metarl.envs.tabular import TabularBatchEnv


def nav(batch: Callable[..., Any] = PointBatchEnv, /, **members: Any) -> TaskFamily:
    """PointNav with another batch environment, or with some of its members replaced."""

    def make_batch(self, num_episodes, num_threads=1):
        return batch(self, num_episodes, num_threads)

    members = {"__doc__": "Walk.", "name": "nav", "make_batch": make_batch, **members}
    return type("Nav", (PointNav,), members)()


def mdp(batch: type[TabularBatchEnv]) -> TaskFamily:
    """TabularMDP with another batch environment."""

    def make_batch(self, num_episodes, num_threads=1):
        return batch(self, num_episodes, num_threads)

    return type("MDP", (TabularMDP,), {"__doc__": "Explore.", "make_batch": make_batch})()


def results(change: Callable[..., Any]) -> TaskFamily:
    """PointNav whose `step` returns what `change` makes of (env, obs, reward, terminated)."""

    class Env(PointBatchEnv):
        def step(self, action, ids=None):
            return change(self, *super().step(action, ids))

    return nav(Env)


def telling(name: str, value: Any) -> Callable[..., Any]:
    """A change of `results` that sets a member of the batch environment."""

    def change(env, *result):
        setattr(env, name, value)
        return result

    return change


def telling_rewards(change: Callable[..., Any]) -> TaskFamily:
    """Bandit with other mean rewards."""

    def expected_reward(self, tasks, obs, action):
        return change(Bandit.expected_reward(self, tasks, obs, action))

    return type("Arms", (Bandit,), {"__doc__": "Pull.", "expected_reward": expected_reward})()


def later(change: Callable[..., Any]) -> TaskFamily:
    """PointNav like `results`, but only from the tenth step of an episode on."""

    class Env(PointBatchEnv):
        resets = 0

        def reset(self, tasks, rngs):
            self.resets, self.steps = self.resets + 1, 0
            return super().reset(tasks, rngs)

        def step(self, action, ids=None):
            self.steps += 1
            result = super().step(action, ids)
            return result if self.steps < 10 else change(self, *result)

    return nav(Env)


def showing(size: int, show: Callable[..., Any]) -> TaskFamily:
    """PointNav whose observations have `size` further numbers, `show(env, reward)`."""

    class Env(PointBatchEnv):
        def reset(self, tasks, rngs):
            obs = super().reset(tasks, rngs)
            return np.column_stack([obs, show(self, np.zeros(len(tasks)))])

        def step(self, action, ids=None):
            obs, reward, terminated = super().step(action, ids)
            return np.column_stack([obs, show(self, reward)]), reward, terminated

    space = Box(-100.0, 100.0, (2 + size,), np.float64)
    return nav(Env, observation_space=property(lambda _: space))


class KeepsSuccess(PointBatchEnv):
    """Success of earlier episodes stays."""

    def step(self, action, ids=None):
        obs, reward, terminated = super().step(action, ids)
        before = False if self.success is None else self.success
        self.success = before | (reward > -0.4)
        return obs, reward, terminated


def drawing(sample: Callable[..., Any]) -> TaskFamily:
    """PointNav that samples its tasks by `sample(rng, num_tasks)`."""
    return nav(sample_tasks=lambda self, rng, num_tasks: sample(rng, num_tasks))


def spaces(**members: Any) -> TaskFamily:
    """PointNav with other spaces."""
    return nav(**{name: property(lambda _, value=value: value) for name, value in members.items()})


HOPPER = load_model("hopper.xml")

# --- broken families, by what is wrong with them ---


class Uninitialised(PointBatchEnv):
    def __init__(self, family, num_episodes, num_threads):
        super().__init__(family, num_episodes, 1)


class Untyped(PointNav):
    """Its field is none: the class is not decorated."""

    wind: float = 0.1


@dataclass(frozen=True)
class Mute(PointNav):
    speed: float = 1.0
    kind: ClassVar[str] = "without a docstring"


@dataclass(frozen=True)
class Forgetful(PointNav):
    """Its fields do not stay what they were set to."""

    def __post_init__(self):
        object.__setattr__(self, "goal_range", self.goal_range * 2)


class DrawsInStep(PointBatchEnv):
    def reset(self, tasks, rngs):
        self.rngs = rngs
        return super().reset(tasks, rngs)

    def step(self, action, ids=None):
        obs, reward, terminated = super().step(action, ids)
        return obs, reward + [rng.normal() for rng in self.rngs], terminated


def begins_at(start: Callable[..., Any]) -> TaskFamily:
    """PointNav whose episodes begin where `start(env, rngs)` says, (N, 2)."""

    class Env(PointBatchEnv):
        def reset(self, tasks, rngs):
            super().reset(tasks, rngs)
            self.position[:] = start(self, rngs)
            return self.position.copy()

    return nav(Env)


class IgnoresActions(PointBatchEnv):
    """Drifts, whatever is done."""

    def step(self, action, ids=None):
        return super().step(np.full_like(action, 0.1), ids)


class Leaks(PointBatchEnv):
    """Observes half of the offset to the goal: an affine function of the task."""

    def reset(self, tasks, rngs):
        return (super().reset(tasks, rngs) - tasks) / 2

    def step(self, action, ids=None):
        obs, reward, terminated = super().step(action, ids)
        return (obs - self.tasks) / 2, reward, terminated


class ReturnsViews(PointBatchEnv):
    def step(self, action, ids=None):
        _, reward, terminated = super().step(action, ids)
        return self.position, reward, terminated


class LendsItsState(PointBatchEnv):
    """Moves on in a new array, but reads on from the one it returned."""

    def advance(self, action, ids=None):
        self.position = self.position.copy()
        super().advance(action, ids)

    def step(self, action, ids=None):
        _, reward, terminated = super().step(action, ids)
        return self.position, reward, terminated


class DrawsViews(PointBatchEnv):
    def render_state(self, episode):
        return self.position[episode]


class ClipsInPlace(PointBatchEnv):
    def advance(self, action, ids=None):
        np.clip(action, -0.5, 0.5, out=action)
        super().advance(action, ids)


class KeepsTasks(PointBatchEnv):
    def reset(self, tasks, rngs):
        tasks[:] = np.round(tasks, 1)
        return super().reset(tasks, rngs)


class Unclipped(PointBatchEnv):
    def advance(self, action, ids=None):
        rows = slice(None) if ids is None else ids
        self.position[rows] += 0.1 * np.asarray(action, np.float64)[rows]
        self.physics_seconds += 1e-6


class TakesAnyIndex(TabularBatchEnv):
    def action_indices(self, action, ids=None):
        index = np.nan_to_num(np.asarray(action)[slice(None) if ids is None else ids, 0])
        return index.astype(np.int64) % self.family.num_actions


class IgnoresIds(PointBatchEnv):
    def advance(self, action, ids=None):
        super().advance(action)


class MindsUnstepped(PointBatchEnv):
    """The actions of all episodes reward each, whether they are stepped or not."""

    def step(self, action, ids=None):
        obs, reward, terminated = super().step(action, ids)
        return obs, reward - np.abs(action).mean(), terminated


class Inert(PointBatchEnv):
    """Goes on with the last episode's velocity."""

    velocity = 0.0

    def advance(self, action, ids=None):
        super().advance(action, ids)
        self.position += 0.01 * self.velocity
        self.velocity = np.mean(action)


class Lazy(PointBatchEnv):
    """Moves in `step`, but not in `advance`."""

    def step(self, action, ids=None):
        super().advance(action, ids)
        return super().step(np.zeros_like(action), ids)

    def advance(self, action, ids=None):
        super().advance(0 * action, ids)


class Untimed(PointBatchEnv):
    def advance(self, action, ids=None):
        super().advance(action, ids)
        self.physics_seconds = 0.0


def diverge() -> None:
    """Step a simulation that diverges, and that MuJoCo resets."""
    data = mujoco.MjData(HOPPER)
    data.qvel[0] = np.inf
    mujoco.mj_step(HOPPER, data)
    assert np.isfinite(data.qvel).all()


class Unstable(PointBatchEnv):
    """A simulation diverges in each step, which nothing shows."""

    def advance(self, action, ids=None):
        diverge()
        super().advance(action, ids)


class UnstableAtReset(PointBatchEnv):
    def reset(self, tasks, rngs):
        diverge()
        return super().reset(tasks, rngs)


class UnstableByNan(PointBatchEnv):
    """As `Unstable`, but where an action is NaN only, which it does not tell."""

    def advance(self, action, ids=None):
        if np.isnan(action).any():
            diverge()
        super().advance(np.nan_to_num(action), ids)


class TellsOfIt(Unstable):
    """As MujocoFamily does: raises SimulationDiverged where MuJoCo warns."""

    def step(self, action, ids=None):
        result = super().step(action, ids)
        raise SimulationDiverged(np.arange(self.num_episodes), "unstable", result)


def diverging(
    others: Callable[..., Any] = lambda env, *result: result, again: bool = False
) -> TaskFamily:
    """PointNav whose error of a divergence tells of the others what `others` makes of them, and
    comes again at each step."""

    class Env(PointBatchEnv):
        lost = None

        def reset(self, tasks, rngs):
            self.lost = None
            return super().reset(tasks, rngs)

        def step(self, action, ids=None):
            if again and self.lost is not None:
                raise self.lost
            try:
                return super().step(action, ids)
            except SimulationDiverged as error:
                error.result = others(self, *error.result)
                self.lost = error
                raise

    return nav(Env)


class BlamesAll(PointBatchEnv):
    def step(self, action, ids=None):
        try:
            return super().step(action, ids)
        except SimulationDiverged as error:
            raise SimulationDiverged(np.arange(3), "lost", error.result) from None


class StopsAll(PointBatchEnv):
    """Advances nobody when one diverges."""

    def step(self, action, ids=None):
        before = self.position.copy()
        try:
            return super().step(action, ids)
        except SimulationDiverged:
            self.position = before
            raise


class Slow(PointBatchEnv):
    """Costly physics, and ten times as costly observations."""

    def advance(self, action, ids=None):
        super().advance(action, ids)
        time.sleep(1e-5 * self.num_episodes)

    def step(self, action, ids=None):
        time.sleep(1e-4 * self.num_episodes)
        return super().step(action, ids)


class Blank:
    """A renderer that returns a given image."""

    def __init__(self, picture):
        self.picture = picture

    def draw(self, states, task, time=None):
        return self.picture

    def close(self):
        pass


def pictured(picture: np.ndarray) -> TaskFamily:
    """PointNav that draws this picture."""
    return nav(make_renderer=lambda *_: Blank(picture))


def fail(error: Exception) -> Callable[..., Any]:
    """A method that raises."""

    def method(*_):
        raise error

    return method


def uniform(rng: np.random.Generator, num_tasks: int) -> np.ndarray:
    """PointNav's own distribution."""
    return rng.uniform(-0.5, 0.5, (num_tasks, 2))


def in_a_row(env: PointBatchEnv) -> np.ndarray:
    """Places that depend on the episode's number in its batch, (N, 2)."""
    return 0.1 * np.arange(env.num_episodes)[:, None] * np.ones(2)


def of_any_name(self, split, num_tasks):
    """Takes a split that it does not know for the test tasks."""
    return PointNav().tasks(split if split in SPLITS else "test", num_tasks)


def by_size(self, split, num_tasks):
    """Tasks that depend on how many are asked for."""
    if split == "no_such_split" or num_tasks < 1:
        raise ValueError
    return uniform(np.random.default_rng([num_tasks, len(split)]), num_tasks)


def small_ood() -> TaskFamily:
    """Has all its tasks, but those out of distribution, in a space that excludes the others."""
    return nav(
        ood_space=property(lambda _: Box(0.6, 0.7, (2,), np.float64)),
        check_task=lambda _, task: task,
    )


BROKEN: list[tuple[str, TaskFamily, str]] = [
    ("availability", nav(Uninitialised), "expected num_threads to be 2, got 1"),
    ("declaration", Untyped(), "wind: no field of the dataclass; put @dataclass"),
    ("declaration", Mute(), "Mute has no docstring"),
    ("declaration", nav(source=""), "source: expected a text, got ''"),
    ("declaration", Forgetful(), "made again from its fields, the family is another"),
    ("declaration", nav(task_hash=lambda *_: "0" * 16), "task_hash: expected the same for"),
    ("spaces", spaces(observation_space=Discrete(3)), "observation_space: expected a Box"),
    ("spaces", spaces(task_space=Box(0, 1, (2, 1))), "task_space: expected one axis"),
    ("spaces", spaces(task_space=Box(0, 9, (2,), np.int64)), "expected a floating dtype"),
    ("spaces", spaces(action_space=Box(0, 0, (2,))), "expected low below high"),
    ("spaces", spaces(action_space=Discrete(3, start=1)), "expected to start at 0, got 1"),
    ("spaces", spaces(action_dim=3), "action_dim: expected 2"),
    ("spaces", spaces(frames_per_second=0.0), "frames_per_second: expected more than 0"),
    ("sampled tasks", drawing(lambda rng, _: uniform(rng, 1)[0]), "expected the shape (1, 2)"),
    ("sampled tasks", drawing(lambda *a: uniform(*a).astype("f")), "got float32"),
    ("sampled tasks", drawing(lambda *a: 3 + uniform(*a)), "not in the task space"),
    ("sampled tasks", nav(check_task=lambda _, task: task.round(1)), "check_task: expected"),
    ("results of step", results(lambda env, *r: (*r, {})), "expected (obs, reward, terminated)"),
    ("results of step", results(lambda env, o, r, t: (o, r[:, None], t)), "got (3, 1)"),
    ("results of step", results(lambda env, o, r, t: (o, r * np.nan, t)), "episode 0 is nan"),
    ("results of step", results(lambda env, o, r, t: (o, r.astype(int), t)), "got int64"),
    ("results of step", results(lambda env, o, r, t: (o, r, t * 1.0)), "expected bool"),
    ("results of step", results(lambda env, o, r, t: (o, list(r), t)), "numpy array"),
    ("results of step", results(telling("success", np.zeros(3))), "success: expected (3,) bool"),
    ("results of step", results(telling("truncated", [False])), "truncated: expected (3,) bool"),
    ("results of step", results(lambda env, o, r, t: (o[0], r, t)), "obs: expected the shape"),
    ("results of step", results(lambda env, o, r, t: (o + 99, r, t)), "widen it, or clip"),
    ("results of step", results(lambda env, o, r, t: (o * np.nan, r, t)), "is nan"),
    ("results of step", spaces(observation_space=Box(-9, 9, (2,))), "expected float32"),
    (
        "results of step",
        nav(type("Env", (PointBatchEnv,), {"render_state": lambda self, _: self.position})),
        "render_state: expected one axis",
    ),
    (
        "results of step",
        results(fail(SimulationDiverged(np.array([1]), "lost"))),
        "raised SimulationDiverged: episodes [1] of the batch diverged: lost (test_contract.py",
    ),
    ("stability", nav(Unstable), "step 0: MuJoCo warns: Nan, Inf or huge value in QVEL at DOF 0"),
    ("stability", nav(UnstableAtReset), "reset: MuJoCo warns: Nan, Inf or huge value in QVEL"),
    (
        "sampling's randomness",
        drawing(lambda rng, n: uniform(np.random, n)),
        "it uses np.random's global generator",
    ),
    (
        "sampling's randomness",
        drawing(lambda rng, n: uniform(rng, n) * random.random()),
        "it uses random's global generator",
    ),
    (
        "sampling's randomness",
        drawing(lambda rng, n: uniform(np.random.default_rng(), n)),
        "the same generator gave other tasks",
    ),
    (
        "sampling's randomness",
        drawing(lambda rng, n: uniform(np.random.default_rng(0), n)),
        "two generators gave the same 20 tasks",
    ),
    (
        "task coordinates",
        nav(tasks_at=lambda _, x: x[:, ::-1] ** 2 - 0.5),
        "number 0 of a task is not distributed as by sample_tasks",
    ),
    (
        "task coordinates",
        nav(sample_tasks=lambda _, *args: 0.5 * uniform(*args), num_coordinates=2),
        "have num_coordinates return 0",
    ),
    ("task coordinates", nav(num_coordinates=3), "operands could not be broadcast"),
    ("task sets", nav(tasks=by_size), "are not those of a set of 5"),
    ("task sets", drawing(lambda _, n: uniform(np.random.default_rng(), n)), "differ from one"),
    ("task sets", drawing(lambda rng, n: rng.choice([-0.1, 0.1], (n, 2))), "tasks in common"),
    ("task sets", nav(tasks=of_any_name), "tasks('no_such_split', 3): expected a ValueError"),
    ("task sets", nav(tasks=fail(ValueError("none"))), "raised ValueError: none (test_contract.py"),
    ("task sets", nav(splits=("test",)), "splits: expected train, validation, test at least"),
    (
        "task sets",
        nav(splits=SPLITS[:-1], tasks=lambda _, *a: PointNav().tasks(*a)),
        "tasks('ood', 3): expected a ValueError",
    ),
    (
        "task sets",
        nav(sample_ood_tasks=lambda _, *a: uniform(*a)),
        "in_distribution says True; draw",
    ),
    ("task sets", nav(in_distribution=lambda *_: False), "in_distribution says False"),
    ("task sets", small_ood(), "ood_space: expected the task space and more"),
    ("task effect", results(lambda env, o, r, t: (o, 0 * r, 0 * t > 0)), "use the tasks that"),
    ("task effect", drawing(lambda rng, n: np.zeros((n, 2))), "are all the same"),
    ("action effect", nav(IgnoresActions), "random actions are rewarded and move alike, 32 times"),
    (
        "hidden task",
        showing(2, lambda env, _: env.tasks @ [[1.0, 2.0], [1.0, -1.0]]),
        "the first observation tells number 0 of the task, as a sum of multiples of its numbers",
    ),
    ("hidden task", nav(Leaks), "number 0 of the first observation tells number 0 of the task"),
    (
        "hidden task",
        results(lambda env, o, r, t: (o + env.tasks**3, r, t)),
        "number 0 of the observation after 1 steps depends on the task",
    ),
    (
        "hidden task",
        nav(type("Env", (Leaks,), {"reset": lambda *a: np.tanh(PointBatchEnv.reset(*a) + a[1])})),
        "number 0 of the observation after 0 steps depends on the task",
    ),
    ("actions", nav(Unclipped), "do not act as clipped into it (state of episode 0 after 1 steps"),
    ("actions", mdp(TakesAnyIndex), "the action 5 of Discrete(5) was taken"),
    ("episodes' randomness", begins_at(lambda *_: np.random.random()), "np.random's global"),
    ("episodes' randomness", begins_at(lambda *_: time.perf_counter() % 1), "gave other episodes"),
    ("episodes' randomness", nav(DrawsInStep), "step draws from the generators"),
    ("fresh arrays", nav(ReturnsViews), "obs of step 0 changed"),
    ("fresh arrays", nav(DrawsViews), "render_state after step 0 changed"),
    ("fresh arrays", nav(LendsItsState), "depends on what the caller wrote"),
    ("fresh arrays", nav(ClipsInPlace), "step writes into the actions"),
    ("fresh arrays", nav(KeepsTasks), "reset writes into the tasks"),
    (
        "batch equals single",
        results(lambda env, o, r, t: (o, r - r.mean(), t)),
        "episode 0 of 3 alone is another (reward of episode 0 after 1 steps",
    ),
    ("batch equals single", begins_at(lambda env, _: in_a_row(env)), "episode 1 of 3 alone"),
    ("subsets", nav(IgnoresIds), "step(action, ids=[1, 3]) changes episodes"),
    ("subsets", nav(MindsUnstepped), "reward of step 0 differs when only the episodes [1, 3]"),
    ("threads", results(lambda env, o, r, t: (o, r / env.num_threads, t)), "2 threads give"),
    ("reset", nav(Inert), "an episode after another is another"),
    ("advance", nav(Lazy), "advance leads to another render_state than step"),
    ("advance", nav(Untimed), "physics_seconds is still 0"),
    ("batch equals single", nav(KeepsSuccess), "alone is another (success of episode 0 after"),
    (
        "whole episodes",
        later(lambda _, o, r, t: (o, np.full_like(r, r.mean()), t)),
        "an episode alone, as number 1 of its environment is another (reward of episode 0 after 10",
    ),
    (
        "whole episodes",
        later(lambda env, o, r, t: (o, r * env.resets, t)),
        "an episode after others in the same environment is another (reward of episode 0 after 10",
    ),
    (
        "whole episodes",
        later(lambda env, o, r, t: (o, r / env.num_threads, t)),
        "an episode on 2 threads is another (reward of episode 0 after 10 steps",
    ),
    (
        "whole episodes",
        results(lambda env, o, r, t: telling("success", r > np.median(r))(env, o, r, t)),
        "success: expected whether an episode has succeeded so far, but it went back to False",
    ),
    ("expected rewards", telling_rewards(lambda told: -told), "but what it returns differs by"),
    ("expected rewards", telling_rewards(lambda told: 0 * told), "but what it returns differs by"),
    ("expected rewards", telling_rewards(lambda told: told[0]), "expected one for each step"),
    ("expected rewards", telling_rewards(lambda told: told * np.nan), "expected finite numbers"),
    (
        "whole episodes",
        later(lambda _, o, r, t: (o, r * np.nan, t)),
        "step 9: the reward of episode 0 is nan; it must be finite",
    ),
    (
        "whole episodes",
        later(lambda _, o, r, t: (o + 1e9, r, t)),
        "step 9: number 0 of the observation of episode 0 is 1e+09; its space says",
    ),
    ("divergence", nav(UnstableByNan), "an action of NaN: MuJoCo warns: Nan, Inf or huge value"),
    ("divergence", nav(BlamesAll), "ids: expected [1], the one episode whose action was NaN"),
    (
        "divergence",
        diverging(lambda env, o, r, t: (o, np.zeros_like(r), t)),
        "reward of the other episodes 0 steps later are not what they are",
    ),
    ("divergence", nav(StopsAll), "obs of the other episodes 1 steps later"),
    ("divergence", diverging(again=True), "raised for episodes [1] again"),
    ("caption", nav(caption=lambda *_: ""), "expected a few words on one line, got ''"),
    ("caption", nav(caption=lambda *_: "a\nb"), "expected a few words on one line"),
    ("caption", nav(caption=fail(KeyError("x"))), "raised KeyError: 'x' (test_contract.py"),
    ("pictures", pictured(np.zeros((64, 48, 3), np.uint8)), "expected the shape (48, 64, 3)"),
    ("pictures", pictured(np.zeros((48, 64, 3))), "expected uint8, got float64"),
    ("pictures", pictured(np.zeros((48, 64, 3), np.uint8)), "one colour only"),
    ("gymnasium", begins_at(lambda *_: time.perf_counter() % 1), "check_env: AssertionError"),
    ("speed", nav(Slow), "of the physics limit"),
]


@pytest.mark.parametrize(
    ("name", "family", "reason"), BROKEN, ids=[f"{name}: {text}" for name, _, text in BROKEN]
)
def test_a_broken_family_fails_the_check_that_is_about_it(name, family, reason):
    check = run_check(name, family)
    assert check.outcome == "FAIL"
    assert reason in check.reason
    assert "\n" not in check.reason


def test_every_check_is_shown_to_fail():
    assert {name for name, *_ in BROKEN} == set(CHECKS)


def test_what_relies_on_a_failed_check_is_skipped_and_says_so():
    checks = check_family(results(lambda env, o, r, t: (o, r[:, None], t)))
    outcomes = {check.name: check.outcome for check in checks}
    assert outcomes["sampled tasks"] == "pass"
    assert outcomes["results of step"] == "FAIL"
    after = checks[list(CHECKS).index("results of step") + 1 :]
    assert {(check.outcome, check.reason) for check in after} == {
        ("skipped", "it relies on: results of step")
    }


def test_a_family_whose_package_is_missing_is_skipped_with_the_reason():
    checks = check_family(nav(make_batch=fail(ImportError("no module named 'robots'"))))
    assert {check.outcome for check in checks} == {"skipped"}
    assert "robots" in checks[0].reason


def test_where_nothing_can_be_drawn_pictures_are_skipped_with_the_reason():
    check = run_check("pictures", nav(make_renderer=fail(RenderingUnavailable("set MUJOCO_GL"))))
    assert (check.outcome, check.reason) == ("skipped", "set MUJOCO_GL")


@pytest.mark.parametrize("family", [PointNav(), TabularMDP(num_states=2)])
def test_a_family_that_shows_the_task_on_purpose_passes(family):
    checks = check_family(TaskObserved(family))
    assert [check for check in checks if check.outcome == "FAIL"] == []
    hidden = next(check for check in checks if check.name == "hidden task")
    assert (hidden.outcome, hidden.reason) == (
        "skipped",
        "observe_task shows the task on purpose",
    )


@pytest.mark.parametrize(
    ("family", "remark"),
    [
        (PointNav(), "Episodes stay bit-identical when another one diverges."),
        (PointNav(horizon=1), "Episodes stay bit-identical when another one diverges."),
        (diverging(lambda *_: None), "SimulationDiverged has no `result`: on_failure drop_episode"),
        (TabularMDP(), "nothing made it diverge: its actions are choices"),
        (
            Perturbed(PointNav(), observation_noise=0.1, action_delay=0),
            "Episodes stay bit-identical",
        ),
        (HalfCheetahVel(), "nothing made it diverge: it took an action of NaN"),
    ],
)
def test_a_divergence_that_the_others_survive_passes(family, remark):
    check = run_check("divergence", family)
    assert check.outcome == "pass"
    assert remark in check.reason


def test_a_family_that_diverges_in_every_step_fails_and_leaves_no_log(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    checks = check_family(nav(Unstable))
    assert [check.name for check in checks if check.outcome == "FAIL"] == ["stability"]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert mujoco.get_mju_user_warning() is None


def test_an_agent_may_observe_its_last_reward():
    """Which depends on the task, where nothing else does."""
    assert run_check("hidden task", showing(1, lambda _, reward: reward)).outcome == "pass"
    twice = run_check("hidden task", showing(1, lambda _, reward: 2 * reward))
    assert twice.outcome == "FAIL"
    assert "number 2 of the observation after 1 steps depends on the task" in twice.reason


def test_a_divergence_that_is_told_is_no_instability():
    assert run_check("stability", nav(TellsOfIt)).outcome == "pass"


def test_an_episode_of_one_step_passes():
    checks = check_family(PointNav(horizon=1))
    assert [check for check in checks if check.outcome == "FAIL"] == []
    assert next(check for check in checks if check.name == "gymnasium").outcome == "skipped"


class Heavy(PointBatchEnv):
    """The task is the friction; how the point first stands depends on it, but not as a line."""

    def reset(self, tasks, rngs):
        super().reset(tasks, rngs)
        self.position[:] = np.sin(9 * tasks) * [[rng.uniform(0.1, 0.2)] for rng in rngs]
        return self.position.copy()


def test_a_first_observation_that_depends_on_the_task_otherwise_passes_with_a_remark():
    check = run_check("hidden task", nav(Heavy))
    assert check.outcome == "pass"
    assert "the first observations differ between tasks" in check.reason


class Around(PointBatchEnv):
    """Begins around the goal, so far that a first observation hardly tells of it."""

    def reset(self, tasks, rngs):
        super().reset(tasks, rngs)
        self.position[:] = tasks + [rng.normal(0, 5, 2) for rng in rngs]
        return self.position.copy()


def test_a_first_observation_in_which_chance_hides_the_task_passes():
    space = Box(-np.inf, np.inf, (2,), np.float64)
    family = nav(Around, observation_space=property(lambda _: space))
    assert run_check("hidden task", family).outcome == "pass"


def test_where_episodes_have_one_step_in_common_the_motion_is_not_compared():
    family = replace(nav(Opaque), horizon=1)
    assert run_check("hidden task", family).outcome == "pass"


def test_a_space_of_tasks_may_have_single_precision():
    """Gymnasium's default; tasks are float64 in any."""
    space = Box(-0.5, 0.5, (2,))
    assert run_check("sampled tasks", spaces(task_space=space)).outcome == "pass"


@pytest.mark.parametrize(("low", "high"), [(2.0, np.inf), (-np.inf, -3.0), (-np.inf, np.inf)])
def test_actions_are_drawn_within_the_bounds_that_there_are(low, high):
    space = Box(low, high, (2,))
    drawn = random_actions(spaces(action_space=space), 4)
    assert all(space.contains(each) for each in drawn.reshape(-1, 2))


def test_a_scale_of_actions_that_is_no_field_is_left_alone():
    assert run_check("gymnasium", Fixed()).outcome == "pass"


@dataclass(frozen=True)
class Fixed(Bandit):
    """Pull an arm."""

    action_scale: ClassVar[float] = 2.0


def test_the_globals_are_left_as_they_were():
    np.random.seed(3)
    random.seed(3)
    expected = np.random.random(), random.random()
    np.random.seed(3)
    random.seed(3)
    run_check("sampling's randomness", PointNav())
    run_check("episodes' randomness", begins_at(lambda *_: np.random.random()))
    assert (np.random.random(), random.random()) == expected


class Opaque(PointBatchEnv):
    """The task is a wind, which the first observation cannot show; nor does what is drawn."""

    def step(self, action, ids=None):
        obs, reward, terminated = super().step(action, ids)
        return obs + self.tasks, reward, terminated

    def render_state(self, episode):
        return np.array([1.0])


def test_where_what_is_drawn_does_not_move_only_the_first_observation_is_judged():
    check = run_check("hidden task", nav(Opaque))
    assert check.outcome == "pass"
    assert "render_state does not tell" in check.reason


class Few(PointNav):
    """Has three tasks of each set only."""

    def tasks(self, split, num_tasks):
        if num_tasks > 3:
            raise ValueError(f"there are 3 tasks, not {num_tasks}")
        return super().tasks(split, num_tasks)


CORNERS = PointNav(region="corners")


def few(**members):
    return type("Corners", (PointNav,), members)(region="corners")


def test_a_family_may_have_few_tasks_in_all():
    check = run_check("task sets", CORNERS)
    assert (check.outcome, check.reason) == ("pass", "4 tasks in all; no ood tasks")


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (few(all_tasks=np.repeat(CORNERS.all_tasks, 2, axis=0)), "expected each task once"),
        (few(all_tasks=CORNERS.all_tasks[:3]), "which is not one of all_tasks"),
        (
            few(tasks=lambda self, split, n: -TaskFamily.tasks(self, split, n)),
            "the train tasks do not go through all_tasks in turn",
        ),
    ],
)
def test_all_tasks_of_a_family_are_checked(family, expected):
    check = run_check("task sets", family)
    assert check.outcome == "FAIL"
    assert expected in check.reason


def test_a_family_may_have_few_tasks_of_a_set():
    assert run_check("task sets", Few()).outcome == "pass"


def test_a_family_may_reward_rarely():
    """In most of the first episodes no task rewards anything."""
    family = PointNav(region="semicircle", reward="sparse", goal_range=1.0, ends_at_goal=False)
    assert run_check("task effect", family).outcome == "pass"


@pytest.mark.parametrize(("again", "outcome"), [(0.9, "pass"), (0.1, "FAIL")])
def test_a_family_is_slow_only_if_it_is_slow_again(monkeypatch, again, outcome):
    """Another process may have taken the time of the first measurement."""
    shares = iter([0.1, again])

    def measured(family, **settings):
        return rendering.Speed(next(shares) * 1e4, 1e4)

    monkeypatch.setattr(rendering, "measure_speed", measured)
    assert run_check("speed", PointNav()).outcome == outcome
    assert next(shares, None) is None


def test_a_single_action_has_nothing_to_differ_from():
    check = run_check("action effect", spaces(action_space=Discrete(1), action_dim=1))
    assert (check.outcome, check.reason) == ("skipped", "there is only one action")


def test_actions_may_be_without_bounds():
    family = spaces(action_space=Box(-np.inf, np.inf, (2,), np.float32))
    assert run_check("spaces", family).outcome == "pass"
    assert run_check("results of step", family).outcome == "pass"


class Short(PointBatchEnv):
    """The first episode ends at its first step, and may not be stepped again."""

    def reset(self, tasks, rngs):
        self.ended = False
        return super().reset(tasks, rngs)

    def advance(self, action, ids=None):
        if self.ended:
            assert ids is not None
            assert 0 not in ids
        self.ended = True
        super().advance(action, ids)

    def step(self, action, ids=None):
        obs, reward, terminated = super().step(action, ids)
        terminated[0] = True
        return obs, reward, terminated


def test_ended_episodes_are_not_stepped_again():
    """By any check: in this family each would raise."""
    family = nav(Short)
    checks = (check for check in check_family(family) if check.outcome == "FAIL")
    # The first of a batch is another episode than alone, and its end is kept back where another one
    # diverges, which this family pays for elsewhere.
    assert {check.name for check in checks} <= {
        "batch equals single",
        "subsets",
        "divergence",
        "whole episodes",
    }
    assert rendering.measure_speed(family, num_episodes=4, num_steps=3, repeats=1).limit > 0


class EndsBySteps(PointBatchEnv):
    """Each episode ends after 2 to 6 steps, a number drawn from its own stream."""

    def reset(self, tasks, rngs):
        self.left = np.array([rng.integers(2, 7, 3)[-1] for rng in rngs])
        return super().reset(tasks, rngs)

    def advance(self, action, ids=None):
        self.left[slice(None) if ids is None else ids] -= 1
        super().advance(action, ids)

    def step(self, action, ids=None):
        obs, reward, _ = super().step(action, ids)
        return obs, reward, self.left == 0


def test_episodes_may_end_after_different_numbers_of_steps():
    family = nav(EndsBySteps)
    played = record(family, 5)
    last = played.active.sum(axis=0)
    assert last.tolist() == [4, 6, 3, 6, 4]
    assert [check for check in check_family(family) if check.outcome == "FAIL"] == []
    for episode, steps in enumerate(last):  # entries after the end are 0
        assert played.state[steps, episode].any()
        assert not played.state[steps + 1 :, episode].any()


@pytest.mark.parametrize(("shown", "outcome"), [(0, "pass"), (1, "FAIL")])
def test_numbers_of_a_task_may_be_visible(shown, outcome):
    """Where the family says so, such as the place of an object that is seen."""

    class Sees(PointNav):
        visible_task = (0,)

        @property
        def observation_space(self):
            return Box(-np.inf, np.inf, (3,), np.float64)

        def make_batch(self, num_episodes, num_threads=1):
            return SeesBatch(self, num_episodes, num_threads)

    class SeesBatch(PointBatchEnv):
        def reset(self, tasks, rngs):
            return np.column_stack([super().reset(tasks, rngs), self.tasks[:, shown]])

        def step(self, action, ids=None):
            obs, reward, terminated = super().step(action, ids)
            return np.column_stack([obs, self.tasks[:, shown]]), reward, terminated

    assert run_check("hidden task", Sees()).outcome == outcome
